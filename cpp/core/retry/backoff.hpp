// How long to wait before the next attempt: exponential growth up to a cap, spread at random.
//
// Thread rule: pure functions, any thread.
// Refuses to know: clocks, sleeping, and where random numbers come from; the caller draws them.
//
//   nominal(n)   = min(cap, base * factor^n)                                                  n = 0 for the first retry
//   delay(n, r)  = low + r * (high - low),  low  = nominal * (1 - below),
//                                           high = min(cap, nominal * (1 + above))            0 <= r < 1
//
// Why the range is cut at the cap and not the result: cutting the result would put half of all draws on exactly `cap`,
// and clients that failed together would come back together, which is what the spread is there to prevent. So `cap` is
// a true upper bound and no value is more likely than another; the price is a mean a little under the cap.
// "Full jitter" (uniform in [0, nominal], M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015) is
// below = 1, above = 0.
#pragma once

#include <cstdint>

#include "core/base/entry.hpp"

namespace stillwarm {

struct Backoff {
  Nanos base = 200'000'000;
  Nanos cap = 2'000'000'000;
  double factor = 2.0;  // >= 1
  double below = 0.3;   // fraction of the nominal delay, 0 to 1
  double above = 0.3;

  // Requires 0 <= base <= cap.
  Nanos nominal(std::uint32_t n) const noexcept;

  // Requires 0 <= random < 1.
  Nanos delay(std::uint32_t n, double random) const noexcept;

  // For a server that said "not before `wait`": never earlier, spread upward only, by the larger of the two fractions.
  // Not bounded by the cap: who finds it too long does not retry.
  Nanos at_least(Nanos wait, double random) const noexcept;
};

}  // namespace stillwarm
