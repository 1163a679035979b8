// The memory tier: entries in a slab, found by a table, ordered by a policy, expired by a wheel. Always the four
// together.
//
// Thread rule: guarded by the cache's owner (the GIL in the extension). Only `find` and `find_first`
// may run foreign code (see table.hpp). Refuses to know: loads, marks, who waits. It is told what is invalid.
//
// What is removed is not released here: it goes to the list of the dead, and the owner takes it from there with
// `take_dead` when it has finished everything else, because releasing a value may run any code, this cache's own
// included.
//
// Invariants
//  M1  An entry is in the table if and only if it is in the policy, and scheduled if its life ends.
//  M2  After `settle` the limits hold. Nothing outside can look in between.
//  M3  `put` is the only member that throws (std::bad_alloc), and then nothing has changed.
//  M4  A member removes at most kExpiryBudget entries for being expired, however many are due.
#pragma once

#include <limits>

#include "core/base/scope.hpp"
#include "core/memory/hit_notes.hpp"
#include "core/memory/policy.hpp"
#include "core/memory/table.hpp"
#include "core/memory/timer_wheel.hpp"

namespace stillwarm {

struct Dead {
  Handle key = nullptr;  // null where it went to those who count hits
  Handle value = nullptr;
};

template <class Traits>
class MemoryTier {
 public:
  using Probe = typename Traits::Probe;
  static constexpr std::uint32_t kExpiryBudget = 64;

  MemoryTier(ScopeTable& scopes, Limits limits, std::uint64_t seed, Nanos now)
      : scopes_(scopes), table_(slab_), policy_(slab_, limits, seed), wheel_(slab_, now) {}

  MemoryTier(const MemoryTier&) = delete;
  MemoryTier& operator=(const MemoryTier&) = delete;
  ~MemoryTier() {
    for (Index i = 1; i < slab_.end(); ++i) delete slab_[i].extra;
  }

  Entry& operator[](Index i) noexcept { return slab_[i]; }
  const Entry& operator[](Index i) const noexcept { return slab_[i]; }
  Index find(const Probe& probe) const { return table_.find(probe); }
  Index find_first(const Probe& probe) const { return table_.find_first(probe); }
  std::uint64_t generation() const noexcept { return table_.generation(); }
  std::size_t size() const noexcept { return table_.size(); }
  std::uint64_t bytes() const noexcept { return policy_.bytes(); }
  const Limits& limits() const noexcept { return policy_.limits(); }
  std::uint64_t most_removed() const noexcept { return most_removed_; }
  Index end() const noexcept { return slab_.end(); }
  bool live(Index i) const noexcept { return slab_[i].queue != Queue::kNowhere; }

  // What a stored value must not exceed.
  std::uint64_t largest() const noexcept {
    const std::uint64_t most =
        limits().max_bytes == 0 ? std::numeric_limits<std::uint32_t>::max() : limits().max_bytes / 4;
    return std::min<std::uint64_t>(most, std::numeric_limits<std::uint32_t>::max());
  }

  // A new entry under a key that is not there, which `fill` completes. Takes `key` and `value`. Call settle()
  // afterwards.
  template <class Fill>
  Index put(Handle key, Handle value, std::uint64_t hash, Fill&& fill) {
    table_.reserve_one();
    policy_.reserve_for_insert();
    const Index i = slab_.allocate();
    Entry& e = slab_[i];
    e.key = key;
    e.value = value;
    e.hash = hash;
    fill(e);
    table_.insert(i);
    policy_.on_insert(i);
    count_in(e);
    wheel_.schedule(i, leaves_at(i));
    return i;
  }

  // Another value under the same key; the old one is returned, for the caller to release. The key object stays.
  template <class Fill>
  Handle replace(Index i, Handle value, Fill&& fill) noexcept {
    Entry& e = slab_[i];
    const Handle old = e.value;
    const std::uint32_t old_weight = e.weight;
    wheel_.cancel(i);
    count_out(e);
    delete e.extra;
    e.value = value;
    fill(e);
    count_in(e);
    policy_.on_reweigh(i, old_weight);
    reschedule(i);
    return old;
  }

  // The entry's life has changed.
  void reschedule(Index i) noexcept {
    wheel_.cancel(i);
    wheel_.schedule(i, leaves_at(i));
  }

  void drop(Index i, Cause cause) noexcept {
    Entry& e = slab_[i];
    table_.erase(i);
    if ((e.flags & kFlagQuiet) == 0 && notes_.leave(i, e)) e.key = nullptr;
    policy_.on_remove(i);
    wheel_.cancel(i);
    count_out(e);
    ++scopes_[e.scope].stats.removed[static_cast<std::size_t>(cause)];
    ++removed_now_;
    e.queue = Queue::kNowhere;
    e.newer = dead_;
    dead_ = i;
  }

  // Removes what is due (a bounded part of it) and what is over the limits. Expired entries go before live ones.
  void settle(Nanos now) noexcept {
    expire(now);
    for (Index victim = policy_.victim(); victim != kNone; victim = policy_.victim()) {
      if (expire(now) == 0) drop(victim, Cause::kSize);
    }
    most_removed_ = std::max(most_removed_, removed_now_);
    removed_now_ = 0;
  }

  void set_limits(Limits limits) { policy_.set_limits(limits); }

  // The entry gets a hit, the first since hits were taken.
  [[gnu::noinline]] void note_hit(Index i) noexcept {
    if (notes_.begin(i, slab_[i].hits)) slab_[i].flags &= static_cast<std::uint8_t>(~kFlagQuiet);
  }

  // Calls tell(key, scope, hits, given) for every entry that was hit since the last call; a key that is `given` is the
  // caller's from then on, since its entry is gone. What `tell` throws, take_hits throws: the rest is told the next
  // time.
  template <class Tell>
  void take_hits(Tell&& tell) {
    notes_.take(
        [&](Index i, std::uint32_t before) {
          Entry& e = slab_[i];
          tell(e.key, e.scope, e.hits - before, false);
          e.flags |= kFlagQuiet;
        },
        [&](const HitNotes::Left& left) { tell(left.key, left.scope, left.hits, true); });
  }

  bool has_dead() const noexcept { return dead_ != kNone; }

  // One removed key and value. The caller may release them at once: the tier is whole.
  Dead take_dead() noexcept {
    const Index i = dead_;
    Entry& e = slab_[i];
    const Dead taken{e.key, e.value};
    dead_ = e.newer;
    delete e.extra;
    slab_.free(i);
    return taken;
  }

  // Calls f(index) for every entry; f must not change the tier, drop() of the very entry excepted.
  template <class F>
  void each(F&& f) {
    for (Index i = 1; i < slab_.end(); ++i)
      if (live(i)) f(i);
  }

  bool check_invariants() const {
    std::size_t count = 0;
    std::uint64_t bytes = 0;
    for (Index i = 1; i < slab_.end(); ++i) {
      if (!live(i)) continue;
      ++count;
      bytes += slab_[i].weight;
    }
    const Limits& most = limits();
    return count == table_.size() && count == policy_.entries() && bytes == policy_.bytes() &&
           (most.max_entries == 0 || count <= most.max_entries) && (most.max_bytes == 0 || bytes <= most.max_bytes) &&
           table_.check_invariants() && policy_.check_invariants() && wheel_.check_invariants();
  }

 private:
  Nanos leaves_at(Index i) const noexcept { return life_of(slab_[i], scopes_[slab_[i].scope].durations).kept_until; }

  std::uint64_t expire(Nanos now) noexcept {
    const std::uint64_t before = removed_now_;
    wheel_.advance(
        now, kExpiryBudget, [this](Index i) noexcept { return leaves_at(i); },
        [this](Index i) noexcept { drop(i, Cause::kExpired); });
    return removed_now_ - before;
  }

  void count_in(const Entry& e) noexcept {
    Stats& stats = scopes_[e.scope].stats;
    ++stats.entries;
    stats.bytes += e.weight;
  }

  void count_out(const Entry& e) noexcept {
    Stats& stats = scopes_[e.scope].stats;
    --stats.entries;
    stats.bytes -= e.weight;
  }

  ScopeTable& scopes_;
  Slab slab_;
  Table<Traits> table_;
  Policy policy_;
  TimerWheel wheel_;
  Index dead_ = kNone;
  HitNotes notes_;
  std::uint64_t removed_now_ = 0;
  std::uint64_t most_removed_ = 0;
};

}  // namespace stillwarm
