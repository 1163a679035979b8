// One call that a circuit breaker let through: what gives each result to the circuit that it was asked of.
//
// Thread rule: the breaker's. Nothing here throws or waits.
// Refuses to know: what is called, errors, clocks; who is inside of whom (a call is passed on by whoever knows).
//
// The breaker alone judges results by the state they arrive in (its B2). Where calls may take as long as several waits,
// that is not enough: time-outs of before the opening would each pass for the probe's. A call knows better.
//
// Invariants
//  C1  One report each. One that is dropped without, because its caller was interrupted, was abandoned: a probe that
//      nobody will report cannot keep the circuit half-open for ever.
//  C2  A result whose call began before the circuit last opened is late, whatever the state: it is not reported.
//  C3  A call that was passed on is empty, and reports nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "core/base/breaker.hpp"

namespace stillwarm {

enum class Turn : std::uint8_t { kUnchanged, kOpened, kClosed };  // what a report did to the circuit

class BreakerCall {
 public:
  // Nothing, if the circuit refuses it.
  static std::optional<BreakerCall> begin(std::shared_ptr<CircuitBreaker> breaker, Nanos now) noexcept;

  BreakerCall(BreakerCall&& other) noexcept = default;
  BreakerCall& operator=(BreakerCall&&) = delete;
  ~BreakerCall() { abandoned(); }

  // Success may open it, too: see B5 of the breaker.
  Turn succeeded(Nanos now) noexcept { return report(now, false); }
  Turn failed(Nanos now) noexcept { return report(now, true); }
  void abandoned() noexcept;

  bool held() const noexcept { return breaker_ != nullptr; }  // neither reported nor passed on

  // To a call inside this one, which speaks for it from now on; nothing if it is not held.
  std::optional<BreakerCall> pass_on() noexcept;

 private:
  explicit BreakerCall(std::shared_ptr<CircuitBreaker> breaker) noexcept
      : breaker_(std::move(breaker)), era_(breaker_->opened()) {}

  std::shared_ptr<CircuitBreaker> take() noexcept;
  Turn report(Nanos now, bool failure) noexcept;

  std::shared_ptr<CircuitBreaker> breaker_;  // null: not held
  std::uint64_t era_;                        // how often it had opened when the call began
};

}  // namespace stillwarm
