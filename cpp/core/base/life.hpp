// The deadlines of one entry and the state that follows from them.
//
// Thread rule: pure functions.
// Refuses to know: loads, marks, and where an entry is kept.
//
//   commit ........ early_at ........ fresh_until ........ stale_until ........ gone_at
//          FRESH             EARLY                 STALE               FAILSAFE         GONE
//
// fresh_until = commit + ttl * (1 - jitter * random)      jitter only subtracts: the promised age stays true
// early_at    = commit + early * (fresh_until - commit)
// stale_until = fresh_until + stale_while_revalidate
// gone_at     = fresh_until + max(stale_while_revalidate, stale_if_error)
#pragma once

#include <algorithm>

#include "core/base/entry.hpp"

namespace stillwarm {

struct Durations {
  Nanos ttl = kForever;
  Nanos stale_while_revalidate = 0;
  Nanos stale_if_error = 0;
  Nanos negative_ttl = 0;  // 0: an absence is not remembered
  double early = 0;        // fraction of the ttl after which a hit refreshes in the background; 0: never
  double jitter = 0;       // fraction of the ttl that may be subtracted
};

struct Life {
  Nanos fresh_until;
  Nanos stale_until;
  Nanos gone_at;
};

enum class State : std::uint8_t { kFresh, kEarly, kStale, kFailsafe, kGone };

constexpr Nanos add(Nanos a, Nanos b) noexcept { return a >= kForever - b ? kForever : a + b; }

inline Life life_of(const Entry& e, const Durations& d) noexcept {
  if (e.flags & kFlagNegative) return {e.next_at, e.next_at, e.next_at};
  if (e.extra != nullptr) {
    const Extra& x = *e.extra;
    return {x.fresh_until, add(x.fresh_until, x.stale_while_revalidate),
            add(x.fresh_until, std::max(x.stale_while_revalidate, x.stale_if_error))};
  }
  return {e.next_at, add(e.next_at, d.stale_while_revalidate),
          add(e.next_at, std::max(d.stale_while_revalidate, d.stale_if_error))};
}

inline State state_of(const Entry& e, const Durations& d, Nanos now) noexcept {
  if (now < e.next_at) return State::kFresh;
  const Life life = life_of(e, d);
  if (now < life.fresh_until) return State::kEarly;
  if (now < life.stale_until) return State::kStale;
  return now < life.gone_at ? State::kFailsafe : State::kGone;
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
