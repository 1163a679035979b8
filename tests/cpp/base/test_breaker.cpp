// The circuit breaker: when it opens, for how long, who gets through, and that late results and clocks do no harm.
// Random schedules beside a model of it: test_breaker_model.cpp.
#include "core/base/breaker.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "support.hpp"

namespace stillwarm {
namespace {

using test::kStart;

void fail(CircuitBreaker& breaker, int times, Nanos now) {
  for (int i = 0; i < times; ++i) breaker.failed(now);
}

CircuitBreaker opened(Nanos now) {
  CircuitBreaker breaker;
  fail(breaker, 5, now);
  EXPECT_EQ(breaker.state(now), Circuit::kOpen);
  return breaker;
}

TEST(CircuitBreaker, FiveFailuresInARowOpenIt) {
  CircuitBreaker breaker;
  fail(breaker, 4, kStart);
  EXPECT_EQ(breaker.state(kStart), Circuit::kClosed);
  EXPECT_TRUE(breaker.allow(kStart));
  breaker.failed(kStart);
  EXPECT_EQ(breaker.state(kStart), Circuit::kOpen);
  EXPECT_FALSE(breaker.allow(kStart));
  EXPECT_EQ(breaker.opened(), 1u);
  EXPECT_EQ(breaker.refused(), 1u);
}

TEST(CircuitBreaker, ASuccessBreaksTheRow) {
  CircuitBreaker breaker;
  fail(breaker, 4, kStart);
  breaker.succeeded(kStart);
  EXPECT_EQ(breaker.failures_in_a_row(), 0u);
  fail(breaker, 4, kStart);
  EXPECT_EQ(breaker.state(kStart), Circuit::kClosed);
  breaker.failed(kStart);
  EXPECT_EQ(breaker.state(kStart), Circuit::kOpen);
}

TEST(CircuitBreaker, ARowHasNoAge) {
  CircuitBreaker breaker;
  for (int i = 0; i < 5; ++i) breaker.failed(kStart + i * 3'600 * kSecond);
  EXPECT_EQ(breaker.opened(), 1u);
}

TEST(CircuitBreaker, HalfOfTwentyCallsOpenIt) {
  CircuitBreaker breaker;
  for (int i = 0; i < 19; ++i) {
    if (i % 2 == 0) {
      breaker.succeeded(kStart);
    } else {
      breaker.failed(kStart);
    }
  }
  EXPECT_EQ(breaker.state(kStart), Circuit::kClosed);
  breaker.failed(kStart);
  EXPECT_EQ(breaker.state(kStart), Circuit::kOpen);
}

TEST(CircuitBreaker, TheTwentiethCallOpensItAlsoIfItSucceeds) {
  CircuitBreaker breaker;
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(breaker.state(kStart), Circuit::kClosed) << i;
    breaker.failed(kStart);
    breaker.succeeded(kStart);
  }
  EXPECT_EQ(breaker.state(kStart), Circuit::kOpen);
}

TEST(CircuitBreaker, LessThanHalfIsBorne) {
  CircuitBreaker breaker;
  for (int i = 0; i < 1'000; ++i) {
    breaker.succeeded(kStart);
    breaker.failed(kStart);
    breaker.succeeded(kStart);
  }
  EXPECT_EQ(breaker.opened(), 0u);
  EXPECT_EQ(breaker.calls_in_window(kStart), 3'000u);
  EXPECT_EQ(breaker.failures_in_window(kStart), 1'000u);
}

TEST(CircuitBreaker, AShareIsComparedAsItIsWritten) {
  BreakerOptions options;
  options.consecutive = 0;
  options.share = 0.07;  // 0.07 * 100 > 7 in doubles
  options.least_calls = 100;
  CircuitBreaker breaker(options);
  fail(breaker, 7, kStart);
  for (int i = 0; i < 93; ++i) breaker.succeeded(kStart);
  EXPECT_EQ(breaker.opened(), 1u);
}

TEST(CircuitBreaker, RulesCanBeSwitchedOff) {
  BreakerOptions options;
  options.consecutive = 0;
  options.least_calls = 0;
  CircuitBreaker breaker(options);
  fail(breaker, 1'000, kStart);
  EXPECT_EQ(breaker.opened(), 0u);
}

TEST(CircuitBreaker, TheWindowForgets) {
  CircuitBreaker breaker;
  for (int i = 0; i < 9; ++i) {
    breaker.failed(kStart);
    breaker.succeeded(kStart);
  }
  EXPECT_EQ(breaker.calls_in_window(kStart + 9 * kSecond), 18u);
  EXPECT_EQ(breaker.calls_in_window(kStart + 10 * kSecond), 0u);
  const Nanos later = kStart + 10 * kSecond;
  breaker.succeeded(later);
  breaker.failed(later);
  breaker.failed(later);
  EXPECT_EQ(breaker.state(later), Circuit::kClosed);
  EXPECT_EQ(breaker.calls_in_window(later), 3u);
  EXPECT_EQ(breaker.failures_in_window(later), 2u);
}

TEST(CircuitBreaker, TheWindowSlides) {
  CircuitBreaker breaker;
  for (int second = 0; second < 30; ++second) {
    const Nanos now = kStart + second * kSecond;
    breaker.succeeded(now);
    EXPECT_EQ(breaker.calls_in_window(now), static_cast<std::uint64_t>(std::min(second + 1, 10)));
  }
}

TEST(CircuitBreaker, OpenForTwoSecondsThenOneProbe) {
  CircuitBreaker breaker = opened(kStart);
  EXPECT_EQ(breaker.retry_in(kStart), 2 * kSecond);
  EXPECT_FALSE(breaker.allow(kStart + 2 * kSecond - 1));
  EXPECT_EQ(breaker.retry_in(kStart + 2 * kSecond - 1), 1);
  EXPECT_EQ(breaker.state(kStart + 2 * kSecond), Circuit::kHalfOpen);
  EXPECT_EQ(breaker.retry_in(kStart + 2 * kSecond), 0);
  EXPECT_TRUE(breaker.allow(kStart + 2 * kSecond));
  EXPECT_FALSE(breaker.allow(kStart + 2 * kSecond)) << "one at a time";
  EXPECT_FALSE(breaker.allow(kStart + 100 * kSecond)) << "however long it takes";
  EXPECT_EQ(breaker.refused(), 3u);
}

TEST(CircuitBreaker, AProbesSuccessClosesAndForgets) {
  CircuitBreaker breaker = opened(kStart);
  const Nanos now = kStart + 2 * kSecond;
  ASSERT_TRUE(breaker.allow(now));
  breaker.succeeded(now);
  EXPECT_EQ(breaker.state(now), Circuit::kClosed);
  EXPECT_EQ(breaker.calls_in_window(now), 0u);
  fail(breaker, 4, now);
  EXPECT_EQ(breaker.state(now), Circuit::kClosed) << "the row begins anew";
  breaker.failed(now);
  EXPECT_EQ(breaker.retry_in(now), 2 * kSecond);
  EXPECT_EQ(breaker.opened(), 2u);
}

TEST(CircuitBreaker, EachFailedProbeDoublesTheWaitTo30Seconds) {
  Nanos now = kStart;
  CircuitBreaker breaker = opened(now);
  for (const Nanos wait : {2, 4, 8, 16, 30, 30, 30}) {
    EXPECT_EQ(breaker.retry_in(now), wait * kSecond);
    now += wait * kSecond;
    ASSERT_FALSE(breaker.allow(now - 1));
    ASSERT_TRUE(breaker.allow(now));
    breaker.failed(now);
    ASSERT_FALSE(breaker.allow(now));
  }
  EXPECT_EQ(breaker.opened(), 1u) << "it was never closed";
  now += 30 * kSecond;
  ASSERT_TRUE(breaker.allow(now));
  breaker.succeeded(now);
  fail(breaker, 5, now);
  EXPECT_EQ(breaker.retry_in(now), 2 * kSecond) << "closing forgets the length of the wait";
}

TEST(CircuitBreaker, AnAbandonedProbeLetsTheNextOneThrough) {
  CircuitBreaker breaker = opened(kStart);
  const Nanos now = kStart + 2 * kSecond;
  ASSERT_TRUE(breaker.allow(now));
  breaker.abandoned();
  EXPECT_EQ(breaker.state(now), Circuit::kHalfOpen);
  EXPECT_TRUE(breaker.allow(now));
  EXPECT_FALSE(breaker.allow(now));
}

CircuitBreaker opened_with_probe_most(Nanos most) {
  BreakerOptions options;
  options.probe_most = most;
  CircuitBreaker breaker(options);
  fail(breaker, 5, kStart);
  return breaker;
}

TEST(CircuitBreaker, ASilentProbeHoldsUpNobodyForLongerThanItMay) {
  for (const bool hung_fails : {true, false}) {
    CircuitBreaker breaker = opened_with_probe_most(30 * kSecond);
    Nanos now = kStart + 2 * kSecond;
    ASSERT_TRUE(breaker.allow(now));
    EXPECT_FALSE(breaker.allow(now += 30 * kSecond - 1));
    EXPECT_TRUE(breaker.allow(now += 1)) << "beside the one that hangs";
    EXPECT_FALSE(breaker.allow(now += 30 * kSecond - 1)) << "one at a time";
    hung_fails ? breaker.failed(now) : breaker.succeeded(now);
    EXPECT_EQ(breaker.state(now), hung_fails ? Circuit::kOpen : Circuit::kClosed) << "the first result counts";
  }
}

TEST(CircuitBreaker, AClockThatGoesBackDoesNotProlongASilentProbe) {
  CircuitBreaker breaker = opened_with_probe_most(30 * kSecond);
  ASSERT_TRUE(breaker.allow(kStart + 2 * kSecond));
  const Nanos back = kStart - 1'000 * kSecond;
  EXPECT_FALSE(breaker.allow(back));
  EXPECT_TRUE(breaker.allow(back + 30 * kSecond));
}

TEST(CircuitBreaker, AbandonedCallsCountForNothing) {
  CircuitBreaker breaker;
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(breaker.allow(kStart));
    breaker.abandoned();
  }
  EXPECT_EQ(breaker.calls_in_window(kStart), 0u);
  fail(breaker, 5, kStart);
  breaker.abandoned();
  EXPECT_FALSE(breaker.allow(kStart));
}

TEST(CircuitBreaker, LateResultsNeitherCloseNorLengthen) {
  CircuitBreaker breaker = opened(kStart);
  breaker.succeeded(kStart + kSecond);
  fail(breaker, 10, kStart + kSecond);
  EXPECT_EQ(breaker.state(kStart + kSecond), Circuit::kOpen);
  EXPECT_EQ(breaker.retry_in(kStart + kSecond), kSecond);
  EXPECT_EQ(breaker.opened(), 1u);
  // Half-open by time, but nobody probes yet; and again after a probe was abandoned.
  const Nanos now = kStart + 3 * kSecond;
  breaker.succeeded(now);
  EXPECT_EQ(breaker.state(now), Circuit::kHalfOpen);
  ASSERT_TRUE(breaker.allow(now));
  breaker.abandoned();
  breaker.succeeded(now);
  breaker.failed(now);
  EXPECT_EQ(breaker.state(now), Circuit::kHalfOpen);
  EXPECT_TRUE(breaker.allow(now));
}

TEST(CircuitBreaker, OneWhoProbesBesideTheTrafficClosesIt) {
  CircuitBreaker breaker = opened(kStart);
  breaker.probe_succeeded();
  EXPECT_EQ(breaker.state(kStart), Circuit::kClosed);
  EXPECT_TRUE(breaker.allow(kStart));
  fail(breaker, 5, kStart);
  ASSERT_TRUE(breaker.allow(kStart + 2 * kSecond));
  breaker.probe_succeeded();  // while a caller's probe is under way, whose result is an ordinary one then
  breaker.failed(kStart + 2 * kSecond);
  EXPECT_EQ(breaker.state(kStart + 2 * kSecond), Circuit::kClosed);
  EXPECT_EQ(breaker.failures_in_a_row(), 1u);
}

TEST(CircuitBreaker, APingDoesNotExcuseFailingCalls) {
  CircuitBreaker breaker;
  for (int i = 0; i < 5; ++i) {
    breaker.failed(kStart);
    if (i < 4) breaker.probe_succeeded();
  }
  EXPECT_EQ(breaker.state(kStart), Circuit::kOpen);
}

TEST(CircuitBreaker, ResetIsAsNewTotalsApart) {
  CircuitBreaker breaker = opened(kStart);
  ASSERT_TRUE(breaker.allow(kStart + 2 * kSecond));
  breaker.reset();
  EXPECT_EQ(breaker.state(kStart), Circuit::kClosed);
  EXPECT_EQ(breaker.opened(), 1u);
  fail(breaker, 5, kStart);
  EXPECT_TRUE(breaker.allow(kStart + 2 * kSecond)) << "the probe before the reset is nobody's";
}

TEST(CircuitBreaker, AClockThatGoesBackCostsOneWaitAtMost) {
  CircuitBreaker breaker = opened(kStart);
  const Nanos back = kStart - 500 * kSecond;
  EXPECT_EQ(breaker.retry_in(back), 2 * kSecond);
  EXPECT_EQ(breaker.state(back), Circuit::kOpen);
  EXPECT_FALSE(breaker.allow(back));
  EXPECT_FALSE(breaker.allow(back + 2 * kSecond - 1));
  EXPECT_TRUE(breaker.allow(back + 2 * kSecond));
}

TEST(CircuitBreaker, AWindowGoesOnWhereTheClockWentBack) {
  CircuitBreaker breaker;
  breaker.failed(kStart);
  const Nanos back = kStart - 500 * kSecond;
  EXPECT_EQ(breaker.calls_in_window(back), 1u);
  breaker.succeeded(back);
  EXPECT_EQ(breaker.calls_in_window(back), 2u);
  EXPECT_EQ(breaker.calls_in_window(back + 10 * kSecond), 0u) << "not kept until the clock is where it was";
  breaker.succeeded(kStart);
  EXPECT_EQ(breaker.calls_in_window(kStart), 1u);
}

TEST(CircuitBreaker, LongestOptionsDoNotOverflow) {
  BreakerOptions options;
  options.open_for = options.open_most = options.window = Nanos{36'525} * 86'400 * kSecond;
  CircuitBreaker breaker(options);
  fail(breaker, 5, kStart);
  EXPECT_FALSE(breaker.allow(kStart + options.open_for - 1));
  ASSERT_TRUE(breaker.allow(kStart + options.open_for));
  breaker.failed(kStart + options.open_for);
  EXPECT_EQ(breaker.retry_in(kStart + options.open_for), options.open_most);
  options.open_most = 1;  // below open_for
  CircuitBreaker other(options);
  fail(other, 5, kStart);
  ASSERT_TRUE(other.allow(kStart + options.open_for));
  other.failed(kStart);
  EXPECT_EQ(other.retry_in(kStart), options.open_for) << "a failed probe never shortens the wait";
}

TEST(CircuitBreaker, NothingIsAllocated) {
  CircuitBreaker breaker;
  test::allocations_left = 0;
  for (int i = 0; i < 1'000; ++i) {
    const Nanos now = kStart + i * 100 * kMillisecond;
    if (breaker.allow(now)) breaker.failed(now);
  }
  test::allocations_left = -1;
  EXPECT_EQ(breaker.opened(), 1u);
}

}  // namespace
}  // namespace stillwarm
