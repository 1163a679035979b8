// Flow: what a load leaves behind when it ends, with a value or with an error.
#include "core/flow.hpp"

#include <gtest/gtest.h>

#include "support.hpp"

namespace stillwarm {
namespace {

using test::Cache;
using test::kId;
using test::kStart;
using test::Timed;

// ---- commit

TEST(FlowLoads, CommitStoresAndAnswersTheNext) {
  Cache cache;
  const auto load = cache.lead(kId);
  EXPECT_EQ(cache.commit(*load, 10), Stored::kStored);
  cache.flow.finish(load->flight);
  const Decision d = cache.look(kId);
  EXPECT_EQ(d.step, Step::kReturn);
  EXPECT_EQ(cache.value_at(d.entry), 10u);
}

TEST(FlowLoads, CommitReplacesAndReleasesTheOldValueOnce) {
  Timed cache;
  cache.now += 90 * kSecond;
  const auto load = cache.lead(kId, 0, true);
  EXPECT_EQ(cache.commit(*load, 11), Stored::kStored);
  EXPECT_EQ(cache.value_at(cache.at(kId)), 11u);
  EXPECT_EQ(cache.state(kId), State::kFresh) << "the new life starts at the commit";
  EXPECT_EQ(cache.stats().misses, 0u) << "nobody waited for it";
}

TEST(FlowLoads, ALoadBegunBeforeItsOwnCommitStaysAttachedUntilFinished) {
  Cache cache;
  const auto load = cache.lead(kId);
  cache.commit(*load, 10);
  EXPECT_TRUE(load->flight.attached);
  cache.flow.finish(load->flight);
  EXPECT_EQ(cache.flow.flights().size(), 0u);
}

TEST(FlowLoads, TtlZeroIsNotKept) {
  Cache cache;
  const auto load = cache.lead(kId);
  cache.defaults.ttl = 0;
  EXPECT_EQ(cache.commit(*load, 10), Stored::kNotKept);
  EXPECT_EQ(cache.commit(*load, 10, true), Stored::kNotKept) << "no negative_ttl";
  EXPECT_EQ(cache.flow.memory().size(), 0u);
  cache.defaults.ttl = kSecond;
  cache.set(2, 20);
  cache.defaults.ttl = 0;
  EXPECT_EQ(cache.set(2, 21), Stored::kNotKept);
  EXPECT_EQ(cache.at(2), kNone) << "what was set is not the old value";
}

TEST(FlowLoads, TooLargeIsNotKeptAndTheOldValueGoes) {
  Cache cache({0, 1000});
  cache.weight = 250;
  EXPECT_EQ(cache.set(kId, 10), Stored::kStored) << "a quarter is not above a quarter";
  cache.weight = 251;
  EXPECT_EQ(cache.set(kId, 11), Stored::kTooLarge);
  EXPECT_EQ(cache.at(kId), kNone);
  const auto load = cache.lead(2);
  EXPECT_EQ(cache.commit(*load, 20), Stored::kTooLarge);
  EXPECT_GT(cache.stats().removed[static_cast<std::size_t>(Cause::kTooLarge)], 0u);
}

TEST(FlowLoads, WeightsAboveThirtyTwoBitsAreTooLarge) {
  Cache cache({1000, 0});
  cache.weight = std::uint64_t{1} << 32;
  EXPECT_EQ(cache.set(kId, 10), Stored::kTooLarge);
  cache.weight = (std::uint64_t{1} << 32) - 1;
  EXPECT_EQ(cache.set(kId, 10), Stored::kStored);
  EXPECT_EQ(cache.flow.memory().bytes(), cache.weight);
}

TEST(FlowLoads, TheLifeBeginsAtTheCommit) {
  Cache cache;
  cache.defaults.ttl = 10 * kSecond;
  const auto load = cache.lead(kId);
  cache.now += 3 * kSecond;
  cache.commit(*load, 10);
  EXPECT_EQ(cache.entry(kId).next_at, kStart + 13 * kSecond);
}

// ---- fail

TEST(FlowLoads, FailureWithoutAValueServesNothing) {
  Cache cache;
  const auto load = cache.lead(kId);
  EXPECT_EQ(cache.fail(*load, ErrorKind::kTransient).entry, kNone);
  cache.flow.finish(load->flight);
  EXPECT_EQ(cache.look(kId).step, Step::kLead) << "without a value there is no pause";
}

TEST(FlowLoads, TransientFailureServesTheStaleValueAndPauses) {
  Timed cache;
  cache.now = kStart + 125 * kSecond;
  auto load = cache.lead(kId);
  const Failure f = cache.fail(*load, ErrorKind::kTransient);
  ASSERT_NE(f.entry, kNone);
  EXPECT_EQ(cache.value_at(f.entry), 10u);
  cache.flow.finish(load->flight);
  EXPECT_EQ(cache.look(kId).step, Step::kReturn) << "failsafe, and no load for 5 s";
  cache.now += 5 * kSecond - 1;
  EXPECT_EQ(cache.look(kId).step, Step::kReturn);
  cache.now += 1;
  EXPECT_EQ(cache.look(kId).step, Step::kLead);
}

TEST(FlowLoads, PausesGrowAndASuccessResetsThem) {
  Cache cache;
  cache.defaults = {1000 * kSecond, 1000 * kSecond, 0, 0, 0, 0};
  cache.set(kId, 10);
  cache.now += 1000 * kSecond;
  for (const Nanos pause : {5, 10, 20, 40, 60, 60}) {
    ASSERT_EQ(cache.look(kId).step, Step::kRefresh);
    const auto load = cache.lead(kId, 0, true);
    cache.fail(*load, ErrorKind::kTransient);
    cache.flow.finish(load->flight);
    cache.now += pause * kSecond - 1;
    ASSERT_EQ(cache.look(kId).step, Step::kReturn) << pause;
    cache.now += 1;
  }
  auto load = cache.lead(kId, 0, true);
  ASSERT_EQ(cache.commit(*load, 11), Stored::kStored);
  load.reset();
  cache.now += 1000 * kSecond;
  load = cache.lead(kId, 0, true);
  cache.fail(*load, ErrorKind::kTransient);
  load.reset();
  cache.now += 5 * kSecond;
  EXPECT_EQ(cache.look(kId).step, Step::kRefresh) << "from the start again";
}

TEST(FlowLoads, APauseIsMeasuredByTheTtlAndNotByASoftInvalidation) {
  for (const bool tagged : {false, true}) {
    Cache cache;
    cache.defaults = {1000 * kSecond, 1000 * kSecond, 0, 0, 0, 0};
    cache.flow.scopes()[0].durations = cache.defaults;
    cache.own_durations = false;
    if (tagged) cache.tags = {5};
    cache.set(kId, 10);
    cache.invalidate(kId, true);  // at the instant of the commit
    const auto load = cache.lead(kId, 0, true);
    cache.fail(*load, ErrorKind::kTransient);
    cache.flow.finish(load->flight);
    cache.now += 5 * kSecond - 1;
    EXPECT_EQ(cache.look(kId).step, Step::kReturn) << "a failing source must not be asked by every call";
    cache.now += 1;
    EXPECT_EQ(cache.look(kId).step, Step::kRefresh);
  }
}

TEST(FlowLoads, AFailedRefreshNeitherShortensNorLengthens) {
  for (const ErrorKind kind : {ErrorKind::kTransient, ErrorKind::kFatal}) {
    for (const bool own : {false, true}) {
      for (const Nanos at : {85, 105, 125}) {
        Timed cache;
        cache.own_durations = own;
        cache.defaults.early = own ? 0.8 : 0;
        cache.flow.scopes()[0].durations = cache.defaults;
        cache.set(kId, 11);
        cache.now = kStart + at * kSecond;
        const Life before = life_of(cache.entry(kId), cache.defaults);
        const Nanos next_before = cache.entry(kId).next_at;
        const State state_before = cache.state(kId);
        const auto load = cache.lead(kId, 0, true);
        for (int n = 0; n < 3; ++n) cache.fail(*load, kind);
        const Life after = life_of(cache.entry(kId), cache.defaults);
        EXPECT_EQ(after.fresh_until, before.fresh_until);
        EXPECT_EQ(after.stale_until, before.stale_until);
        EXPECT_EQ(after.gone_at, before.gone_at);
        EXPECT_EQ(cache.entry(kId).next_at, next_before);
        EXPECT_EQ(cache.state(kId), state_before);
        EXPECT_EQ(cache.value_at(cache.at(kId)), 11u);
        cache.flow.finish(load->flight);
        cache.now = kStart + 150 * kSecond;
        EXPECT_EQ(cache.look(kId).step, Step::kLead);
        EXPECT_EQ(cache.at(kId), kNone);
      }
    }
  }
}

TEST(FlowLoads, AFatalErrorIsRaisedAndPausesOnlyRefreshes) {
  Timed cache;
  cache.now = kStart + 125 * kSecond;
  auto load = cache.lead(kId);
  EXPECT_EQ(cache.fail(*load, ErrorKind::kFatal).entry, kNone);
  load.reset();
  EXPECT_EQ(cache.look(kId).step, Step::kLead) << "the next caller asks again";
  cache.now = kStart + 105 * kSecond;
  load = cache.lead(kId, 0, true);
  cache.fail(*load, ErrorKind::kFatal);
  load.reset();
  EXPECT_EQ(cache.look(kId).step, Step::kReturn);
}

TEST(FlowLoads, NotFoundDropsTheEntryUnlessTheLoadIsOutdated) {
  Timed cache;
  cache.now = kStart + 105 * kSecond;
  auto load = cache.lead(kId, 0, true);
  cache.set(kId, 11);  // detaches the load
  EXPECT_FALSE(cache.fail(*load, ErrorKind::kNotFound).absent);
  EXPECT_EQ(cache.value_at(cache.at(kId)), 11u);
  load = cache.lead(kId, 0, true);
  EXPECT_TRUE(cache.fail(*load, ErrorKind::kNotFound).absent);
  EXPECT_EQ(cache.at(kId), kNone);
  EXPECT_EQ(cache.stats().removed[static_cast<std::size_t>(Cause::kNotFound)], 1u);
}

TEST(FlowLoads, AFailureBesideAFreshValueLeavesItAlone) {
  Cache cache;
  const auto load = cache.lead(kId);
  cache.set(kId, 10);
  EXPECT_EQ(cache.fail(*load, ErrorKind::kTransient).entry, kNone);
  EXPECT_EQ(cache.entry(kId).extra->retry_at, 0);
}

}  // namespace
}  // namespace stillwarm
