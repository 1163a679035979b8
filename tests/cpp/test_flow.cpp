// Flow: what a call is told in every state, and what a load leaves behind when it ends.
#include "core/flow.hpp"

#include <gtest/gtest.h>

#include "support.hpp"

namespace stillwarm {
namespace {

using test::Cache;
using test::kSecond;
using test::kStart;
using test::Traits;

constexpr std::uint64_t kKey = 1;

// 100 s of which 80 fresh, stale to 120, failsafe to 150.
struct Timed : Cache {
  Timed() {
    defaults = {100 * kSecond, 20 * kSecond, 50 * kSecond, 7 * kSecond, 0.8, 0};
    flow.scopes()[0].durations = defaults;
    set(kKey, 10);
  }
  Decision look_at(Nanos offset) {
    now = kStart + offset;
    return look(kKey);
  }
};

// ---- look

TEST(Flow, AbsentLeadsAndTheNextFollows) {
  Cache cache;
  EXPECT_EQ(cache.look(kKey).step, Step::kLead);
  const auto load = cache.lead(kKey);
  const Decision d = cache.look(kKey);
  EXPECT_EQ(d.step, Step::kFollow);
  EXPECT_EQ(d.flight, &load->flight);
  EXPECT_EQ(d.entry, kNone);
  EXPECT_EQ(cache.stats().misses, 1u);
  cache.flow.joined(0);
  EXPECT_EQ(cache.stats().misses, 2u);
  EXPECT_EQ(cache.stats().joined, 1u);
}

TEST(Flow, EachStateHasItsStep) {
  Timed cache;
  EXPECT_EQ(cache.look_at(0).step, Step::kReturn);
  EXPECT_EQ(cache.look_at(80 * kSecond - 1).state, State::kFresh);
  EXPECT_EQ(cache.look_at(80 * kSecond).step, Step::kRefresh);
  EXPECT_EQ(cache.look_at(100 * kSecond - 1).state, State::kEarly);
  EXPECT_EQ(cache.look_at(100 * kSecond).step, Step::kRefresh);
  const Decision failsafe = cache.look_at(120 * kSecond);
  EXPECT_EQ(failsafe.step, Step::kLead);
  EXPECT_EQ(failsafe.state, State::kFailsafe);
  EXPECT_EQ(cache.value_at(failsafe.entry), 10u) << "what to fall back to";
  const Decision gone = cache.look_at(150 * kSecond);
  EXPECT_EQ(gone.step, Step::kLead);
  EXPECT_EQ(gone.entry, kNone);
  EXPECT_EQ(cache.flow.memory().size(), 0u) << "a look at what is gone removes it";
  EXPECT_EQ(cache.stats().removed[static_cast<std::size_t>(Cause::kExpired)], 1u);
}

TEST(Flow, WhileItIsLoadedStaleReturnsAndFailsafeFollows) {
  Timed cache;
  cache.now = kStart + 80 * kSecond;
  const auto load = cache.lead(kKey, 0, true);
  EXPECT_EQ(cache.look_at(80 * kSecond).step, Step::kReturn);
  EXPECT_EQ(cache.look_at(119 * kSecond).step, Step::kReturn);
  const Decision d = cache.look_at(120 * kSecond);
  EXPECT_EQ(d.step, Step::kFollow);
  EXPECT_EQ(d.flight, &load->flight);
  EXPECT_NE(d.entry, kNone);
}

TEST(Flow, CountsEveryServedValueOnce) {
  Timed cache;
  cache.look_at(0);
  cache.look_at(85 * kSecond);
  cache.look_at(105 * kSecond);
  EXPECT_EQ(cache.stats().hits, 2u) << "fresh and early";
  EXPECT_EQ(cache.stats().stale_hits, 1u);
  EXPECT_EQ(cache.stats().misses, 0u);
  EXPECT_EQ(cache.entry(kKey).hits, 3u);
  cache.flow.look(cache.probe(kKey), cache.now, false);
  EXPECT_EQ(cache.entry(kKey).hits, 3u) << "a second look of the same call";
}

TEST(Flow, HitIsForTheSimplyFreshOnly) {
  Timed cache;
  const auto hit = [&] { return cache.flow.hit(cache.probe(kKey), cache.now); };
  EXPECT_NE(hit(), kNone);
  cache.flow.set_watched(true, false);
  EXPECT_EQ(hit(), kNotFresh);
  EXPECT_TRUE(cache.flow.watched_loads());
  cache.flow.set_watched(false, false);
  cache.flow.invalidate_tag(99, false, cache.now);
  cache.look(kKey);
  EXPECT_NE(hit(), kNone) << "looked at once since the mark, it is simply fresh again";
  cache.now += 80 * kSecond;
  EXPECT_EQ(hit(), kNotFresh);
  Traits::raises = true;
  EXPECT_EQ(hit(), kFindError);
}

TEST(Flow, HitsAreSaturated) {
  Cache cache;
  cache.set(kKey, 10);
  Entry& e = cache.flow.memory()[cache.at(kKey)];
  e.hits = ~std::uint32_t{0} - 1;
  for (int n = 0; n < 3; ++n) cache.look(kKey);
  EXPECT_EQ(e.hits, ~std::uint32_t{0});
}

TEST(Flow, AnAbsenceIsRememberedAndThenLoadedAgain) {
  Timed cache;
  auto load = cache.lead(2);
  EXPECT_EQ(cache.commit(*load, 0, true), Stored::kStored);
  load.reset();
  EXPECT_EQ(cache.look(2).step, Step::kAbsent);
  EXPECT_EQ(cache.flow.hit(cache.probe(2), cache.now), kNotFresh);
  cache.now += 7 * kSecond - 1;
  EXPECT_EQ(cache.look(2).step, Step::kAbsent);
  cache.now += 1;
  EXPECT_EQ(cache.look(2).step, Step::kLead);
}

TEST(Flow, PeekReturnsWhatNeedsNoLoad) {
  Timed cache;
  const auto peek = [&](Nanos offset) { return cache.flow.peek(cache.probe(kKey), kStart + offset); };
  EXPECT_NE(peek(0), kNone);
  EXPECT_NE(peek(119 * kSecond), kNone);
  EXPECT_EQ(peek(120 * kSecond), kNone);
  EXPECT_EQ(cache.flow.memory().size(), 1u) << "failsafe: a load may still fall back to it";
  EXPECT_EQ(peek(150 * kSecond), kNone);
  EXPECT_EQ(cache.flow.memory().size(), 0u);
  EXPECT_EQ(cache.stats().hits, 0u);
}

TEST(Flow, AFailedComparisonDecidesNothing) {
  Cache cache;
  cache.set(kKey, 10);
  const auto load = cache.lead(2);
  Traits::raises = true;
  EXPECT_EQ(cache.look(kKey).step, Step::kError);
  EXPECT_EQ(cache.look(2).step, Step::kError);
  EXPECT_EQ(cache.flow.peek(cache.probe(kKey), cache.now), kFindError);
  EXPECT_EQ(cache.set(kKey, 11), Stored::kNotKept);
  EXPECT_EQ(cache.fail(*load, ErrorKind::kTransient).entry, kNone);
  Traits::raises = false;
  EXPECT_EQ(cache.value_at(cache.at(kKey)), 10u);
}

// ---- commit

TEST(Flow, CommitStoresAndAnswersTheNext) {
  Cache cache;
  const auto load = cache.lead(kKey);
  EXPECT_EQ(cache.commit(*load, 10), Stored::kStored);
  cache.flow.finish(load->flight);
  const Decision d = cache.look(kKey);
  EXPECT_EQ(d.step, Step::kReturn);
  EXPECT_EQ(cache.value_at(d.entry), 10u);
}

TEST(Flow, CommitReplacesAndReleasesTheOldValueOnce) {
  Timed cache;
  cache.now += 90 * kSecond;
  const auto load = cache.lead(kKey, 0, true);
  EXPECT_EQ(cache.commit(*load, 11), Stored::kStored);
  EXPECT_EQ(cache.value_at(cache.at(kKey)), 11u);
  EXPECT_EQ(cache.state(kKey), State::kFresh) << "the new life starts at the commit";
  EXPECT_EQ(cache.stats().misses, 0u) << "nobody waited for it";
}

TEST(Flow, ALoadBegunBeforeItsOwnCommitStaysAttachedUntilFinished) {
  Cache cache;
  const auto load = cache.lead(kKey);
  cache.commit(*load, 10);
  EXPECT_TRUE(load->flight.attached);
  cache.flow.finish(load->flight);
  EXPECT_EQ(cache.flow.flights().size(), 0u);
}

TEST(Flow, TtlZeroIsNotKept) {
  Cache cache;
  const auto load = cache.lead(kKey);
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

TEST(Flow, TooLargeIsNotKeptAndTheOldValueGoes) {
  Cache cache({0, 1000});
  cache.weight = 250;
  EXPECT_EQ(cache.set(kKey, 10), Stored::kStored) << "a quarter is not above a quarter";
  cache.weight = 251;
  EXPECT_EQ(cache.set(kKey, 11), Stored::kTooLarge);
  EXPECT_EQ(cache.at(kKey), kNone);
  const auto load = cache.lead(2);
  EXPECT_EQ(cache.commit(*load, 20), Stored::kTooLarge);
  EXPECT_GT(cache.stats().removed[static_cast<std::size_t>(Cause::kTooLarge)], 0u);
}

TEST(Flow, WeightsAboveThirtyTwoBitsAreTooLarge) {
  Cache cache({1000, 0});
  cache.weight = std::uint64_t{1} << 32;
  EXPECT_EQ(cache.set(kKey, 10), Stored::kTooLarge);
  cache.weight = (std::uint64_t{1} << 32) - 1;
  EXPECT_EQ(cache.set(kKey, 10), Stored::kStored);
  EXPECT_EQ(cache.flow.memory().bytes(), cache.weight);
}

TEST(Flow, TheLifeBeginsAtTheCommit) {
  Cache cache;
  cache.defaults.ttl = 10 * kSecond;
  const auto load = cache.lead(kKey);
  cache.now += 3 * kSecond;
  cache.commit(*load, 10);
  EXPECT_EQ(cache.entry(kKey).next_at, kStart + 13 * kSecond);
}

// ---- fail

TEST(Flow, FailureWithoutAValueServesNothing) {
  Cache cache;
  const auto load = cache.lead(kKey);
  EXPECT_EQ(cache.fail(*load, ErrorKind::kTransient).entry, kNone);
  cache.flow.finish(load->flight);
  EXPECT_EQ(cache.look(kKey).step, Step::kLead) << "without a value there is no pause";
}

TEST(Flow, TransientFailureServesTheStaleValueAndPauses) {
  Timed cache;
  cache.now = kStart + 125 * kSecond;
  auto load = cache.lead(kKey);
  const Failure f = cache.fail(*load, ErrorKind::kTransient);
  ASSERT_NE(f.entry, kNone);
  EXPECT_EQ(cache.value_at(f.entry), 10u);
  cache.flow.finish(load->flight);
  EXPECT_EQ(cache.look(kKey).step, Step::kReturn) << "failsafe, and no load for 5 s";
  cache.now += 5 * kSecond - 1;
  EXPECT_EQ(cache.look(kKey).step, Step::kReturn);
  cache.now += 1;
  EXPECT_EQ(cache.look(kKey).step, Step::kLead);
}

TEST(Flow, PausesGrowAndASuccessResetsThem) {
  Cache cache;
  cache.defaults = {1000 * kSecond, 1000 * kSecond, 0, 0, 0, 0};
  cache.set(kKey, 10);
  cache.now += 1000 * kSecond;
  for (const Nanos pause : {5, 10, 20, 40, 60, 60}) {
    ASSERT_EQ(cache.look(kKey).step, Step::kRefresh);
    const auto load = cache.lead(kKey, 0, true);
    cache.fail(*load, ErrorKind::kTransient);
    cache.flow.finish(load->flight);
    cache.now += pause * kSecond - 1;
    ASSERT_EQ(cache.look(kKey).step, Step::kReturn) << pause;
    cache.now += 1;
  }
  auto load = cache.lead(kKey, 0, true);
  ASSERT_EQ(cache.commit(*load, 11), Stored::kStored);
  load.reset();
  cache.now += 1000 * kSecond;
  load = cache.lead(kKey, 0, true);
  cache.fail(*load, ErrorKind::kTransient);
  load.reset();
  cache.now += 5 * kSecond;
  EXPECT_EQ(cache.look(kKey).step, Step::kRefresh) << "from the start again";
}

TEST(Flow, APauseIsMeasuredByTheTtlAndNotByASoftInvalidation) {
  for (const bool tagged : {false, true}) {
    Cache cache;
    cache.defaults = {1000 * kSecond, 1000 * kSecond, 0, 0, 0, 0};
    cache.flow.scopes()[0].durations = cache.defaults;
    cache.own_durations = false;
    if (tagged) cache.tags = {5};
    cache.set(kKey, 10);
    cache.invalidate(kKey, true);  // at the instant of the commit
    const auto load = cache.lead(kKey, 0, true);
    cache.fail(*load, ErrorKind::kTransient);
    cache.flow.finish(load->flight);
    cache.now += 5 * kSecond - 1;
    EXPECT_EQ(cache.look(kKey).step, Step::kReturn) << "a failing source must not be asked by every call";
    cache.now += 1;
    EXPECT_EQ(cache.look(kKey).step, Step::kRefresh);
  }
}

TEST(Flow, AFailedRefreshNeitherShortensNorLengthens) {
  for (const ErrorKind kind : {ErrorKind::kTransient, ErrorKind::kFatal}) {
    for (const bool own : {false, true}) {
      for (const Nanos at : {85, 105, 125}) {
        Timed cache;
        cache.own_durations = own;
        cache.defaults.early = own ? 0.8 : 0;
        cache.flow.scopes()[0].durations = cache.defaults;
        cache.set(kKey, 11);
        cache.now = kStart + at * kSecond;
        const Life before = life_of(cache.entry(kKey), cache.defaults);
        const Nanos next_before = cache.entry(kKey).next_at;
        const State state_before = cache.state(kKey);
        const auto load = cache.lead(kKey, 0, true);
        for (int n = 0; n < 3; ++n) cache.fail(*load, kind);
        const Life after = life_of(cache.entry(kKey), cache.defaults);
        EXPECT_EQ(after.fresh_until, before.fresh_until);
        EXPECT_EQ(after.stale_until, before.stale_until);
        EXPECT_EQ(after.gone_at, before.gone_at);
        EXPECT_EQ(cache.entry(kKey).next_at, next_before);
        EXPECT_EQ(cache.state(kKey), state_before);
        EXPECT_EQ(cache.value_at(cache.at(kKey)), 11u);
        cache.flow.finish(load->flight);
        cache.now = kStart + 150 * kSecond;
        EXPECT_EQ(cache.look(kKey).step, Step::kLead);
        EXPECT_EQ(cache.at(kKey), kNone);
      }
    }
  }
}

TEST(Flow, AFatalErrorIsRaisedAndPausesOnlyRefreshes) {
  Timed cache;
  cache.now = kStart + 125 * kSecond;
  auto load = cache.lead(kKey);
  EXPECT_EQ(cache.fail(*load, ErrorKind::kFatal).entry, kNone);
  load.reset();
  EXPECT_EQ(cache.look(kKey).step, Step::kLead) << "the next caller asks again";
  cache.now = kStart + 105 * kSecond;
  load = cache.lead(kKey, 0, true);
  cache.fail(*load, ErrorKind::kFatal);
  load.reset();
  EXPECT_EQ(cache.look(kKey).step, Step::kReturn);
}

TEST(Flow, NotFoundDropsTheEntryUnlessTheLoadIsOutdated) {
  Timed cache;
  cache.now = kStart + 105 * kSecond;
  auto load = cache.lead(kKey, 0, true);
  cache.set(kKey, 11);  // detaches the load
  EXPECT_FALSE(cache.fail(*load, ErrorKind::kNotFound).absent);
  EXPECT_EQ(cache.value_at(cache.at(kKey)), 11u);
  load = cache.lead(kKey, 0, true);
  EXPECT_TRUE(cache.fail(*load, ErrorKind::kNotFound).absent);
  EXPECT_EQ(cache.at(kKey), kNone);
  EXPECT_EQ(cache.stats().removed[static_cast<std::size_t>(Cause::kNotFound)], 1u);
}

TEST(Flow, AFailureBesideAFreshValueLeavesItAlone) {
  Cache cache;
  const auto load = cache.lead(kKey);
  cache.set(kKey, 10);
  EXPECT_EQ(cache.fail(*load, ErrorKind::kTransient).entry, kNone);
  EXPECT_EQ(cache.entry(kKey).extra->retry_at, 0);
}

// ---- scopes

TEST(Flow, ScopesDoNotShareKeysUnlessToldTo) {
  Cache cache;
  const ScopeId a = cache.add_scope(1, cache.defaults);
  const ScopeId b = cache.add_scope(1, cache.defaults);
  cache.set(kKey, 10, a);
  EXPECT_EQ(cache.look(kKey, b).step, Step::kLead);
  const ScopeId c = cache.add_scope(1, cache.defaults);
  cache.flow.scopes()[c].key_scope = a;
  cache.flow.scopes()[a].shares = cache.flow.scopes()[c].shares = true;
  EXPECT_EQ(cache.look(kKey, c).step, Step::kReturn);
}

TEST(Flow, AReplacementMovesTheEntryToItsScope) {
  Cache cache;
  const ScopeId a = cache.add_scope(1, cache.defaults);
  const ScopeId b = cache.add_scope(1, cache.defaults);
  cache.flow.scopes()[b].key_scope = a;
  cache.flow.scopes()[a].shares = cache.flow.scopes()[b].shares = true;
  cache.weight = 30;
  cache.set(kKey, 10, a);
  cache.weight = 50;
  cache.set(kKey, 11, b);
  EXPECT_EQ(cache.stats(a).entries, 0u);
  EXPECT_EQ(cache.stats(a).bytes, 0u);
  EXPECT_EQ(cache.stats(b).entries, 1u);
  EXPECT_EQ(cache.stats(b).bytes, 50u);
  EXPECT_EQ(cache.flow.memory().bytes(), 50u);
}

TEST(Flow, ARetiredScopeLeavesNothingAndItsNumberStartsClean) {
  Cache cache;
  const ScopeId old = cache.add_scope(1, cache.defaults);
  cache.set(kKey, 10, old);
  cache.set(kKey, 20);
  const auto load = cache.lead(2, old);
  cache.flow.retire(old);
  cache.release_dead();
  EXPECT_FALSE(load->flight.attached);
  EXPECT_EQ(cache.flow.memory().size(), 1u) << "the other scope's entry stays";
  const ScopeId fresh = cache.add_scope(2, cache.defaults);
  ASSERT_EQ(fresh, old);
  EXPECT_EQ(cache.look(kKey, fresh).step, Step::kLead);
  EXPECT_EQ(cache.commit(*load, 30), Stored::kLost) << "the load of the function that is gone";
  EXPECT_EQ(cache.look(2, fresh).step, Step::kLead);
  EXPECT_EQ(cache.stats(fresh).entries, 0u);
}

TEST(Flow, MarksOfARetiredScopeDoNotTouchItsSuccessor) {
  Cache cache;
  const ScopeId old = cache.add_scope(1, cache.defaults);
  cache.flow.invalidate_scope(old, false, cache.now);
  cache.flow.retire(old);
  const ScopeId fresh = cache.add_scope(2, cache.defaults);
  const auto load = cache.lead(kKey, fresh);
  EXPECT_EQ(cache.commit(*load, 10), Stored::kStored);
  EXPECT_EQ(cache.look(kKey, fresh).step, Step::kReturn);
}

}  // namespace
}  // namespace stillwarm
