// What retries of one name did, as counters.
//
// Thread rule: the owner's lock (the GIL in the extension), as budgets. Refuses to know: policies, errors, time.
//
// Invariants
//  F1  calls = those that succeeded + those that were given up + those that are running or were cancelled.
//  F2  A retry that was granted is counted before its wait, so `waited` is what was promised, not what was slept.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/base/entry.hpp"
#include "core/retry/by_name.hpp"

namespace stillwarm {

struct RetryFigures {
  static constexpr std::size_t kStops = 6;  // as many as `Stop` has

  std::uint64_t calls = 0;
  std::uint64_t failures = 0;   // attempts that failed
  std::uint64_t retries = 0;    // attempts that were granted after a failure
  std::uint64_t succeeded = 0;  // calls, at whichever attempt
  std::uint64_t recovered = 0;  // of these, after a failure
  Nanos waited = 0;
  std::array<std::uint64_t, kStops> given_up{};  // calls, by Stop
};

using RetryNames = ByName<RetryFigures>;

}  // namespace stillwarm
