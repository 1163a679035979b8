// Invalidation always wins: keys, patterns, types, scopes, tags, all; hard and soft; while loads run and while keys are
// compared.
#include <gtest/gtest.h>

#include "core/flow.hpp"
#include "support.hpp"

namespace stillwarm {
namespace {

using test::Cache;
using test::kId;
using test::kStart;
using test::one_hash;
using test::Traits;

constexpr std::uint64_t kOwnTag = 77;

struct Service : Cache {  // 100 s fresh, 20 s stale
  explicit Service(Limits limits = {1000, 0}, Hash hash = test::scramble) : Cache(limits, std::move(hash)) {
    defaults = {100 * kSecond, 20 * kSecond, 0, 0, 0, 0};
    flow.scopes()[0].durations = defaults;
    own_durations = false;
  }
};

// Every form that concerns key 1 of scope 0, type 0, tag kOwnTag.
enum class Form { kKey, kPattern, kType, kScope, kTag, kAll };
constexpr Form kForms[] = {Form::kKey, Form::kPattern, Form::kType, Form::kScope, Form::kTag, Form::kAll};

void invalidate(Cache& cache, Form form, bool soft) {
  auto& flow = cache.flow;
  switch (form) {
    case Form::kKey:
      cache.invalidate(kId, soft);
      break;
    case Form::kPattern: {
      flow.fence_pattern();
      if (const Index i = cache.at(kId); i != kNone) flow.invalidate_entry(i, soft, cache.now);
      break;
    }
    case Form::kType:
      flow.invalidate_type(0, soft, cache.now);
      break;
    case Form::kScope:
      flow.invalidate_scope(0, soft, cache.now);
      break;
    case Form::kTag:
      flow.invalidate_tag(kOwnTag, soft, cache.now);
      break;
    case Form::kAll:
      flow.invalidate_all(soft, cache.now);
      break;
  }
  cache.release_dead();
}

TEST(Invalidation, EveryHardFormMakesAStoredValueAbsent) {
  for (const Form form : kForms) {
    Service cache;
    cache.tags = {kOwnTag};
    cache.set(kId, 10);
    invalidate(cache, form, false);
    EXPECT_FALSE(is_entry(cache.flow.hit(cache.probe(kId), cache.now)));
    EXPECT_EQ(cache.look(kId).step, Step::kLead) << static_cast<int>(form);
    EXPECT_EQ(cache.at(kId), kNone);
  }
}

TEST(Invalidation, EverySoftFormMakesItStaleFromNowOn) {
  for (const Form form : kForms) {
    Service cache;
    cache.tags = {kOwnTag};
    cache.set(kId, 10);
    cache.now += 10 * kSecond;
    invalidate(cache, form, true);
    EXPECT_FALSE(is_entry(cache.flow.hit(cache.probe(kId), cache.now)));
    const Decision d = cache.look(kId);
    EXPECT_EQ(d.step, Step::kRefresh) << static_cast<int>(form);
    EXPECT_EQ(d.state, State::kStale);
    cache.now += 20 * kSecond - 1;
    EXPECT_EQ(cache.state(kId), State::kStale);
    cache.now += 1;
    EXPECT_EQ(cache.state(kId), State::kGone) << static_cast<int>(form);
  }
}

TEST(Invalidation, NothingLoadedBeforeItIsStored) {
  for (const Form form : kForms) {
    Service cache;
    cache.tags = {kOwnTag};
    const auto load = cache.lead(kId);
    invalidate(cache, form, false);
    EXPECT_EQ(cache.commit(*load, 10), Stored::kLost) << static_cast<int>(form);
    EXPECT_EQ(cache.stats().lost_fills, 1u);
    EXPECT_EQ(cache.look(kId).step, Step::kLead);
  }
}

TEST(Invalidation, ACallerThatComesLaterDoesNotJoinTheOldLoad) {
  for (const Form form : kForms) {
    for (const bool soft : {false, true}) {
      Service cache;
      const auto old = cache.lead(kId);
      invalidate(cache, form, soft);
      EXPECT_EQ(cache.look(kId).step, Step::kLead) << static_cast<int>(form);
      const auto fresh = cache.lead(kId);
      EXPECT_FALSE(old->flight.attached) << "one attached flight per key";
      EXPECT_EQ(cache.flow.flights().size(), 1u);
      EXPECT_EQ(cache.commit(*fresh, 11), Stored::kStored);
      EXPECT_EQ(cache.commit(*old, 10), Stored::kLost);
      EXPECT_EQ(cache.value_at(cache.at(kId)), 11u);
    }
  }
}

TEST(Invalidation, ASoftMarkDuringALoadStoresItStale) {
  for (const Form form : {Form::kType, Form::kScope, Form::kTag, Form::kAll}) {
    Service cache;
    cache.tags = {kOwnTag};
    const auto load = cache.lead(kId);
    cache.now += kSecond;
    invalidate(cache, form, true);
    cache.now += kSecond;
    EXPECT_EQ(cache.commit(*load, 10), Stored::kStored);
    EXPECT_EQ(cache.state(kId), State::kStale) << static_cast<int>(form);
    cache.now = kStart + 21 * kSecond;
    EXPECT_EQ(cache.state(kId), State::kGone) << "stale since the mark, not since the commit";
  }
}

TEST(Invalidation, TellsWhetherThereWasSomething) {
  Service cache;
  EXPECT_FALSE(cache.invalidate(kId));
  cache.set(kId, 10);
  EXPECT_TRUE(cache.invalidate(kId));
  EXPECT_FALSE(cache.invalidate(kId));
  cache.set(kId, 10);
  cache.now += 120 * kSecond;
  EXPECT_FALSE(cache.invalidate(kId)) << "gone by itself";
  cache.set(kId, 10);
  cache.flow.invalidate_all(false, cache.now);
  EXPECT_FALSE(cache.invalidate(kId));
}

TEST(Invalidation, OthersKeepTheirValues) {
  Service cache;
  const ScopeId other = cache.add_scope(5, cache.defaults);
  cache.set(2, 20);
  cache.set(kId, 30, other);
  cache.tags = {kOwnTag + 1};
  cache.set(3, 40);
  for (const Form form : {Form::kKey, Form::kPattern, Form::kTag}) invalidate(cache, form, false);
  EXPECT_EQ(cache.look(2).step, Step::kReturn);
  EXPECT_EQ(cache.look(3).step, Step::kReturn);
  invalidate(cache, Form::kType, false);
  invalidate(cache, Form::kScope, false);
  EXPECT_EQ(cache.look(kId, other).step, Step::kReturn);
}

TEST(Invalidation, AStripeCollisionCostsAFillButNoEntry) {
  Service cache({1000, 0}, [](std::uint64_t id) { return (id << 40) + 7; });  // all in one stripe
  cache.set(2, 20);
  const auto load = cache.lead(kId);
  cache.invalidate(3);
  EXPECT_EQ(cache.commit(*load, 10), Stored::kLost);
  EXPECT_TRUE(load->flight.attached) << "its callers may still be joined";
  EXPECT_EQ(cache.look(2).step, Step::kReturn);
}

TEST(Invalidation, SetDetachesWhatIsBeingLoaded) {
  Service cache;
  const auto load = cache.lead(kId);
  cache.set(kId, 10);
  EXPECT_FALSE(load->flight.attached);
  EXPECT_EQ(cache.commit(*load, 11), Stored::kLost);
  EXPECT_EQ(cache.value_at(cache.at(kId)), 10u);
}

TEST(Invalidation, DetachedFlightIsNeverStored) {
  Service cache;
  const auto load = cache.lead(kId);
  cache.flow.detach_all();
  EXPECT_EQ(cache.commit(*load, 10), Stored::kLost);
  EXPECT_EQ(cache.look(kId).step, Step::kLead);
}

TEST(Invalidation, DetachStopsTheLoadAndKeepsTheValue) {
  Service cache;
  cache.set(kId, 10);
  const auto load = cache.lead(kId, 0, true);
  cache.flow.detach(cache.probe(kId));
  EXPECT_EQ(cache.commit(*load, 11), Stored::kLost);
  EXPECT_EQ(cache.value_at(cache.at(kId)), 10u);
}

TEST(Invalidation, ClearEmptiesNowAndStopsLoads) {
  for (const bool everything : {false, true}) {
    Service cache;
    const ScopeId other = cache.add_scope(5, cache.defaults);
    for (std::uint64_t id = 0; id < 300; ++id) cache.set(id, id);
    cache.set(kId, 1, other);
    const auto load = cache.lead(1000);
    const auto others = cache.lead(1000, other);
    everything ? cache.flow.clear(std::nullopt) : cache.flow.clear(0);
    cache.release_dead();
    EXPECT_EQ(cache.flow.memory().size(), everything ? 0u : 1u);
    EXPECT_EQ(cache.commit(*load, 5), Stored::kLost);
    EXPECT_EQ(cache.commit(*others, 5), everything ? Stored::kLost : Stored::kStored);
  }
}

// ---- sweeping

TEST(Invalidation, WhatAMarkInvalidatedLeavesAFewAtATime) {
  Service cache({5000, 0});
  for (std::uint64_t id = 0; id < 1000; ++id) cache.set(id, id);
  cache.flow.invalidate_all(false, cache.now);
  cache.release_dead();
  EXPECT_GT(cache.flow.memory().size(), 900u) << "bounded work for one call";
  for (int n = 0; n < 50; ++n) cache.settle();
  EXPECT_EQ(cache.flow.memory().size(), 0u);
}

TEST(Invalidation, TheSweepGetsRoundThoughMarksKeepComing) {
  Service cache({5000, 0});
  cache.tags = {kOwnTag};
  for (std::uint64_t id = 0; id < 1000; ++id) cache.set(id, id);
  cache.tags.clear();
  invalidate(cache, Form::kTag, false);
  for (std::uint64_t n = 0; n < 60; ++n) {
    cache.flow.invalidate_tag(1'000 + n, false, cache.now);
    cache.release_dead();
  }
  EXPECT_EQ(cache.flow.memory().size(), 0u) << "each mark must not start it at the beginning";
}

TEST(Invalidation, TheSweepReachesEntriesInReusedPlaces) {
  Service cache({5000, 0});
  cache.tags = {kOwnTag};
  for (std::uint64_t id = 0; id < 600; ++id) cache.set(id, id);
  invalidate(cache, Form::kTag, false);
  for (std::uint64_t id = 600; id < 1600; ++id) cache.set(id, id);  // in freed places and in new ones
  for (int n = 0; n < 60; ++n) cache.settle();
  EXPECT_EQ(cache.flow.memory().size(), 1000u);
  for (std::uint64_t id = 600; id < 1600; ++id) ASSERT_EQ(cache.look(id).step, Step::kReturn);
}

TEST(Invalidation, SoftAfterSoftDoesNotLengthenWhatNobodyLookedAt) {
  Service cache({5000, 0});
  cache.defaults.ttl = kForever;
  for (std::uint64_t id = 0; id < 1000; ++id) cache.set(id, id);
  cache.flow.invalidate_all(true, cache.now);
  cache.now += 15 * kSecond;
  cache.flow.invalidate_all(true, cache.now);
  cache.now += 5 * kSecond;
  for (std::uint64_t id = 0; id < 1000; ++id) ASSERT_EQ(cache.state(id), State::kGone) << id;
}

TEST(Invalidation, ALongLoadIsStaleSinceTheFirstSoftMarkThoughAllWasSwept) {
  Service cache;
  const auto load = cache.lead(kId);
  cache.flow.invalidate_all(true, cache.now);
  for (int n = 0; n < 50; ++n) cache.settle();
  cache.now += 15 * kSecond;
  cache.flow.invalidate_all(true, cache.now);
  cache.now += 4 * kSecond;
  ASSERT_EQ(cache.commit(*load, 10), Stored::kStored);
  EXPECT_EQ(cache.state(kId), State::kStale);
  cache.now += kSecond;
  EXPECT_EQ(cache.state(kId), State::kGone);
}

TEST(Invalidation, SoftMarksFarApartLeaveTheTimeOfServiceToWhatIsInUse) {
  Service cache({5000, 0});
  cache.defaults.ttl = kForever;
  for (std::uint64_t id = 0; id < 1000; ++id) cache.set(id, id);
  cache.flow.invalidate_all(true, cache.now);
  cache.now += 5 * kSecond;
  cache.set(999, 1);
  cache.now += 500 * kSecond;
  cache.flow.invalidate_all(true, cache.now);
  EXPECT_EQ(cache.state(999), State::kStale);
}

// ---- foreign code inside comparisons

TEST(Reentrance, LookReturnsNothingThatTheComparisonRemoved) {
  Service cache({1000, 0}, one_hash);
  cache.set(kId, 10);
  Traits::once([&] { cache.invalidate(kId); });
  EXPECT_EQ(cache.look(kId).step, Step::kLead);
}

TEST(Reentrance, LookSeesTheFlightThatTheComparisonStarted) {
  Service cache({1000, 0}, one_hash);
  cache.set(2, 20);
  std::unique_ptr<test::Load> load;
  Traits::once([&] { load = cache.lead(kId); });
  const Decision d = cache.look(kId);
  EXPECT_EQ(d.step, Step::kFollow);
  EXPECT_EQ(d.flight, &load->flight);
}

TEST(Reentrance, LookForgetsTheEntryThatWentWhileFlightsWereCompared) {
  Service cache({1000, 0}, one_hash);
  cache.set(kId, 10);
  cache.now += 105 * kSecond;
  const auto load = cache.lead(2);
  int comparisons = 0;
  Traits::foreign = [&] {
    if (++comparisons == 2) cache.invalidate(kId);  // the first is with the entry, the second with the flight
  };
  const Decision d = cache.look(kId);
  EXPECT_EQ(d.step, Step::kLead);
  EXPECT_EQ(d.entry, kNone);
}

TEST(Reentrance, CommitIsLostIfTheComparisonInvalidated) {
  for (const Form form : kForms) {
    Service cache({1000, 0}, one_hash);
    cache.tags = {kOwnTag};
    cache.set(2, 20);
    const auto load = cache.lead(kId);
    Traits::once([&] { invalidate(cache, form, false); });
    EXPECT_EQ(cache.commit(*load, 10), Stored::kLost) << static_cast<int>(form);
    EXPECT_EQ(cache.at(kId), kNone);
  }
}

TEST(Reentrance, CommitIsLostIfTheComparisonSetTheKey) {
  Service cache({1000, 0}, one_hash);
  cache.set(2, 20);
  const auto load = cache.lead(kId);
  Traits::once([&] { cache.set(kId, 11); });
  EXPECT_EQ(cache.commit(*load, 10), Stored::kLost);
  EXPECT_EQ(cache.value_at(cache.at(kId)), 11u);
}

TEST(Reentrance, SetInsideSetStoresOnce) {
  Service cache({1000, 0}, one_hash);
  cache.set(2, 20);
  Traits::once([&] { cache.set(kId, 11); });
  EXPECT_EQ(cache.set(kId, 10), Stored::kStored);
  EXPECT_EQ(cache.value_at(cache.at(kId)), 10u);
  EXPECT_EQ(cache.flow.memory().size(), 2u);
}

TEST(Reentrance, ALoadThatStartsWithinASetDoesNotReplaceIt) {
  Service cache({1000, 0}, one_hash);
  cache.set(2, 20);
  std::unique_ptr<test::Load> load;
  Traits::once([&] { load = cache.lead(kId); });
  EXPECT_EQ(cache.set(kId, 10), Stored::kStored);
  cache.commit(*load, 9);
  EXPECT_EQ(cache.value_at(cache.at(kId)), 10u);
}

TEST(Reentrance, SetReplacesNothingThatWasClearedMeanwhile) {
  Service cache({1000, 0}, one_hash);
  cache.set(kId, 10);
  Traits::once([&] {
    cache.flow.clear(std::nullopt);
    cache.release_dead();
  });
  EXPECT_EQ(cache.set(kId, 11), Stored::kStored);
  EXPECT_EQ(cache.value_at(cache.at(kId)), 11u);
  EXPECT_EQ(cache.flow.memory().size(), 1u);
}

TEST(Reentrance, NeverSettlingEndsEveryOperation) {
  Service cache({1000, 0}, one_hash);
  cache.set(2, 20);
  Traits::foreign = [&] { cache.at(50) == kNone ? void(cache.set(50, 1)) : void(cache.invalidate(50)); };
  EXPECT_EQ(cache.look(kId).step, Step::kError);
  EXPECT_EQ(cache.set(kId, 10), Stored::kNotKept);
  const auto load = cache.lead(kId);
  EXPECT_EQ(cache.commit(*load, 10), Stored::kNotKept);
  cache.flow.finish(load->flight);
  EXPECT_FALSE(cache.invalidate(kId));
  EXPECT_GE(Traits::unsettled, 4);
}

}  // namespace
}  // namespace stillwarm
