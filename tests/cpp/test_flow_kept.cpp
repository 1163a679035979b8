// Flow: what is KEPT after its service. Never returned, offered to its loader, revived only by a commit.
#include "core/flow.hpp"

#include <gtest/gtest.h>

#include "support.hpp"

namespace stillwarm {
namespace {

using test::Cache;
using test::kId;
using test::kStart;
using test::Timed;

// KEPT from 150 s to 200.
struct Keeping : Timed {
  Keeping() {
    defaults.keep = 50 * kSecond;
    flow.scopes()[0].durations = defaults;
    set(kId, 10);
  }
  Index offered() { return flow.revivable(probe(kId), now); }
};

TEST(FlowKept, ItIsAbsentForACallAndThereForItsLoader) {
  Keeping cache;
  for (const Nanos at : {150 * kSecond, 200 * kSecond - 1}) {
    const Decision d = cache.look_at(at);
    EXPECT_EQ(d.step, Step::kLead);
    EXPECT_EQ(d.entry, kNone) << "nothing to fall back to";
    EXPECT_EQ(d.state, State::kKept);
    EXPECT_FALSE(d.nothing());
    EXPECT_EQ(cache.flow.peek(cache.probe(kId), cache.now), kNone);
    EXPECT_EQ(cache.flow.hit(cache.probe(kId), cache.now), kNotFresh);
    ASSERT_NE(cache.offered(), kNone);
    EXPECT_EQ(cache.value_at(cache.offered()), 10u);
  }
  EXPECT_EQ(cache.stats().hits + cache.stats().stale_hits, 0u);
  const Decision gone = cache.look_at(200 * kSecond);
  EXPECT_TRUE(gone.nothing());
  EXPECT_EQ(cache.at(kId), kNone);
}

TEST(FlowKept, ItIsOfferedInEveryStateBefore) {
  Keeping cache;
  for (const Nanos at : {0, 80, 100, 120, 150}) {
    cache.now = kStart + at * kSecond;
    EXPECT_NE(cache.offered(), kNone) << at;
  }
  cache.now = kStart + 200 * kSecond;
  EXPECT_EQ(cache.offered(), kNone);
}

TEST(FlowKept, AnAbsenceIsNotOffered) {
  Keeping cache;
  const auto load = cache.lead(2);
  ASSERT_EQ(cache.commit(*load, 0, true), Stored::kStored);
  EXPECT_EQ(cache.flow.revivable(cache.probe(2), cache.now), kNone);
}

TEST(FlowKept, TheTimerTakesItAtItsEndAndNotBefore) {
  Keeping cache;
  cache.now = kStart + 199 * kSecond;
  cache.settle();
  EXPECT_EQ(cache.stats().entries, 1u);
  cache.now = kStart + 202 * kSecond;
  cache.settle();
  EXPECT_EQ(cache.stats().entries, 0u);
  EXPECT_EQ(cache.stats().removed[static_cast<std::size_t>(Cause::kExpired)], 1u);
}

// The short way of a commit that found nothing at its start must not be taken: it would store a second entry.
TEST(FlowKept, ACommitReplacesItWhereItIs) {
  Keeping cache;
  const Decision d = cache.look_at(160 * kSecond);
  const auto load = cache.lead(kId);
  load->flight.found_nothing = d.nothing();
  EXPECT_EQ(cache.commit(*load, 10), Stored::kStored);
  EXPECT_EQ(cache.flow.memory().size(), 1u);
  EXPECT_EQ(cache.state(kId), State::kFresh);
  EXPECT_TRUE(cache.flow.check_invariants());
}

TEST(FlowKept, AFailedLoadNeitherServesNorChangesIt) {
  for (const ErrorKind kind : {ErrorKind::kTransient, ErrorKind::kFatal}) {
    for (const bool background : {false, true}) {
      Keeping cache;
      cache.now = kStart + 119 * kSecond;
      const auto load = cache.lead(kId, 0, background);
      cache.now = kStart + 160 * kSecond;
      const Life before = life_of(cache.entry(kId), cache.defaults);
      EXPECT_EQ(cache.fail(*load, kind).entry, kNone);
      EXPECT_EQ(life_of(cache.entry(kId), cache.defaults).kept_until, before.kept_until);
      EXPECT_EQ(cache.entry(kId).extra->retry_at, 0) << "nothing is served, so nobody is to be held back";
      EXPECT_NE(cache.offered(), kNone);
    }
  }
}

TEST(FlowKept, NotFoundEndsIt) {
  Keeping cache;
  cache.now = kStart + 160 * kSecond;
  const auto load = cache.lead(kId);
  EXPECT_TRUE(cache.fail(*load, ErrorKind::kNotFound).absent);
  EXPECT_EQ(cache.offered(), kNone);
}

TEST(FlowKept, WhatIsInvalidatedIsNotOffered) {
  for (int form = 0; form < 5; ++form) {
    for (const Nanos at : {10 * kSecond, 160 * kSecond}) {
      Keeping cache;
      cache.tags = {7};
      cache.set(kId, 10);
      for (std::uint64_t id = 100; id < 300; ++id) cache.set(id, id);
      cache.flow.invalidate_tag(99, false, cache.now);  // the hand of the sweep is beyond the key
      cache.now = kStart + at;
      switch (form) {
        case 0:
          EXPECT_EQ(cache.invalidate(kId), at < 150 * kSecond) << "whether it could have been returned";
          break;
        case 1:
          cache.flow.invalidate_tag(7, false, cache.now);
          break;
        case 2:
          cache.flow.invalidate_type(0, false, cache.now);
          break;
        case 3:
          cache.flow.invalidate_all(false, cache.now);
          break;
        default:
          cache.flow.clear(0);
      }
      EXPECT_EQ(cache.offered(), kNone) << form;
      cache.release_dead();
    }
  }
}

TEST(FlowKept, InvalidatedMeanwhileItIsNotStoredAgain) {
  Keeping cache;
  cache.now = kStart + 160 * kSecond;
  const auto load = cache.lead(kId);
  ASSERT_NE(cache.offered(), kNone);
  cache.invalidate(kId);
  EXPECT_EQ(cache.commit(*load, 10), Stored::kLost);
  EXPECT_EQ(cache.at(kId), kNone);
}

TEST(FlowKept, ASoftMarkNeverLengthensIt) {
  Keeping cache;
  cache.now = kStart + 10 * kSecond;
  cache.invalidate(kId, true);
  EXPECT_EQ(cache.state(kId), State::kStale);
  EXPECT_EQ(life_of(cache.entry(kId), cache.defaults).kept_until, kStart + (10 + 50 + 50) * kSecond);
  cache.now = kStart + 70 * kSecond;
  EXPECT_EQ(cache.state(kId), State::kKept);
  cache.invalidate(kId, true);
  EXPECT_EQ(life_of(cache.entry(kId), cache.defaults).kept_until, kStart + 110 * kSecond);
  EXPECT_NE(cache.offered(), kNone) << "stale it was already";
}

TEST(FlowKept, ALoadByForceJoinsOrLeadsWhateverIsStored) {
  Timed cache;
  for (const Nanos at : {0, 85, 105, 125}) {
    cache.now = kStart + at * kSecond;
    const auto anew = [&] { return cache.flow.look(cache.probe(kId), cache.now, true, true); };
    const Decision d = anew();
    EXPECT_EQ(d.step, Step::kLead) << at;
    EXPECT_EQ(d.entry, kNone) << "a new value or an error, not a fallback after a soft timeout";
    EXPECT_FALSE(d.nothing());
    const auto load = cache.lead(kId);
    EXPECT_EQ(anew().step, Step::kFollow);
    EXPECT_EQ(anew().flight, &load->flight);
    EXPECT_EQ(cache.value_at(cache.at(kId)), 10u) << "the others have it meanwhile";
    EXPECT_EQ(cache.value_at(cache.fail(*load, ErrorKind::kTransient).entry), 10u);
    cache.flow.finish(load->flight);
  }
  EXPECT_EQ(cache.stats().hits + cache.stats().stale_hits, 0u);
}

TEST(FlowKept, ADetachedLoadIsNotJoinedAndNotStored) {
  Cache cache;
  cache.set(kId, 10);
  const auto load = cache.lead(kId);
  EXPECT_TRUE(cache.flow.detach(cache.probe(kId)));
  EXPECT_EQ(cache.value_at(cache.at(kId)), 10u) << "what is stored stays";
  EXPECT_EQ(cache.flow.look(cache.probe(kId), cache.now, true, true).step, Step::kLead);
  EXPECT_EQ(cache.commit(*load, 11), Stored::kLost);
}

}  // namespace
}  // namespace stillwarm
