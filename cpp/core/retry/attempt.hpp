// One retried call: says after each failure how long to wait, or why to stop.
//
// Thread rule: one call's own object, used by whoever runs that call; the budget behind it under the owner's lock.
// Refuses to know: exceptions, sleeping, clocks, random numbers. Time and randomness are arguments.
//
//   constructed -> { failed(...) -> wait, then try again | stop }* -> succeeded()
//
// Invariants
//  A1  At most 1 + retries attempts.
//  A2  No wait is granted that would end at or after the deadline: the attempt behind it could only be late.
//  A3  A token is taken last, when nothing else forbids the retry, so that none is spent on a retry that never happens.
//  A4  A server's "not before" is kept or the call stops; it is never shortened.
//  A5  What an inner retry has given up on is not tried again by an outer one: layers do not multiply.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "core/base/entry.hpp"
#include "core/retry/backoff.hpp"
#include "core/retry/budget.hpp"
#include "core/retry/classify.hpp"
#include "core/retry/figures.hpp"

namespace stillwarm {

enum class Stop : std::uint8_t { kNotTransient, kRetriesExhausted, kRetryAfter, kDeadline, kBudget, kNested };

// For notes and log lines: "not transient", "retries exhausted", ...
std::string_view text_of(Stop stop) noexcept;

struct RetryPolicy {
  Backoff backoff;
  std::uint32_t retries = 3;
  Nanos deadline = kForever;               // for the call with all its attempts, from started()
  Nanos max_retry_after = 30'000'000'000;  // a server that asks for longer ends the call
  Budget* budget = nullptr;                // none: unlimited; else it outlives every attempt
  RetryFigures* figures = nullptr;         // none: not counted; likewise

  // A call begins; it succeeded at once. Whoever has no failure to speak of needs no Attempt.
  void begun() const noexcept {
    if (figures != nullptr) ++figures->calls;
  }
  void succeeded() const noexcept {
    if (figures != nullptr) ++figures->succeeded;
    if (budget != nullptr) budget->give_back();
  }
};

class Attempt {
 public:
  // Of a call that has begun at that time, and was counted then.
  Attempt(const RetryPolicy& policy, Nanos started_at) noexcept : policy_(policy), started_at_(started_at) {}

  // The wait in ns before the next attempt, or nothing: stop() says why. `random` in [0, 1).
  std::optional<Nanos> failed(ErrorKind kind, std::optional<Nanos> retry_after, Nanos now, double random) noexcept;

  // It failed with what an inner retry gave up on: stops.
  void failed_inside() noexcept;

  void succeeded() noexcept;

  std::uint32_t failures() const noexcept { return failures_; }
  std::optional<Stop> stop() const noexcept { return stop_; }
  Nanos elapsed(Nanos now) const noexcept { return now - started_at_; }

 private:
  std::optional<Nanos> refuse(Stop why) noexcept;

  RetryPolicy policy_;
  Nanos started_at_;
  std::uint32_t failures_ = 0;
  std::optional<Stop> stop_;
};

}  // namespace stillwarm
