// One retried call, without a clock and without waiting: when it goes on, when it stops, and why.
#include "core/retry/attempt.hpp"

#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <set>
#include <string>

namespace stillwarm {
namespace {

constexpr Nanos kBegan = 5'000 * kSecond;
constexpr auto kNoHint = std::nullopt;

RetryPolicy plain(std::uint32_t retries = 3) {
  RetryPolicy policy;
  policy.backoff = {200 * kMillisecond, 2 * kSecond, 2.0, 0.0, 0.0};
  policy.retries = retries;
  return policy;
}

TEST(Attempt, RetriesWithGrowingWaitsAndThenStops) {
  Attempt attempt(plain(), kBegan);
  EXPECT_EQ(attempt.failed(ErrorKind::kTransient, kNoHint, kBegan, 0.5), 200 * kMillisecond);
  EXPECT_EQ(attempt.failed(ErrorKind::kTransient, kNoHint, kBegan, 0.5), 400 * kMillisecond);
  EXPECT_EQ(attempt.failed(ErrorKind::kTransient, kNoHint, kBegan, 0.5), 800 * kMillisecond);
  EXPECT_EQ(attempt.stop(), std::nullopt);
  EXPECT_EQ(attempt.failed(ErrorKind::kTransient, kNoHint, kBegan, 0.5), std::nullopt);
  EXPECT_EQ(attempt.stop(), Stop::kRetriesExhausted);
  EXPECT_EQ(attempt.failures(), 4u);
}

TEST(Attempt, ZeroRetriesIsOneAttempt) {
  Attempt attempt(plain(0), kBegan);
  EXPECT_EQ(attempt.failed(ErrorKind::kTransient, kNoHint, kBegan, 0.5), std::nullopt);
  EXPECT_EQ(attempt.stop(), Stop::kRetriesExhausted);
}

TEST(Attempt, OnlyTransientIsRetried) {
  for (const ErrorKind kind : {ErrorKind::kFatal, ErrorKind::kNotFound}) {
    Attempt attempt(plain(), kBegan);
    EXPECT_EQ(attempt.failed(kind, kNoHint, kBegan, 0.5), std::nullopt);
    EXPECT_EQ(attempt.stop(), Stop::kNotTransient);
  }
}

TEST(Attempt, NoWaitEndsAtOrAfterTheDeadline) {
  RetryPolicy policy = plain();
  policy.deadline = kSecond;
  Attempt attempt(policy, kBegan);
  EXPECT_EQ(attempt.failed(ErrorKind::kTransient, kNoHint, kBegan + 799 * kMillisecond, 0.5), 200 * kMillisecond);
  attempt = Attempt(policy, kBegan);
  EXPECT_EQ(attempt.failed(ErrorKind::kTransient, kNoHint, kBegan + 800 * kMillisecond, 0.5), std::nullopt);
  EXPECT_EQ(attempt.stop(), Stop::kDeadline);
}

TEST(Attempt, TheDeadlineHoldsForEveryDraw) {
  std::mt19937_64 engine(11);
  std::uniform_real_distribution<double> draw(0.0, 1.0);
  std::uniform_int_distribution<Nanos> spent(0, 600 * kMillisecond);
  std::bernoulli_distribution hinted(0.3);
  int stopped_by_deadline = 0;
  for (int call = 0; call < 5'000; ++call) {
    RetryPolicy policy;
    policy.retries = 20;
    policy.deadline = 3 * kSecond;
    Nanos now = kBegan;
    Attempt attempt(policy, now);
    for (;;) {
      now += spent(engine);
      const auto hint = hinted(engine) ? std::optional<Nanos>(spent(engine)) : std::nullopt;
      const auto wait = attempt.failed(ErrorKind::kTransient, hint, now, draw(engine));
      if (!wait) break;
      ASSERT_GE(*wait, hint.value_or(0));
      now += *wait;
      ASSERT_LT(now, kBegan + policy.deadline);
    }
    stopped_by_deadline += attempt.stop() == Stop::kDeadline;
  }
  EXPECT_EQ(stopped_by_deadline, 5'000);
}

TEST(Attempt, TheLongestDeadlineDoesNotOverflow) {
  RetryPolicy policy = plain();
  policy.deadline = kForever - 1;
  Attempt attempt(policy, kBegan);
  EXPECT_EQ(attempt.failed(ErrorKind::kTransient, kNoHint, kBegan + kSecond, 0.5), 200 * kMillisecond);
}

TEST(Attempt, AServersWaitIsKeptOrTheCallStops) {
  RetryPolicy policy = plain();
  policy.backoff.above = 0.3;
  Attempt attempt(policy, kBegan);
  EXPECT_EQ(attempt.failed(ErrorKind::kTransient, 5 * kSecond, kBegan, 0.0), 5 * kSecond);  // above the cap
  EXPECT_EQ(attempt.failed(ErrorKind::kTransient, 10 * kMillisecond, kBegan, 0.0),
            400 * kMillisecond);                                                              // shorter than ours
  EXPECT_EQ(attempt.failed(ErrorKind::kTransient, 31 * kSecond, kBegan, 0.0), std::nullopt);  // too long
  EXPECT_EQ(attempt.stop(), Stop::kRetryAfter);
}

TEST(Attempt, TheBudgetIsAskedLast) {
  Budget budget(Budget::kUnit, 0);
  RetryPolicy policy = plain(1);
  policy.budget = &budget;
  policy.deadline = kSecond;
  Attempt attempt(policy, kBegan);
  // Fatal, too late, too long: none of them costs the token.
  EXPECT_EQ(attempt.failed(ErrorKind::kFatal, kNoHint, kBegan, 0.5), std::nullopt);
  attempt = Attempt(policy, kBegan);
  EXPECT_EQ(attempt.failed(ErrorKind::kTransient, kNoHint, kBegan + kSecond, 0.5), std::nullopt);
  attempt = Attempt(policy, kBegan);
  EXPECT_EQ(attempt.failed(ErrorKind::kTransient, 40 * kSecond, kBegan, 0.5), std::nullopt);
  EXPECT_EQ(budget.left(), Budget::kUnit);

  attempt = Attempt(policy, kBegan);
  EXPECT_TRUE(attempt.failed(ErrorKind::kTransient, kNoHint, kBegan, 0.5).has_value());
  EXPECT_EQ(budget.left(), 0u);
  attempt = Attempt(policy, kBegan);
  EXPECT_EQ(attempt.failed(ErrorKind::kTransient, kNoHint, kBegan, 0.5), std::nullopt);
  EXPECT_EQ(attempt.stop(), Stop::kBudget);
}

TEST(Attempt, ASuccessGivesBack) {
  Budget budget;
  RetryPolicy policy = plain();
  policy.budget = &budget;
  Attempt attempt(policy, kBegan);
  ASSERT_TRUE(attempt.failed(ErrorKind::kTransient, kNoHint, kBegan, 0.5).has_value());
  attempt.succeeded();
  EXPECT_EQ(budget.left(), 9 * Budget::kUnit + Budget::kDefaultRefund);
}

TEST(Attempt, AnOutageIsNotMultiplied) {
  // 1,000 clients, 3 retries each, everything fails: 1,000 calls become at most 1,010 attempts, and 4,000 without.
  const auto attempts = [](Budget* budget) {
    RetryPolicy policy = plain();
    policy.budget = budget;
    int count = 0;
    for (int client = 0; client < 1'000; ++client) {
      Attempt attempt(policy, kBegan);
      do ++count;
      while (attempt.failed(ErrorKind::kTransient, kNoHint, kBegan, 0.5));
    }
    return count;
  };
  Budget budget;
  EXPECT_EQ(attempts(&budget), 1'010);
  EXPECT_EQ(attempts(nullptr), 4'000);
}

TEST(Attempt, WhatAnInnerRetryGaveUpOnIsNotTriedAgain) {
  Budget budget;
  RetryPolicy policy = plain();
  policy.budget = &budget;
  Attempt attempt(policy, kBegan);
  attempt.failed_inside();
  EXPECT_EQ(attempt.stop(), Stop::kNested);
  EXPECT_EQ(attempt.failures(), 1u);
  EXPECT_EQ(budget.left(), Budget::kDefaultCapacity);
}

TEST(Attempt, ItsNameHasTheFigures) {
  RetryNames names;
  RetryFigures& figures = names.named("a");
  EXPECT_EQ(&figures, &names.named("a"));
  RetryPolicy policy = plain(1);
  policy.figures = &figures;
  policy.begun();
  policy.succeeded();  // at once

  policy.begun();
  Attempt second(policy, kBegan);
  ASSERT_TRUE(second.failed(ErrorKind::kTransient, kNoHint, kBegan, 0.5).has_value());
  second.succeeded();

  policy.begun();
  Attempt third(policy, kBegan);
  ASSERT_TRUE(third.failed(ErrorKind::kTransient, kNoHint, kBegan, 0.5).has_value());
  ASSERT_FALSE(third.failed(ErrorKind::kTransient, kNoHint, kBegan, 0.5).has_value());

  EXPECT_EQ(figures.calls, 3u);
  EXPECT_EQ(figures.succeeded, 2u);
  EXPECT_EQ(figures.recovered, 1u);
  EXPECT_EQ(figures.failures, 3u);
  EXPECT_EQ(figures.retries, 2u);
  EXPECT_EQ(figures.waited, 400 * kMillisecond);
  EXPECT_EQ(figures.given_up[static_cast<std::size_t>(Stop::kRetriesExhausted)], 1u);
  names.each([](RetryFigures& each) { each = {}; });
  EXPECT_EQ(figures.calls, 0u);
}

TEST(Attempt, EveryReasonHasAText) {
  std::set<std::string> texts;
  for (const Stop stop : {Stop::kNotTransient, Stop::kRetriesExhausted, Stop::kRetryAfter, Stop::kDeadline,
                          Stop::kBudget, Stop::kNested}) {
    texts.emplace(text_of(stop));
  }
  EXPECT_EQ(texts.size(), 6u);
  EXPECT_FALSE(texts.contains(""));
}

}  // namespace
}  // namespace stillwarm
