// The state machine of one retried call. Thread rule and invariants: see the header.
#include "core/retry/attempt.hpp"

#include <algorithm>

#include "core/base/life.hpp"

namespace stillwarm {

static_assert(static_cast<std::size_t>(Stop::kNested) + 1 == RetryFigures::kStops);

std::string_view text_of(Stop stop) noexcept {
  switch (stop) {
    case Stop::kNotTransient:
      return "not transient";
    case Stop::kRetriesExhausted:
      return "retries exhausted";
    case Stop::kRetryAfter:
      return "the server asked for a longer wait than allowed";
    case Stop::kDeadline:
      return "deadline";
    case Stop::kBudget:
      return "retry budget exhausted";
    case Stop::kNested:
      return "an inner retry gave up";
  }
  return "";
}

std::optional<Nanos> Attempt::failed(ErrorKind kind, std::optional<Nanos> retry_after, Nanos now,
                                     double random) noexcept {
  const std::uint32_t retry = failures_++;
  if (policy_.figures != nullptr) ++policy_.figures->failures;
  if (kind != ErrorKind::kTransient) return refuse(Stop::kNotTransient);
  if (retry >= policy_.retries) return refuse(Stop::kRetriesExhausted);

  Nanos wait = policy_.backoff.delay(retry, random);
  if (retry_after) {
    if (*retry_after > policy_.max_retry_after) return refuse(Stop::kRetryAfter);
    wait = std::max(wait, policy_.backoff.at_least(*retry_after, random));
  }
  // Written as a difference, because started_at + deadline may overflow. A clock that stood still counts as no time.
  if (policy_.deadline != kForever && wait >= policy_.deadline - elapsed(now)) return refuse(Stop::kDeadline);
  if (policy_.budget != nullptr && !policy_.budget->take()) return refuse(Stop::kBudget);
  if (policy_.figures != nullptr) {
    ++policy_.figures->retries;
    policy_.figures->waited = add(policy_.figures->waited, wait);
  }
  return wait;
}

void Attempt::failed_inside() noexcept {
  ++failures_;
  if (policy_.figures != nullptr) ++policy_.figures->failures;
  refuse(Stop::kNested);
}

void Attempt::succeeded() noexcept {
  if (policy_.figures != nullptr && failures_ > 0) ++policy_.figures->recovered;
  policy_.succeeded();
}

std::optional<Nanos> Attempt::refuse(Stop why) noexcept {
  stop_ = why;
  if (policy_.figures != nullptr) ++policy_.figures->given_up[static_cast<std::size_t>(why)];
  return std::nullopt;
}

}  // namespace stillwarm
