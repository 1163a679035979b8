// The path of a call, as a state machine that never waits and never calls: it is told what happened and says what comes
// next. The bindings and the two Python loops (_load, _aload) perform it.
//
// Thread rule: guarded by the cache's owner (the GIL in the extension). Members marked [foreign] may run a key's
// __eq__. Refuses to know: what keys and values are, how anybody waits, what a loader is.
//
//   hit   -> the index of a fresh entry, and nothing else is touched            (the hot path)
//   look  -> Decision: return | refresh (return and load behind) | lead | follow | absent (remembered NotFound)
//   lead  -> the flight is in the table
//   commit-> fences and marks are those of the start, the flight is attached: stored. Else a lost fill
//   fail  -> what a failed load leaves behind: a pause, a dropped entry, a stale value that may be served
//
// Invariants
//  F1  At most one attached flight per key.
//  F2  What is stored was born after every mark and fence that concerns it.
//  F3  A failed load never replaces a value, never shortens and never lengthens its life. Only a commit revives one.
//  F4  An invalidation first takes its number and writes it down, then drops what it can.
//  F5  With a remote tier nothing fresh is returned past `attention`: either memory is trusted and no message waits, or
//      the owner has asked the tier (kConfirm) and heard that it is away, or that this key's part of it is not.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <span>

#include "core/base/clock.hpp"
#include "core/decision.hpp"
#include "core/retry/classify.hpp"
#include "core/stations.hpp"

namespace stillwarm {

template <class Traits>
class Flow : public Stations<Traits> {
 public:
  using Probe = typename Traits::Probe;
  using Stations<Traits>::Stations;
  using Stations<Traits>::confirm;
  using Stations<Traits>::detach;
  using Stations<Traits>::settle;

  // While something watches every hit, none takes the short way; the same for loads.
  void set_watched(bool hits, bool loads) noexcept {
    watched_ = hits;
    watched_loads_ = hits || loads;
  }
  bool watched_loads() const noexcept { return watched_loads_; }

  // The moment up to which memory may be trusted (core/remote/inbox.hpp); without a remote tier that is for ever. It
  // outlives the flow. `strict`: what is not trusted is never returned.
  void set_attention(const std::atomic<Nanos>& until, bool strict) noexcept {
    attention_ = &until;
    strict_ = strict;
  }
  bool trusted(Nanos now) const noexcept { return now < attention_->load(std::memory_order_acquire); }

  // Hits are noted for `take_hits` from now on.
  void note_hits() noexcept { notes_hits_ = true; }

  // [foreign] A fresh entry; kNone (no entry), kNotFresh or kFindError otherwise. The entry's hit is counted, the
  // scope's is the caller's to count (it has the counter at hand). All of it in its caller: whether the compiler does
  // that by itself depends on how much code there is elsewhere, and three calls are a quarter of a `get`.
  [[gnu::always_inline]] Index hit(const Probe& probe, Nanos now) {
    const Index i = memory_.find_first(probe);
    if (i == kNone || i == kFindError) [[unlikely]]
      return i;
    Entry& e = memory_[i];
    if (now >= e.next_at || e.born < marks_.epoch() || (e.flags & kFlagNegative) || watched_ || !trusted(now))
        [[unlikely]]
      return kNotFresh;
    count_hit(i);
    return i;
  }

  // [foreign] Where a call that wants a value goes. Counts hits; misses are counted by `lead` and `joined`. A call that
  // has to look again after it was counted says so. `anew`: a call that wants a load whatever is stored. `asked`: what
  // came of asking the tier whether memory is right.
  Decision look(const Probe& probe, Nanos now, bool count = true, bool anew = false, Asked asked = Asked::kNot) {
    for (int tries = 0; tries < kFindRestarts; ++tries) {
      Index i = memory_.find(probe);
      if (i == kFindError) return {};
      if (i != kNone && !confirm(i)) i = kNone;
      State state = State::kGone;
      if (i != kNone) {
        state = state_of(memory_[i], scopes_[memory_[i].scope].durations, now);
        if (state < State::kKept && asked != Asked::kConfirmed && !trusted(now) && !anew) {
          if (asked == Asked::kNot) return {Step::kConfirm, i, nullptr, state};
          state = untrusted(i, state);
          if (state == State::kKept) i = kNone;
        }
        if (i != kNone && state == State::kFresh && !anew) return fresh(i, probe.scope, count);
        if (i != kNone && state == State::kGone) memory_.drop(i, Cause::kExpired);
        if (state >= State::kKept) i = kNone;
      }
      const std::uint64_t before = memory_.generation();
      bool failed = false;
      Flight* flight = flights_.find(probe, failed);
      if (failed) return {};
      if (before != memory_.generation()) continue;  // a comparison changed the tier: look again
      if (flight != nullptr && !joinable(*flight)) {
        flights_.remove(*flight);
        flight = nullptr;
      }
      if (i == kNone || anew) return {flight != nullptr ? Step::kFollow : Step::kLead, kNone, flight, state};
      const Entry& e = memory_[i];
      const bool pausing = e.extra != nullptr && e.extra->retry_at > now;
      if (state == State::kFailsafe && !pausing) {
        return {flight != nullptr ? Step::kFollow : Step::kLead, i, flight, state};
      }
      if (count) count_served(i, probe.scope, state);
      return {flight != nullptr || pausing ? Step::kReturn : Step::kRefresh, i, nullptr, state};
    }
    Traits::never_settles(probe);
    return {};
  }

  // [foreign] A value that may be returned without a load (fresh, early, stale), uncounted; kNone, kFindError.
  Index peek(const Probe& probe, Nanos now) {
    const Index i = memory_.find(probe);
    if (i == kNone || i == kFindError) return i;
    if (!confirm(i)) return kNone;
    const State state = state_of(memory_[i], scopes_[memory_[i].scope].durations, now);
    if (state == State::kGone) memory_.drop(i, Cause::kExpired);
    return state <= State::kStale ? i : kNone;
  }

  // [foreign] The value that a load of this key may revive: whatever is stored and not invalidated, also what is KEPT.
  // kNone, kFindError.
  Index revivable(const Probe& probe, Nanos now) {
    const Index i = memory_.find(probe);
    if (i == kNone || i == kFindError) return i;
    if (!confirm(i) || (memory_[i].flags & kFlagNegative)) return kNone;
    return state_of(memory_[i], scopes_[memory_[i].scope].durations, now) == State::kGone ? kNone : i;
  }

  std::uint64_t generation() const noexcept { return memory_.generation() + flights_.generation(); }

  // The flight starts: key, hash and scope are set. Requires that nothing changed since `look` said kLead or kRefresh
  // (`generation`). Throws std::bad_alloc, and then nothing has changed.
  void lead(Flight& f, Nanos now, bool count) {
    flights_.add(f);
    f.nothing_at = memory_.generation();
    f.born = marks_.counter();
    f.t0 = now;
    static std::uint64_t started = 0;
    f.sequence = ++started;
    if (!f.background && count) ++scopes_[f.scope].stats.misses;
  }

  void joined(ScopeId scope) noexcept {
    ++scopes_[scope].stats.misses;
    ++scopes_[scope].stats.joined;
  }

  // May the load's result still be stored?
  bool may_store(const Flight& f, std::span<const std::uint64_t> tags) const noexcept {
    return f.attached && fences_.passes(f.hash, f.born) &&
           !marks_.check(f.born, scopes_[f.scope].type, f.scope, tags).dead;
  }

  // [foreign] The load ended with a value. `key` is the owner's spare reference: taken if `kStored` comes back and the
  // key was new (`took_key`). Throws std::bad_alloc, and then nothing is stored.
  Outcome commit(Flight& f, const Probe& probe, const Result& result, bool& took_key, Nanos now) {
    took_key = false;
    if (!may_store(f, result.tags)) {
      ++scopes_[f.scope].stats.lost_fills;
      return {Stored::kLost, nullptr};
    }
    return put(f.scope, probe, f.key, result, f.born, took_key, now, &f);
  }

  // [foreign] The same for what the remote tier has: it has `fresh_left` to go, less than nothing if it is stale.
  Outcome adopt(Flight& f, const Probe& probe, Result result, Nanos fresh_left, bool& took_key, Nanos now) {
    result.adopted = true;
    result.fresh_left = fresh_left;
    return commit(f, probe, result, took_key, now);
  }

  // [foreign] A value that was not loaded: it fences and detaches what is being loaded, then is stored.
  Outcome set(const Probe& probe, Handle key, const Result& result, bool& took_key, Nanos now) {
    took_key = false;
    if (result.since != 0 && !this->untouched_since(result.since, probe.hash)) return {Stored::kLost, nullptr};
    if (!detach(probe)) return {};
    return put(probe.scope, probe, key, result, marks_.counter(), took_key, now, nullptr);
  }

  // [foreign] The load failed for good (its retries are over). Says what may be served in place of the error.
  Failure fail(const Flight& f, const Probe& probe, ErrorKind kind, double random, Nanos now) {
    const Index i = memory_.find(probe);
    if (i == kNone || i == kFindError || !confirm(i)) return {};
    Entry& e = memory_[i];
    if (kind == ErrorKind::kNotFound) {
      if (!f.attached) return {};
      memory_.drop(i, Cause::kNotFound);
      return {kNone, true};
    }
    const Durations& durations = scopes_[e.scope].durations;
    const State state = state_of(e, durations, now);
    if (state >= State::kKept || (e.flags & kFlagNegative)) return {};
    if (strict_ && !trusted(now)) return {};
    if (state == State::kFresh && trusted(now)) {  // a load that was asked for although there is a value
      return {kind == ErrorKind::kTransient && f.attached ? i : kNone, false};
    }
    if (kind == ErrorKind::kTransient || f.background) pause(e, durations, random, now);
    if (kind != ErrorKind::kTransient) return {};
    return {i, false};
  }

  [[gnu::always_inline]] void count_hit(Index i) noexcept {
    Entry& e = memory_[i];
    if ((e.flags & kFlagQuiet) && notes_hits_) [[unlikely]]
      memory_.note_hit(i);
    if (e.hits != ~std::uint32_t{0}) ++e.hits;
    Policy::on_hit(e);
  }

  // A call was answered with this entry; for those who looked without counting.
  void count_served(Index i, ScopeId asking, State state) noexcept {
    count_hit(i);
    Stats& stats = scopes_[asking].stats;
    ++(state <= State::kEarly ? stats.hits : stats.stale_hits);
  }

 private:
  using Stations<Traits>::scopes_;
  using Stations<Traits>::memory_;
  using Stations<Traits>::flights_;
  using Stations<Traits>::marks_;
  using Stations<Traits>::fences_;

  // What an entry counts as while the tier does not say whether it is right. KEPT where it may not be served at all: it
  // is absent for every caller, and there for the table.
  State untrusted(Index i, State state) const noexcept {
    const Entry& e = memory_[i];
    if (strict_ || (e.flags & kFlagNegative)) return State::kKept;
    if (state > State::kEarly) return state;
    const Durations& d = scopes_[e.scope].durations;
    const Nanos while_revalidate = e.extra != nullptr ? e.extra->stale_while_revalidate : d.stale_while_revalidate;
    return while_revalidate > 0 ? State::kStale : State::kFailsafe;
  }

  bool joinable(const Flight& f) const noexcept {
    return fences_.joinable(f.born) && !marks_.may_concern(f.born, scopes_[f.scope].type, f.scope);
  }

  Decision fresh(Index i, ScopeId asking, bool count) noexcept {
    if (count) count_served(i, asking, State::kFresh);
    return {memory_[i].flags & kFlagNegative ? Step::kAbsent : Step::kReturn, i, nullptr, State::kFresh};
  }

  void pause(Entry& e, const Durations& durations, double random, Nanos now) noexcept {
    if (e.extra == nullptr) {
      e.extra = new (std::nothrow) Extra;
      if (e.extra == nullptr) return;  // no memory: the next get tries again at once
      e.extra->fresh_until = e.next_at;
      e.extra->stale_while_revalidate = durations.stale_while_revalidate;
      e.extra->stale_if_error = durations.stale_if_error;
      e.extra->keep = durations.keep;
    }
    const Nanos ttl = e.extra->ttl > 0 ? e.extra->ttl : durations.ttl;
    e.extra->retry_at = add(now, retry_after(++e.extra->failures, ttl, random));
  }

  Outcome put(ScopeId scope, const Probe& probe, Handle key, const Result& result, std::uint64_t born, bool& took_key,
              Nanos now, const Flight* flight) {
    const Nanos ttl = result.adopted    ? kForever
                      : result.negative ? result.durations.negative_ttl
                                        : result.durations.ttl;
    // Nothing came into the tier and nothing left it since the load began without an entry: there is none now.
    const bool untouched = flight != nullptr && flight->found_nothing && flight->nothing_at == memory_.generation();
    const Index old = untouched ? kNone : memory_.find(probe);
    if (old == kFindError) return {};
    if (!untouched && flight != nullptr && !may_store(*flight, result.tags)) {  // a comparison invalidated it
      ++scopes_[scope].stats.lost_fills;
      return {Stored::kLost, nullptr};
    }
    if (flight == nullptr) {  // loads that a comparison started are outdated, too
      fences_.raise_key(probe.hash, marks_.take());
      born = marks_.counter();
    }
    if (ttl <= 0) {
      if (flight == nullptr && old != kNone) memory_.drop(old, Cause::kInvalidated);
      return {};
    }
    if (result.weight > memory_.largest()) {
      if (old != kNone) memory_.drop(old, Cause::kTooLarge);
      ++scopes_[scope].stats.removed[static_cast<std::size_t>(Cause::kTooLarge)];
      return {Stored::kTooLarge, nullptr};
    }
    const Nanos took = flight != nullptr ? now - flight->t0 : 0;
    now = add(now, Clock::resync(now));
    const bool away = !trusted(now) && !result.adopted && !result.answered;
    std::unique_ptr<Extra> extra = away || needs_extra(result, took) ? make_extra(result) : nullptr;
    const auto filled = [&](Entry& e) noexcept {
      fill(e, result, extra.release(), scope, born, now, took);
      if (!away) return;  // else it is served for so long, and then looked at again
      e.extra->retry_at = std::min(add(now, kServedWhileAway), e.extra->fresh_until);
    };
    Outcome outcome{Stored::kStored, nullptr};
    Index i = old;
    if (old != kNone) {
      outcome.released = memory_.replace(old, result.value, filled);
    } else {
      i = memory_.put(key, result.value, probe.hash, filled);
      took_key = true;
    }
    confirm(i);  // a soft mark since the start: stored, and stale
    settle(now);
    return outcome;
  }

  static constexpr Nanos kServedWhileAway = 10'000'000'000;
  static inline const std::atomic<Nanos> kAlways{kForever};

  const std::atomic<Nanos>* attention_ = &kAlways;
  bool watched_ = false;
  bool watched_loads_ = false;
  bool strict_ = false;
  bool notes_hits_ = false;
};

}  // namespace stillwarm
