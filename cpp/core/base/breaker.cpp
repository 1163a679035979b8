// The circuit breaker's state machine and its window. Thread rule and invariants: see the header.
#include "core/base/breaker.hpp"

#include <algorithm>

namespace stillwarm {

std::string_view text_of(Circuit state) noexcept {
  switch (state) {
    case Circuit::kClosed:
      return "closed";
    case Circuit::kOpen:
      return "open";
    case Circuit::kHalfOpen:
      break;
  }
  return "half-open";
}

CircuitBreaker::CircuitBreaker(const BreakerOptions& options) noexcept : options_(options) {
  options_.window = std::max<Nanos>(options_.window, kBuckets);
  options_.open_for = std::max<Nanos>(options_.open_for, 0);
  options_.open_most = std::max(options_.open_most, options_.open_for);
}

bool CircuitBreaker::allow(Nanos now) noexcept {
  if (state_ == Circuit::kClosed) return true;
  if (state_ == Circuit::kOpen) {
    opened_at_ = std::min(opened_at_, now);  // the clock went back: the wait begins anew
    if (now - opened_at_ >= wait_) state_ = Circuit::kHalfOpen;
  }
  if (state_ == Circuit::kHalfOpen) {
    probed_at_ = std::min(probed_at_, now);
    if (!probing_ || now - probed_at_ >= options_.probe_most) {
      probing_ = true;
      probed_at_ = now;
      return true;
    }
  }
  ++refused_;
  return false;
}

void CircuitBreaker::succeeded(Nanos now) noexcept {
  if (state_ == Circuit::kClosed) {
    in_a_row_ = 0;
    count(now, false);
    judge(now);
  } else if (probing_) {
    close();
  }
}

void CircuitBreaker::failed(Nanos now) noexcept {
  if (state_ == Circuit::kClosed) {
    ++in_a_row_;
    count(now, true);
    judge(now);
  } else if (probing_) {
    open(now, wait_ > options_.open_most / 2 ? options_.open_most : 2 * wait_);
  }
}

void CircuitBreaker::abandoned() noexcept { probing_ = false; }

void CircuitBreaker::probe_succeeded() noexcept {
  if (state_ != Circuit::kClosed) close();
}

void CircuitBreaker::reset() noexcept { close(); }

Circuit CircuitBreaker::state(Nanos now) const noexcept {
  return state_ == Circuit::kOpen && now - opened_at_ >= wait_ ? Circuit::kHalfOpen : state_;
}

Nanos CircuitBreaker::retry_in(Nanos now) const noexcept {
  if (state_ != Circuit::kOpen) return 0;
  return std::max<Nanos>(wait_ - std::max<Nanos>(now - opened_at_, 0), 0);
}

void CircuitBreaker::open(Nanos now, Nanos wait) noexcept {
  state_ = Circuit::kOpen;
  probing_ = false;
  opened_at_ = now;
  wait_ = wait;
}

void CircuitBreaker::close() noexcept {
  state_ = Circuit::kClosed;
  probing_ = false;
  in_a_row_ = 0;
  ring_.fill({});
}

void CircuitBreaker::judge(Nanos now) noexcept {
  bool enough = options_.consecutive != 0 && in_a_row_ >= options_.consecutive;
  if (!enough && options_.least_calls != 0) {
    const Bucket all = counted(now);
    // A quotient, because 7 / 100 is the double that 0.07 is, and 0.07 * 100 is more than 7.
    enough = all.calls >= options_.least_calls &&
             static_cast<double>(all.failures) / static_cast<double>(all.calls) >= options_.share;
  }
  if (!enough) return;
  ++opened_;
  open(now, options_.open_for);
}

std::int64_t CircuitBreaker::slot_of(Nanos now) const noexcept { return now / (options_.window / kBuckets); }

void CircuitBreaker::count(Nanos now, bool failure) noexcept {
  const std::int64_t slot = slot_of(now);
  // Where the clock went back, nothing is cleared, and the newest bucket goes on as the one of this moment.
  for (std::int64_t passed = std::min(slot - slot_, kBuckets); passed > 0; --passed) {
    newest_ = (newest_ + 1) % kBuckets;
    ring_[newest_] = {};
  }
  slot_ = slot;
  ++ring_[newest_].calls;
  if (failure) ++ring_[newest_].failures;
}

CircuitBreaker::Bucket CircuitBreaker::counted(Nanos now) const noexcept {
  const std::int64_t passed = std::clamp<std::int64_t>(slot_of(now) - slot_, 0, kBuckets);
  Bucket all;
  for (std::size_t back = 0; back < static_cast<std::size_t>(kBuckets - passed); ++back) {
    const Bucket& bucket = ring_[(newest_ + kBuckets - back) % kBuckets];
    all.calls += bucket.calls;
    all.failures += bucket.failures;
  }
  return all;
}

}  // namespace stillwarm
