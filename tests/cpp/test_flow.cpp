// Flow: what a call is told in every state, and whose keys are whose.
#include "core/flow.hpp"

#include <gtest/gtest.h>

#include "support.hpp"

namespace stillwarm {
namespace {

using test::Cache;
using test::kId;
using test::kStart;
using test::Timed;
using test::Traits;

TEST(Flow, AbsentLeadsAndTheNextFollows) {
  Cache cache;
  EXPECT_EQ(cache.look(kId).step, Step::kLead);
  const auto load = cache.lead(kId);
  const Decision d = cache.look(kId);
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
  const auto load = cache.lead(kId, 0, true);
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
  EXPECT_EQ(cache.entry(kId).hits, 3u);
  cache.flow.look(cache.probe(kId), cache.now, false);
  EXPECT_EQ(cache.entry(kId).hits, 3u) << "a second look of the same call";
}

TEST(Flow, HitIsForTheSimplyFreshOnly) {
  Timed cache;
  const auto hit = [&] { return cache.flow.hit(cache.probe(kId), cache.now); };
  EXPECT_NE(hit(), kNone);
  cache.flow.set_watched(true, false);
  EXPECT_EQ(hit(), kNotFresh);
  EXPECT_TRUE(cache.flow.watched_loads());
  cache.flow.set_watched(false, false);
  cache.flow.invalidate_tag(99, false, cache.now);
  cache.look(kId);
  EXPECT_NE(hit(), kNone) << "looked at once since the mark, it is simply fresh again";
  cache.now += 80 * kSecond;
  EXPECT_EQ(hit(), kNotFresh);
  Traits::raises = true;
  EXPECT_EQ(hit(), kFindError);
}

TEST(Flow, HitsAreSaturated) {
  Cache cache;
  cache.set(kId, 10);
  Entry& e = cache.flow.memory()[cache.at(kId)];
  e.hits = ~std::uint32_t{0} - 1;
  for (int n = 0; n < 3; ++n) cache.look(kId);
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
  const auto peek = [&](Nanos offset) { return cache.flow.peek(cache.probe(kId), kStart + offset); };
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
  cache.set(kId, 10);
  const auto load = cache.lead(2);
  Traits::raises = true;
  EXPECT_EQ(cache.look(kId).step, Step::kError);
  EXPECT_EQ(cache.look(2).step, Step::kError);
  EXPECT_EQ(cache.flow.peek(cache.probe(kId), cache.now), kFindError);
  EXPECT_EQ(cache.set(kId, 11), Stored::kNotKept);
  EXPECT_EQ(cache.fail(*load, ErrorKind::kTransient).entry, kNone);
  Traits::raises = false;
  EXPECT_EQ(cache.value_at(cache.at(kId)), 10u);
}

// ---- scopes

TEST(Flow, ScopesDoNotShareKeysUnlessToldTo) {
  Cache cache;
  const ScopeId a = cache.add_scope(1, cache.defaults);
  const ScopeId b = cache.add_scope(1, cache.defaults);
  cache.set(kId, 10, a);
  EXPECT_EQ(cache.look(kId, b).step, Step::kLead);
  const ScopeId c = cache.add_scope(1, cache.defaults);
  cache.flow.scopes()[c].key_scope = a;
  cache.flow.scopes()[a].shares = cache.flow.scopes()[c].shares = true;
  EXPECT_EQ(cache.look(kId, c).step, Step::kReturn);
}

TEST(Flow, AReplacementMovesTheEntryToItsScope) {
  Cache cache;
  const ScopeId a = cache.add_scope(1, cache.defaults);
  const ScopeId b = cache.add_scope(1, cache.defaults);
  cache.flow.scopes()[b].key_scope = a;
  cache.flow.scopes()[a].shares = cache.flow.scopes()[b].shares = true;
  cache.weight = 30;
  cache.set(kId, 10, a);
  cache.weight = 50;
  cache.set(kId, 11, b);
  EXPECT_EQ(cache.stats(a).entries, 0u);
  EXPECT_EQ(cache.stats(a).bytes, 0u);
  EXPECT_EQ(cache.stats(b).entries, 1u);
  EXPECT_EQ(cache.stats(b).bytes, 50u);
  EXPECT_EQ(cache.flow.memory().bytes(), 50u);
}

TEST(Flow, ARetiredScopeLeavesNothingAndItsNumberStartsClean) {
  Cache cache;
  const ScopeId old = cache.add_scope(1, cache.defaults);
  cache.set(kId, 10, old);
  cache.set(kId, 20);
  const auto load = cache.lead(2, old);
  cache.flow.retire(old);
  cache.release_dead();
  EXPECT_FALSE(load->flight.attached);
  EXPECT_EQ(cache.flow.memory().size(), 1u) << "the other scope's entry stays";
  const ScopeId fresh = cache.add_scope(2, cache.defaults);
  ASSERT_EQ(fresh, old);
  EXPECT_EQ(cache.look(kId, fresh).step, Step::kLead);
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
  const auto load = cache.lead(kId, fresh);
  EXPECT_EQ(cache.commit(*load, 10), Stored::kStored);
  EXPECT_EQ(cache.look(kId, fresh).step, Step::kReturn);
}

}  // namespace
}  // namespace stillwarm
