// Deadlines and states: the formulas, every boundary to the nanosecond, and arithmetic at the end of time.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "core/base/duration.hpp"
#include "core/flow.hpp"

namespace stillwarm {
namespace {

constexpr Nanos kS = 1'000'000'000;
constexpr Nanos kNow = 5'000 * kS;

// An entry as a commit makes it.
class Made {
 public:
  explicit Made(const Durations& d, double random = 0, bool own = true, bool negative = false, Nanos took = 0)
      : durations_(d) {
    Result r;
    r.weight = 1;
    r.durations = d;
    r.own_durations = own;
    r.negative = negative;
    r.random = random;
    if (needs_extra(r, took)) extra_ = make_extra(r);
    entry.hash = 7;
    fill(entry, r, extra_.get(), 3, 1, kNow, took);
  }
  State at(Nanos now) const { return state_of(entry, durations_, now); }
  Life life() const { return life_of(entry, durations_); }
  Entry entry;

 private:
  Durations durations_;
  std::unique_ptr<Extra> extra_;
};

Durations durations(Nanos ttl, Nanos swr = 0, Nanos sie = 0, double early = 0, double jitter = 0, Nanos keep = 0) {
  return {ttl, swr, sie, 0, early, jitter, keep};
}

TEST(Life, StatesChangeAtTheirVeryInstant) {
  const Made e(durations(100 * kS, 20 * kS, 50 * kS, 0.8));
  EXPECT_EQ(e.at(kNow), State::kFresh);
  EXPECT_EQ(e.at(kNow + 80 * kS - 1), State::kFresh);
  EXPECT_EQ(e.at(kNow + 80 * kS), State::kEarly);
  EXPECT_EQ(e.at(kNow + 100 * kS - 1), State::kEarly);
  EXPECT_EQ(e.at(kNow + 100 * kS), State::kStale);
  EXPECT_EQ(e.at(kNow + 120 * kS - 1), State::kStale);
  EXPECT_EQ(e.at(kNow + 120 * kS), State::kFailsafe);
  EXPECT_EQ(e.at(kNow + 150 * kS - 1), State::kFailsafe);
  EXPECT_EQ(e.at(kNow + 150 * kS), State::kGone);
  EXPECT_EQ(e.at(kForever), State::kGone);
}

TEST(Life, ThePeriodsOfServiceOverlapAndDoNotAddUp) {
  const Life longer_while = Made(durations(100 * kS, 50 * kS, 20 * kS)).life();
  EXPECT_EQ(longer_while.fresh_until, kNow + 100 * kS);
  EXPECT_EQ(longer_while.stale_until, kNow + 150 * kS);
  EXPECT_EQ(longer_while.gone_at, kNow + 150 * kS);
  const Life longer_if = Made(durations(100 * kS, 20 * kS, 50 * kS)).life();
  EXPECT_EQ(longer_if.stale_until, kNow + 120 * kS);
  EXPECT_EQ(longer_if.gone_at, kNow + 150 * kS);
}

TEST(Life, WhatIsKeptIsKeptAfterAllService) {
  for (const bool own : {false, true}) {
    const Made e(durations(100 * kS, 20 * kS, 50 * kS, 0, 0, 30 * kS), 0, own);
    EXPECT_EQ(e.at(kNow + 150 * kS - 1), State::kFailsafe);
    EXPECT_EQ(e.at(kNow + 150 * kS), State::kKept);
    EXPECT_EQ(e.at(kNow + 180 * kS - 1), State::kKept);
    EXPECT_EQ(e.at(kNow + 180 * kS), State::kGone);
    EXPECT_EQ(e.life().kept_until, kNow + 180 * kS);
  }
  EXPECT_EQ(Made(durations(100 * kS, 0, 0, 0, 0, kForever)).life().kept_until, kForever);
}

TEST(Life, WithoutPeriodsOfServiceFreshIsFollowedByGone) {
  const Made e(durations(100 * kS));
  EXPECT_EQ(e.at(kNow + 100 * kS - 1), State::kFresh);
  EXPECT_EQ(e.at(kNow + 100 * kS), State::kGone);
}

TEST(Life, WithoutExtraTheDurationsOfTheScopeCount) {
  const Made e(durations(100 * kS, 10 * kS, 30 * kS), 0, false);
  EXPECT_EQ(e.entry.extra, nullptr) << "most entries need no second allocation";
  EXPECT_EQ(e.at(kNow + 110 * kS - 1), State::kStale);
  EXPECT_EQ(e.at(kNow + 110 * kS), State::kFailsafe);
  EXPECT_EQ(e.at(kNow + 130 * kS), State::kGone);
}

TEST(Life, JitterOnlySubtracts) {
  std::mt19937_64 random(11);
  std::uniform_real_distribution<double> part(0, 1);
  for (int n = 0; n < 20'000; ++n) {
    const Nanos ttl = static_cast<Nanos>(random() % static_cast<std::uint64_t>(kLongestDuration)) + 1;
    const double jitter = part(random), r = n % 10 == 0 ? 0x1.fffffffffffffp-1 : part(random);
    const Nanos until = Made(durations(ttl, 0, 0, 0, n % 7 == 0 ? 1.0 : jitter), r, n % 2 == 0).life().fresh_until;
    ASSERT_LE(until, kNow + ttl);
    ASSERT_GE(until, kNow);
  }
  EXPECT_EQ(Made(durations(100 * kS, 0, 0, 0, 0.1), 0.5).life().fresh_until, kNow + 95 * kS);
}

TEST(Life, EarlyIsAPartOfTheJitteredLife) {
  const Made e(durations(100 * kS, 0, 0, 0.5, 0.2), 0.5);
  EXPECT_EQ(e.life().fresh_until, kNow + 90 * kS);
  EXPECT_EQ(e.entry.next_at, kNow + 45 * kS);
  EXPECT_EQ(e.at(kNow + 45 * kS), State::kEarly);
}

TEST(Life, EarlyNeverComesAfterFresh) {
  std::mt19937_64 random(12);
  for (int n = 0; n < 20'000; ++n) {
    const Nanos ttl = static_cast<Nanos>(random() % static_cast<std::uint64_t>(kLongestDuration)) + 1;
    const Made e(durations(ttl, 0, 0, n % 3 == 0 ? 0x1.fffffffffffffp-1 : 0.999999));
    ASSERT_LE(e.entry.next_at, e.life().fresh_until);
  }
}

TEST(Life, EarlyByTheLoadsTimeLeavesItTwoOfThemAndMore) {
  const Durations d = durations(1000 * kS, 0, 0, kEarlyAuto);
  const Made least(d, 0, true, false, 3 * kS);
  EXPECT_EQ(least.life().fresh_until, kNow + 1000 * kS);
  EXPECT_EQ(least.entry.next_at, kNow + 994 * kS);
  EXPECT_EQ(least.at(kNow + 994 * kS), State::kEarly);
  const Made more(d, 1 - std::exp(-3.0), true, false, 3 * kS);
  EXPECT_NEAR(static_cast<double>(more.entry.next_at - kNow), 985e9, 1e3) << "3 s * (2 + 3)";
  EXPECT_EQ(Made(d, 0.999, true, false, 900 * kS).entry.next_at, kNow + 500 * kS) << "at most half of the life";
  EXPECT_EQ(Made(d, 0.9, true, false, 0).entry.next_at, kNow + 1000 * kS) << "what was not loaded";
  EXPECT_EQ(Made(d, 0.9, false, false, 0).entry.extra, nullptr) << "nor does it need more memory";
  EXPECT_EQ(Made(durations(kForever, 0, 0, kEarlyAuto), 0.9, true, false, kS).entry.next_at, kForever);
}

// The promise of XFetch: the chance of a refresh before t falls exponentially with the distance from the end.
TEST(Life, EarlyByTheLoadsTimeSpreadsExponentially) {
  std::mt19937_64 random(14);
  std::uniform_real_distribution<double> part(0, 1);
  constexpr int kDraws = 20'000;
  int beyond[3] = {};
  double sum = 0;
  for (int n = 0; n < kDraws; ++n) {
    const Made e(durations(10'000 * kS, 0, 0, kEarlyAuto), part(random), true, false, kS);
    const double window = static_cast<double>(kNow + 10'000 * kS - e.entry.next_at) / 1e9;
    ASSERT_GE(window, 2.0);
    sum += window;
    for (int k = 0; k < 3; ++k) beyond[k] += window > 2 + k ? 1 : 0;
  }
  EXPECT_NEAR(sum / kDraws, 3.0, 0.05);
  EXPECT_NEAR(beyond[1], kDraws * std::exp(-1.0), kDraws * 0.02);
  EXPECT_NEAR(beyond[2], kDraws * std::exp(-2.0), kDraws * 0.02);
}

TEST(Life, ForeverStaysForever) {
  const Made e(durations(kForever, 10 * kS, 20 * kS, 0.5, 0.5), 0.9);
  EXPECT_EQ(e.life().fresh_until, kForever);
  EXPECT_EQ(e.life().stale_until, kForever);
  EXPECT_EQ(e.life().gone_at, kForever);
  EXPECT_EQ(e.at(kForever - 1), State::kFresh);
}

TEST(Life, SumsEndAtForeverInsteadOfWrapping) {
  EXPECT_EQ(add(kForever, 0), kForever);
  EXPECT_EQ(add(kForever, kForever), kForever);
  EXPECT_EQ(add(kForever - 5, 5), kForever);
  EXPECT_EQ(add(kForever - 5, 6), kForever);
  EXPECT_EQ(add(kForever - 5, 4), kForever - 1);
  const Life life = Made(durations(100 * kS, kForever, kForever)).life();
  EXPECT_EQ(life.fresh_until, kNow + 100 * kS);
  EXPECT_EQ(life.gone_at, kForever);
  const Life longest = Made(durations(kLongestDuration, kLongestDuration, kLongestDuration)).life();
  EXPECT_GT(longest.gone_at, longest.fresh_until);
}

TEST(Life, AnAbsenceIsFreshOrGone) {
  Durations d = durations(100 * kS, 50 * kS, 50 * kS, 0.5);
  d.negative_ttl = 3 * kS;
  const Made e(d, 0, true, true);
  EXPECT_EQ(e.at(kNow + 3 * kS - 1), State::kFresh);
  EXPECT_EQ(e.at(kNow + 3 * kS), State::kGone);
}

TEST(Life, MakeStaleNeverLengthens) {
  std::mt19937_64 random(13);
  for (int n = 0; n < 2'000; ++n) {
    const bool own = n % 2 == 0;
    Made e(durations(100 * kS, 20 * kS, 50 * kS, own && n % 3 == 0 ? 0.8 : 0, 0, n % 5 * kS), 0, own);
    for (int k = 0; k < 3; ++k) {
      const Life before = e.life();
      const Nanos next_before = e.entry.next_at;
      const Nanos at = kNow + static_cast<Nanos>(random() % (200 * kS)) - 20 * kS;
      make_stale(e.entry, at);
      ASSERT_EQ(e.life().fresh_until, std::min(before.fresh_until, at));
      ASSERT_LE(e.life().stale_until, before.stale_until);
      ASSERT_LE(e.life().gone_at, before.gone_at);
      ASSERT_LE(e.life().kept_until, before.kept_until);
      ASSERT_EQ(e.entry.next_at, std::min(next_before, at));
    }
  }
}

TEST(Life, MadeStaleItIsNeitherFreshNorEarly) {
  Made e(durations(100 * kS, 20 * kS, 0, 0.8));
  make_stale(e.entry, kNow + 10 * kS);
  EXPECT_EQ(e.at(kNow + 10 * kS), State::kStale);
  EXPECT_EQ(e.at(kNow + 30 * kS - 1), State::kStale);
  EXPECT_EQ(e.at(kNow + 30 * kS), State::kGone);
}

TEST(RetryAfter, DoublesFromFiveSecondsToAMinute) {
  const Nanos expected[] = {5, 5, 10, 20, 40, 60, 60, 60};
  for (std::uint32_t failures = 0; failures < 8; ++failures) {
    EXPECT_EQ(retry_after(failures, kForever, 0), expected[failures] * kS) << failures;
  }
  EXPECT_EQ(retry_after(~std::uint32_t{0}, kForever, 0), 60 * kS);
}

TEST(RetryAfter, IsNeverLongerThanTheTtl) {
  EXPECT_EQ(retry_after(5, 7 * kS, 0), 7 * kS);
  EXPECT_EQ(retry_after(1, 7 * kS, 0), 5 * kS);
  EXPECT_EQ(retry_after(1, kS, 0), kS);
  EXPECT_GT(retry_after(1, 0, 0), 0);
}

TEST(RetryAfter, RandomOnlySubtractsAQuarter) {
  EXPECT_EQ(retry_after(3, kForever, 0.5), 20 * kS - 20 * kS / 8);
  EXPECT_GE(retry_after(9, kForever, 0x1.fffffffffffffp-1), 45 * kS);
  EXPECT_GT(retry_after(1, 0, 0x1.fffffffffffffp-1), 0);
}

}  // namespace
}  // namespace stillwarm
