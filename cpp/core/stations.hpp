// The stations of one cache together, and what is invalidated across them: memory, flights, fences, marks.
//
// Thread rule: guarded by the cache's owner (the GIL in the extension). Members marked [foreign] may run a key's
// __eq__. Refuses to know: what a call does next (flow.hpp), what keys and values are.
//
// An invalidation first takes its number and writes it down, then drops what it can. What it cannot drop at once is
// told apart by its number whenever it is looked at (`confirm`), and leaves with the sweep.
#pragma once

#include <optional>
#include <span>

#include "core/base/clock.hpp"
#include "core/fence/fences.hpp"
#include "core/fence/marks.hpp"
#include "core/fence/sweep.hpp"
#include "core/flight/flight_table.hpp"
#include "core/memory/memory_tier.hpp"

namespace stillwarm {

template <class Traits>
class Stations {
 public:
  using Probe = typename Traits::Probe;

  Stations(Limits limits, std::uint64_t seed, Nanos now) : memory_(scopes_, limits, seed, now) {
    scopes_.add(0, "", seed);
  }

  ScopeTable& scopes() noexcept { return scopes_; }
  MemoryTier<Traits>& memory() noexcept { return memory_; }
  FlightTable<Traits>& flights() noexcept { return flights_; }
  Marks& marks() noexcept { return marks_; }

  // [foreign] What is being loaded for the key goes to those who wait and is not stored. False: a comparison raised.
  bool detach(const Probe& probe) {
    fences_.raise_key(probe.hash, marks_.take());
    bool failed = false;
    if (Flight* flight = flights_.find(probe, failed)) flights_.remove(*flight);
    return !failed;
  }

  // Did nothing concern the key since this number was taken? Any mark counts: those of tags are forgotten once looked
  // at.
  bool untouched_since(std::uint64_t number, std::uint64_t hash) const noexcept {
    return fences_.passes(hash, number) && marks_.epoch() <= number;
  }

  // [foreign] One key. Soft: what is stored is stale from now on. True if there was something that could be returned.
  bool invalidate_key(const Probe& probe, bool soft, Nanos now) {
    if (!detach(probe)) return false;
    const Index i = memory_.find(probe);
    if (i == kNone || i == kFindError) return false;
    if (!confirm(i)) return false;
    const State state = state_of(memory_[i], scopes_[memory_[i].scope].durations, now);
    if (state != State::kGone) invalidate_entry(i, soft, now);
    return state < State::kKept;
  }

  void invalidate_entry(Index i, bool soft, Nanos now) noexcept {
    if (!soft) {
      memory_.drop(i, Cause::kInvalidated);
      return;
    }
    make_stale(memory_[i], now);
    memory_.reschedule(i);
  }

  // Loads in flight are not stored; the caller then picks the entries that match (`memory().each`).
  void fence_pattern() noexcept { fences_.raise_all(marks_.take()); }

  void invalidate_all(bool soft, Nanos now) {
    marks_.mark_all(soft ? now : kForever);
    start_sweep();
  }
  void invalidate_type(TypeId type, bool soft, Nanos now) {
    marks_.mark_type(type, soft ? now : kForever);
    start_sweep();
  }
  void invalidate_scope(ScopeId scope, bool soft, Nanos now) {
    marks_.mark_scope(scope, soft ? now : kForever);
    start_sweep();
  }
  void invalidate_tag(std::uint64_t tag, bool soft, Nanos now) noexcept {
    marks_.mark_tag(tag, soft ? now : kForever);
    start_sweep();
  }

  // Everything of the scope (or of all scopes) leaves now, however long it takes; loads in flight are not stored.
  void clear(std::optional<ScopeId> scope) {
    scope ? marks_.mark_scope(*scope, kForever) : marks_.mark_all(kForever);
    memory_.each([&](Index i) {
      if (!scope || memory_[i].scope == *scope) memory_.drop(i, Cause::kInvalidated);
    });
  }

  // The function of the scope is gone: so are its entries, and the number may be used again.
  void retire(ScopeId scope) noexcept {
    memory_.each([&](Index i) {
      if (memory_[i].scope == scope) memory_.drop(i, Cause::kInvalidated);
    });
    flights_.each([&](Flight& f) {
      if (f.scope == scope) flights_.remove(f);
    });
    scopes_.remove(scope);
  }

  // Detaches every flight: after a fork their loads run in another process.
  void detach_all() noexcept {
    flights_.each([this](Flight& f) { flights_.remove(f); });
  }

  // Ends the flight for the table. Its waiters are the owner's business.
  void finish(Flight& f) noexcept { flights_.remove(f); }

  // Bounded housekeeping that every write does: what is due, over the limits, or marked.
  void settle(Nanos now) noexcept {
    sweep();
    memory_.settle(now);
  }

  // Drops the entry if a mark says so, makes it stale if a soft one does, and remembers that it was looked at.
  bool confirm(Index i) noexcept {
    Entry& e = memory_[i];
    if (e.born >= marks_.epoch()) return true;
    const Verdict verdict = judge(e);
    if (verdict.dead) {
      memory_.drop(i, Cause::kInvalidated);
      return false;
    }
    if (verdict.stale_at != kForever) {
      make_stale(e, verdict.stale_at);
      memory_.reschedule(i);
    }
    e.born = marks_.counter();
    return true;
  }

  bool check_invariants() const { return memory_.check_invariants(); }

 protected:
  Verdict judge(const Entry& e) const noexcept {
    std::span<const std::uint64_t> tags;
    if (e.extra != nullptr) tags = e.extra->tags;
    return marks_.check(e.born, scopes_[e.scope].type, e.scope, tags);
  }

  void start_sweep() noexcept {
    sweep_.start(memory_.end(), marks_.epoch());
    sweep();
  }

  void sweep() noexcept {
    const bool round = sweep_.step([this](Index i) noexcept {
      if (memory_.live(i)) confirm(i);
    });
    if (!round) return;
    std::uint64_t oldest = sweep_.epoch();
    flights_.each([&](const Flight& f) { oldest = std::min(oldest, f.born); });
    marks_.looked_at_all(oldest);
  }

  ScopeTable scopes_;
  MemoryTier<Traits> memory_;
  FlightTable<Traits> flights_;
  Marks marks_;
  Fences fences_;
  Sweep sweep_;
};

}  // namespace stillwarm
