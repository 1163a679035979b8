// What a call tells its circuit breaker. Thread rule and invariants: see the header.
#include "core/base/breaker_call.hpp"

namespace stillwarm {

std::optional<BreakerCall> BreakerCall::begin(std::shared_ptr<CircuitBreaker> breaker, Nanos now) noexcept {
  if (!breaker->allow(now)) return std::nullopt;
  return BreakerCall(std::move(breaker));
}

std::optional<BreakerCall> BreakerCall::pass_on() noexcept {
  if (!held()) return std::nullopt;
  return std::move(*this);
}

void BreakerCall::abandoned() noexcept {
  if (const auto breaker = take()) breaker->abandoned();
}

// The breaker, if this call still speaks for it.
std::shared_ptr<CircuitBreaker> BreakerCall::take() noexcept {
  auto breaker = std::exchange(breaker_, nullptr);
  if (breaker != nullptr && breaker->opened() != era_) return nullptr;
  return breaker;
}

Turn BreakerCall::report(Nanos now, bool failure) noexcept {
  const auto breaker = take();
  if (breaker == nullptr) return Turn::kUnchanged;
  const bool was_closed = breaker->state(now) == Circuit::kClosed;
  failure ? breaker->failed(now) : breaker->succeeded(now);
  const bool is_closed = breaker->state(now) == Circuit::kClosed;
  if (was_closed == is_closed) return Turn::kUnchanged;
  return is_closed ? Turn::kClosed : Turn::kOpened;
}

}  // namespace stillwarm
