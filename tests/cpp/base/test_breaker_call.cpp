// A call through the circuit breaker: one report, none of it late, and never a probe that nobody reports.
#include "core/base/breaker_call.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <optional>

#include "support.hpp"

namespace stillwarm {
namespace {

using test::kStart;

std::shared_ptr<CircuitBreaker> made() { return std::make_shared<CircuitBreaker>(); }

std::shared_ptr<CircuitBreaker> made_open(Nanos now) {
  auto breaker = made();
  for (int i = 0; i < 5; ++i) breaker->failed(now);
  EXPECT_EQ(breaker->state(now), Circuit::kOpen);
  return breaker;
}

TEST(BreakerCall, SaysWhatItDidToTheCircuit) {
  const auto breaker = made();
  for (int i = 0; i < 4; ++i) EXPECT_EQ(BreakerCall::begin(breaker, kStart)->failed(kStart), Turn::kUnchanged);
  EXPECT_EQ(BreakerCall::begin(breaker, kStart)->failed(kStart), Turn::kOpened);
  EXPECT_FALSE(BreakerCall::begin(breaker, kStart));
  const Nanos later = kStart + 2 * kSecond;
  EXPECT_EQ(BreakerCall::begin(breaker, later)->failed(later), Turn::kUnchanged) << "a probe that failed";
  EXPECT_EQ(breaker->retry_in(later), 4 * kSecond);
  EXPECT_EQ(BreakerCall::begin(breaker, later + 4 * kSecond)->succeeded(later + 4 * kSecond), Turn::kClosed);
  EXPECT_EQ(BreakerCall::begin(breaker, later + 4 * kSecond)->succeeded(later + 4 * kSecond), Turn::kUnchanged);
}

TEST(BreakerCall, ASuccessMayOpenIt) {
  const auto breaker = made();
  for (int i = 0; i < 19; ++i) {
    auto call = BreakerCall::begin(breaker, kStart);
    EXPECT_EQ(i % 2 == 0 ? call->failed(kStart) : call->succeeded(kStart), Turn::kUnchanged);
  }
  EXPECT_EQ(BreakerCall::begin(breaker, kStart)->succeeded(kStart), Turn::kOpened);
}

TEST(BreakerCall, ReportsOnce) {
  const auto breaker = made();
  auto call = BreakerCall::begin(breaker, kStart);
  call->failed(kStart);
  EXPECT_FALSE(call->held());
  for (int i = 0; i < 9; ++i) EXPECT_EQ(call->failed(kStart), Turn::kUnchanged);
  EXPECT_EQ(breaker->failures_in_a_row(), 1u);
  EXPECT_EQ(breaker->calls_in_window(kStart), 1u);
}

TEST(BreakerCall, DroppedFreesTheProbe) {
  const auto breaker = made_open(kStart);
  const Nanos later = kStart + 2 * kSecond;
  {
    const auto probe = BreakerCall::begin(breaker, later);
    EXPECT_TRUE(probe);
    EXPECT_FALSE(BreakerCall::begin(breaker, later));
  }
  EXPECT_TRUE(BreakerCall::begin(breaker, later));
}

TEST(BreakerCall, OfBeforeTheOpeningDoesNotSpeakForTheProbe) {
  for (const bool failure : {true, false}) {
    const auto breaker = made();
    auto late = BreakerCall::begin(breaker, kStart);
    auto dropped = BreakerCall::begin(breaker, kStart);
    for (int i = 0; i < 5; ++i) BreakerCall::begin(breaker, kStart)->failed(kStart);
    const Nanos later = kStart + 2 * kSecond;
    auto probe = BreakerCall::begin(breaker, later);
    ASSERT_TRUE(probe);
    EXPECT_EQ(failure ? late->failed(later) : late->succeeded(later), Turn::kUnchanged);
    dropped.reset();
    EXPECT_EQ(breaker->state(later), Circuit::kHalfOpen);
    EXPECT_FALSE(BreakerCall::begin(breaker, later)) << "the probe is still under way";
    EXPECT_EQ(probe->succeeded(later), Turn::kClosed);
  }
}

TEST(BreakerCall, TheBareBreakerTakesTheFirstResultForTheProbes) {  // the control of the test above
  const auto breaker = made_open(kStart);
  const Nanos later = kStart + 2 * kSecond;
  EXPECT_TRUE(breaker->allow(later));
  breaker->failed(later);
  EXPECT_EQ(breaker->state(later), Circuit::kOpen);
}

TEST(BreakerCall, OfBeforeTheOpeningIsNotCountedAfterTheClosing) {
  const auto breaker = made();
  auto late = BreakerCall::begin(breaker, kStart);
  for (int i = 0; i < 5; ++i) BreakerCall::begin(breaker, kStart)->failed(kStart);
  const Nanos later = kStart + 2 * kSecond;
  BreakerCall::begin(breaker, later)->succeeded(later);
  late->failed(later);
  EXPECT_EQ(breaker->failures_in_a_row(), 0u);
  EXPECT_EQ(breaker->calls_in_window(later), 0u);
}

TEST(BreakerCall, PassedOnSpeaksThroughTheOther) {
  const auto breaker = made_open(kStart);
  const Nanos later = kStart + 2 * kSecond;
  auto outer = BreakerCall::begin(breaker, later);
  {
    auto inner = outer->pass_on();
    ASSERT_TRUE(inner);
    EXPECT_FALSE(outer->held());
    EXPECT_FALSE(outer->pass_on());
    EXPECT_EQ(outer->succeeded(later), Turn::kUnchanged);
    EXPECT_EQ(inner->failed(later), Turn::kUnchanged);
  }
  outer.reset();
  EXPECT_EQ(breaker->state(later), Circuit::kOpen);
  EXPECT_EQ(breaker->retry_in(later), 4 * kSecond);
}

}  // namespace
}  // namespace stillwarm
