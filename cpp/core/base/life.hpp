// The deadlines of one entry and the state that follows from them.
//
// Thread rule: pure functions.
// Refuses to know: loads, marks, and where an entry is kept.
//
//   commit ....... early_at ....... fresh_until ....... stale_until ....... gone_at ....... kept_until
//          FRESH            EARLY               STALE               FAILSAFE         KEPT              GONE
//
// fresh_until = commit + ttl * (1 - jitter * random)      jitter only subtracts: the promised age stays true
// early_at    = commit + early * (fresh_until - commit)   or by the load's own time: see early_at()
// stale_until = fresh_until + stale_while_revalidate
// gone_at     = fresh_until + max(stale_while_revalidate, stale_if_error)
// kept_until  = gone_at + keep                            never returned; its loader may ask for it and revive it
#pragma once

#include <algorithm>
#include <cmath>

#include "core/base/entry.hpp"

namespace stillwarm {

inline constexpr double kEarlyAuto = -1;  // for Durations::early: by the measured time of the load

struct Durations {
  Nanos ttl = kForever;
  Nanos stale_while_revalidate = 0;
  Nanos stale_if_error = 0;
  Nanos negative_ttl = 0;  // 0: an absence is not remembered
  double early = 0;        // fraction of the ttl after which a hit refreshes in the background; 0: never; kEarlyAuto
  double jitter = 0;       // fraction of the ttl that may be subtracted
  Nanos keep = 0;          // after all service
};

struct Life {
  Nanos fresh_until;
  Nanos stale_until;
  Nanos gone_at;
  Nanos kept_until;
};

// What counts as absent is at the end.
enum class State : std::uint8_t { kFresh, kEarly, kStale, kFailsafe, kKept, kGone };

// For ever is reached and never passed; `b` may be negative.
constexpr Nanos add(Nanos a, Nanos b) noexcept { return b > 0 && a >= kForever - b ? kForever : a + b; }

inline Life life_after(Nanos fresh_until, Nanos while_revalidate, Nanos if_error, Nanos keep) noexcept {
  const Nanos gone_at = add(fresh_until, std::max(while_revalidate, if_error));
  return {fresh_until, add(fresh_until, while_revalidate), gone_at, add(gone_at, keep)};
}

inline Life life_of(const Entry& e, const Durations& d) noexcept {
  if (e.flags & kFlagNegative) return {e.next_at, e.next_at, e.next_at, e.next_at};
  if (e.extra == nullptr) return life_after(e.next_at, d.stale_while_revalidate, d.stale_if_error, d.keep);
  const Extra& x = *e.extra;
  return life_after(x.fresh_until, x.stale_while_revalidate, x.stale_if_error, x.keep);
}

inline State state_of(const Entry& e, const Durations& d, Nanos now) noexcept {
  if (now < e.next_at) return State::kFresh;
  const Life life = life_of(e, d);
  if (now < life.fresh_until) return State::kEarly;
  if (now < life.stale_until) return State::kStale;
  if (now < life.gone_at) return State::kFailsafe;
  return now < life.kept_until ? State::kKept : State::kGone;
}

// When a value that was committed `now`, by a load that took `took`, begins to be refreshed; fresh_until: never.
//
// kEarlyAuto: the refresh shall end before the value is stale, and processes that share a source shall not all begin
// at once. So the window is twice the load's time and a random part: took * -ln(1 - random), exponentially distributed.
// That distribution is the optimal one of A. Vattani, F. Chierichetti, K. Lowenstein: Optimal Probabilistic Cache
// Stampede Prevention. PVLDB 8(8), 2015 (XFetch). They draw at every request; here one draw is made at the commit, so
// that a hit has nothing to compute. At most half of the life.
inline Nanos early_at(const Durations& d, Nanos now, Nanos fresh_until, Nanos took, double random) noexcept {
  if (d.early == 0 || fresh_until == kForever) return fresh_until;
  const Nanos life = fresh_until - now;
  if (d.early > 0) return now + static_cast<Nanos>(static_cast<double>(life) * d.early);
  const double window = static_cast<double>(std::max<Nanos>(took, 0)) * (2 - std::log1p(-random));
  return fresh_until - static_cast<Nanos>(std::min(0.5 * static_cast<double>(life), window));
}

// From now on the entry counts as stale: fresh_until = min(fresh_until, at). Never lengthens its life.
inline void make_stale(Entry& e, Nanos at) noexcept {
  e.next_at = std::min(e.next_at, at);
  if (e.extra != nullptr) e.extra->fresh_until = std::min(e.extra->fresh_until, at);
}

// The moment at which a load is tried again after `failures` failures in a row: 5 s doubling to min(60 s, ttl), the
// upper quarter spread by `random` in [0, 1) so that processes that failed together do not come back together.
inline Nanos retry_after(std::uint32_t failures, Nanos ttl, double random) noexcept {
  constexpr Nanos kFirst = 5'000'000'000;
  constexpr Nanos kCap = 60'000'000'000;
  const Nanos most = std::max<Nanos>(1, std::min(kCap, ttl));
  const Nanos pause = std::min(most, kFirst << std::min<std::uint32_t>(failures > 0 ? failures - 1 : 0, 5));
  return pause - static_cast<Nanos>(static_cast<double>(pause) * 0.25 * random);
}

}  // namespace stillwarm
