// The retry budget: one bucket of tokens per name, shared by every policy of that name, so that retries cannot multiply
// the load on something that is already failing.
//
// Thread rule: the owner's lock (the GIL in the extension). No mutex and no atomics: every call is a few instructions
// that run no Python code, and a token lost or won to a race would break "never more retries than tokens".
// Refuses to know: time. A bucket refills by success only; see below.
//
// The scheme is gRPC's retry throttling (proposal A6, "Throttling Retry Attempts and Hedged RPCs"; service config
// `retryThrottling`, in its examples maxTokens 10 and tokenRatio 0.1), counted in thousandths as gRPC counts, so that
// ten tenths are one. Two differences: a retry takes a token when it is granted and not when an attempt has failed, and
// it is granted down to the last token and not down to half of them, so that 10 tokens are 10 retries, as documented.
//
// What that promises: in any stretch of time, retries <= tokens at its start + 0.1 * successes. A total outage costs 10
// retries in all and then none; a healthy service at most 10 % on top. Why nothing refills with time (as Finagle's
// minRetriesPerSec does): in a long outage it would add up over all processes, exactly when nobody succeeds.
#pragma once

#include <cstdint>

#include "core/retry/by_name.hpp"

namespace stillwarm {

class Budget {
 public:
  static constexpr std::uint32_t kUnit = 1'000;  // one token
  static constexpr std::uint32_t kDefaultCapacity = 10 * kUnit;
  static constexpr std::uint32_t kDefaultRefund = kUnit / 10;

  explicit Budget(std::uint32_t capacity = kDefaultCapacity, std::uint32_t refund = kDefaultRefund) noexcept
      : capacity_(capacity), refund_(refund), left_(capacity) {}

  // A retry asks. False: it must not happen.
  bool take() noexcept {
    if (left_ < kUnit) return false;
    left_ -= kUnit;
    return true;
  }

  // A call succeeded, at whichever attempt.
  void give_back() noexcept { left_ = capacity_ - left_ > refund_ ? left_ + refund_ : capacity_; }

  // New figures; what is left is cut to the capacity but never topped up, so that defining anew is no way around.
  void define(std::uint32_t capacity, std::uint32_t refund) noexcept {
    left_ = left_ == capacity_ || left_ > capacity ? capacity : left_;
    capacity_ = capacity;
    refund_ = refund;
  }

  void refill() noexcept { left_ = capacity_; }

  std::uint32_t left() const noexcept { return left_; }  // in thousandths
  std::uint32_t capacity() const noexcept { return capacity_; }

 private:
  std::uint32_t capacity_;
  std::uint32_t refund_;
  std::uint32_t left_;
};

using Budgets = ByName<Budget>;

}  // namespace stillwarm
