// Flow with a remote tier: what is returned before and after `attention`, while the tier is away, and what is adopted.
#include <gtest/gtest.h>

#include <atomic>
#include <map>

#include "core/flow.hpp"
#include "support.hpp"

namespace stillwarm {
namespace {

using test::Cache;
using test::Item;
using test::kId;
using test::kStart;

// One entry: 100 s, of which 80 fresh; stale to 120 where `swr`, failsafe to 150. Memory is trusted until kStart + 1 s.
struct Trusting : Cache {
  explicit Trusting(bool strict = false, Nanos swr = 20 * kSecond) {
    defaults = {100 * kSecond, swr, 50 * kSecond, 7 * kSecond, 0.8, 0};
    flow.scopes()[0].durations = defaults;
    flow.set_attention(attention, strict);
    set(kId, 10);
  }
  Index hit() { return flow.hit(probe(kId), now); }
  Decision look_away() {
    const Decision d = flow.look(probe(kId), now, true, false, Asked::kAway);
    release_dead();
    return d;
  }
  std::unique_ptr<test::Load> lead_after(const Decision& d) {
    auto load = std::make_unique<test::Load>(flow, probe(kId));
    load->flight.found_nothing = d.nothing();
    flow.lead(load->flight, now, true);
    return load;
  }
  Stored adopt(test::Load& load, std::uint64_t value, Nanos fresh_left) {
    Item* item = Item::make(value);
    bool took = false;
    load.key->retain();
    const Outcome o = flow.adopt(load.flight, probe(load.key->id()), result(item), fresh_left, took, now);
    if (!took) load.key->release();
    if (o.stored != Stored::kStored) item->release();
    if (o.released != nullptr) Item::of(o.released)->release();
    release_dead();
    return o.stored;
  }
  std::atomic<Nanos> attention{kStart + kSecond};
};

TEST(FlowTrust, AHitIsAllowedBeforeAttentionOnly) {
  Trusting cache;
  cache.now = kStart + kSecond - 1;
  EXPECT_TRUE(is_entry(cache.hit()));
  EXPECT_EQ(cache.look(kId).step, Step::kReturn);
  cache.now = kStart + kSecond;
  EXPECT_EQ(cache.hit(), kNotFresh);
  const Decision d = cache.look(kId);
  EXPECT_EQ(d.step, Step::kConfirm);
  EXPECT_EQ(cache.value_at(d.entry), 10u);
  EXPECT_EQ(cache.stats().hits, 1u) << "a call that has to ask the tier is not counted yet";
  cache.attention = kStart + 2 * kSecond;  // it was asked
  EXPECT_TRUE(is_entry(cache.hit()));
}

TEST(FlowTrust, AKeyThatWasConfirmedByItselfIsServedAsItIs) {
  Trusting cache(true);
  cache.attention = 0;
  const Decision d = cache.flow.look(cache.probe(kId), cache.now, true, false, Asked::kConfirmed);
  EXPECT_EQ(d.step, Step::kReturn);
  EXPECT_EQ(cache.value_at(d.entry), 10u);
  EXPECT_EQ(cache.look(kId).step, Step::kConfirm) << "that one time";
}

TEST(FlowTrust, AMessageThatWaitsStopsEveryHit) {
  Trusting cache;
  ASSERT_TRUE(is_entry(cache.hit()));
  cache.attention = 0;
  EXPECT_EQ(cache.hit(), kNotFresh);
  EXPECT_EQ(cache.look(kId).step, Step::kConfirm);
}

TEST(FlowTrust, EveryStateThatMightBeServedIsConfirmedFirst) {
  for (const Nanos at : {0, 80, 100, 120}) {
    Trusting cache;
    cache.attention = 0;
    cache.now = kStart + at * kSecond;
    EXPECT_EQ(cache.look(kId).step, Step::kConfirm) << at;
  }
  Trusting cache;
  cache.attention = 0;
  cache.now = kStart + 150 * kSecond;
  EXPECT_EQ(cache.look(kId).step, Step::kLead) << "there is nothing to confirm";
  EXPECT_EQ(cache.look(2).step, Step::kLead);
}

TEST(FlowTrust, ALoadThatIsWantedInAnyCaseAsksNobody) {
  Trusting cache;
  cache.attention = 0;
  EXPECT_EQ(cache.flow.look(cache.probe(kId), cache.now, true, true).step, Step::kLead);
}

TEST(FlowTrust, AwayFreshCountsAsStaleWhereThatIsAllowed) {
  for (const Nanos at : {2, 85}) {
    Trusting cache;
    cache.now = kStart + at * kSecond;
    const Decision d = cache.look_away();
    EXPECT_EQ(d.step, Step::kRefresh) << at;
    EXPECT_EQ(d.state, State::kStale);
    EXPECT_EQ(cache.stats().stale_hits, 1u);
    EXPECT_EQ(cache.stats().hits, 0u);
  }
}

TEST(FlowTrust, AwayFreshCountsAsFailsafeOtherwise) {
  for (const Nanos at : {2, 85}) {
    Trusting cache(false, 0);
    cache.now = kStart + at * kSecond;
    const Decision d = cache.look_away();
    EXPECT_EQ(d.step, Step::kLead) << at;
    EXPECT_EQ(d.state, State::kFailsafe);
    EXPECT_EQ(cache.value_at(d.entry), 10u) << "the value to fall back to";
    EXPECT_FALSE(d.nothing());
    const auto load = cache.lead_after(d);
    const Failure f = cache.fail(*load, ErrorKind::kTransient);
    EXPECT_EQ(cache.value_at(f.entry), 10u);
    EXPECT_EQ(cache.look_away().step, Step::kReturn) << "the next attempt waits";
  }
}

TEST(FlowTrust, StrictNeverReturnsWhatIsNotTrusted) {
  for (const Nanos at : {2, 85, 101, 121}) {
    Trusting cache(true);
    cache.now = kStart + at * kSecond;
    EXPECT_EQ(cache.look(kId).step, Step::kConfirm) << at;
    const Decision d = cache.look_away();
    EXPECT_EQ(d.step, Step::kLead) << at;
    EXPECT_EQ(d.entry, kNone);
    const auto load = cache.lead_after(d);
    EXPECT_EQ(cache.fail(*load, ErrorKind::kTransient).entry, kNone) << "not after an error either: " << at;
    EXPECT_EQ(cache.stats().hits + cache.stats().stale_hits, 0u);
  }
}

// An entry that may not be returned is absent for the caller, and there for the table.
TEST(FlowTrust, ALoadBesideAnEntryThatIsNotTrustedReplacesIt) {
  for (const bool negative : {false, true}) {
    Trusting cache(!negative);
    if (negative) {
      const auto load = cache.lead(kId);
      ASSERT_EQ(cache.commit(*load, 0, true), Stored::kStored);
    }
    cache.now = kStart + 2 * kSecond;
    const Decision d = cache.look_away();
    ASSERT_EQ(d.step, Step::kLead);
    EXPECT_FALSE(d.nothing());
    const auto load = cache.lead_after(d);
    ASSERT_EQ(cache.commit(*load, 11), Stored::kStored);
    EXPECT_EQ(cache.flow.memory().size(), 1u);
    EXPECT_TRUE(cache.flow.check_invariants());
    cache.attention = kForever;
    EXPECT_EQ(cache.value_at(cache.look(kId).entry), 11u);
    EXPECT_TRUE(cache.invalidate(kId));
    EXPECT_EQ(cache.at(kId), kNone) << "no second entry was below it";
  }
}

TEST(FlowTrust, AnAbsenceIsNotServedWhileTheTierIsAway) {
  Trusting cache;
  const auto load = cache.lead(2);
  ASSERT_EQ(cache.commit(*load, 0, true), Stored::kStored);
  cache.flow.finish(load->flight);
  EXPECT_EQ(cache.look(2).step, Step::kAbsent);
  cache.attention = 0;
  EXPECT_EQ(cache.look(2).step, Step::kConfirm);
  EXPECT_EQ(cache.flow.look(cache.probe(2), cache.now, true, false, Asked::kAway).step, Step::kLead);
}

TEST(FlowTrust, WhatIsLoadedWhileTheTierIsAwayIsServedForTenSeconds) {
  for (const Nanos swr : {20 * kSecond, Nanos{0}}) {
    Trusting cache(false, swr);
    cache.attention = 0;
    {
      const auto load = cache.lead_after(cache.look_away());
      ASSERT_EQ(cache.commit(*load, 11), Stored::kStored);
    }
    cache.now = kStart + 10 * kSecond - 1;
    EXPECT_EQ(cache.hit(), kNotFresh) << "the tier is asked whether it is back";
    const Decision d = cache.look_away();
    EXPECT_EQ(d.step, Step::kReturn);
    EXPECT_EQ(cache.value_at(d.entry), 11u);
    cache.now = kStart + 10 * kSecond;
    EXPECT_EQ(cache.look_away().step, swr > 0 ? Step::kRefresh : Step::kLead);
    cache.now = kStart + 5 * kSecond;
    cache.attention = kForever;
    EXPECT_TRUE(is_entry(cache.hit())) << "the tier is back and has nothing against it";
  }
}

TEST(FlowTrust, OrForItsTtlIfThatIsShorter) {
  Trusting cache;
  cache.attention = 0;
  cache.defaults.ttl = 3 * kSecond;
  {
    const auto load = cache.lead_after(cache.look_away());
    ASSERT_EQ(cache.commit(*load, 11), Stored::kStored);
  }
  cache.now = kStart + 3 * kSecond - 1;
  EXPECT_EQ(cache.look_away().step, Step::kReturn);
  cache.now = kStart + 3 * kSecond;
  EXPECT_EQ(cache.look_away().step, Step::kRefresh) << "it is stale, tier or no tier";
}

TEST(FlowTrust, AnAdoptedValueHasWhatIsLeftOfItsTtl) {
  Trusting cache;
  cache.attention = kForever;
  const auto load = cache.lead(2);
  ASSERT_EQ(cache.adopt(*load, 12, 30 * kSecond), Stored::kStored);
  cache.flow.finish(load->flight);
  // The early window is a fifth of the whole ttl: it began 20 s before the end.
  cache.now = kStart + 10 * kSecond - 1;
  EXPECT_EQ(cache.state(2), State::kFresh);
  cache.now = kStart + 10 * kSecond + 10;  // a part of a ttl is rounded
  EXPECT_EQ(cache.state(2), State::kEarly);
  EXPECT_EQ(cache.look(2).step, Step::kRefresh);
  cache.now = kStart + 30 * kSecond;
  EXPECT_EQ(cache.state(2), State::kStale);
  cache.now = kStart + 50 * kSecond;
  EXPECT_EQ(cache.state(2), State::kFailsafe);
  cache.now = kStart + 80 * kSecond;
  EXPECT_EQ(cache.state(2), State::kGone);
}

TEST(FlowTrust, AnAdoptedValueThatIsStaleIsStale) {
  for (const double early : {0.0, 0.8}) {
    Trusting cache;
    cache.attention = kForever;
    cache.defaults.early = early;
    const struct {
      Nanos left;
      State state;
    } rows[] = {{-1, State::kStale},
                {-19 * kSecond, State::kStale},
                {-20 * kSecond, State::kFailsafe},
                {-49 * kSecond, State::kFailsafe},
                {-50 * kSecond, State::kGone},
                {-1000 * kSecond, State::kGone}};
    std::uint64_t key = 10;
    for (const auto& row : rows) {
      const auto load = cache.lead(++key);
      ASSERT_EQ(cache.adopt(*load, 12, row.left), Stored::kStored);
      cache.flow.finish(load->flight);
      EXPECT_EQ(cache.state(key), row.state) << row.left;
    }
  }
}

TEST(FlowTrust, AnAdoptedValueThatIsKeptIsOfferedAndNotReturned) {
  Trusting cache;
  cache.attention = kForever;
  cache.defaults.keep = 50 * kSecond;
  const auto load = cache.lead(2);
  ASSERT_EQ(cache.adopt(*load, 12, -60 * kSecond), Stored::kStored);
  cache.flow.finish(load->flight);
  EXPECT_EQ(cache.look(2).step, Step::kLead);
  EXPECT_NE(cache.flow.revivable(cache.probe(2), cache.now), kNone);
}

TEST(FlowTrust, AnAdoptedValueForEverStaysForEver) {
  Trusting cache;
  cache.attention = kForever;
  cache.defaults.ttl = kForever;
  const auto load = cache.lead(2);
  ASSERT_EQ(cache.adopt(*load, 12, kForever), Stored::kStored);
  cache.flow.finish(load->flight);
  cache.now = kStart + 1'000'000 * kSecond;
  EXPECT_EQ(cache.state(2), State::kFresh);
}

TEST(FlowTrust, AdoptionIsFencedLikeALoad) {
  Trusting cache;
  cache.attention = kForever;
  const auto load = cache.lead(2);
  cache.invalidate(2);
  EXPECT_EQ(cache.adopt(*load, 12, 30 * kSecond), Stored::kLost);
  EXPECT_EQ(cache.at(2), kNone);
}

// ---- hits, as a tier is told of them

struct Noting : Trusting {
  using Counts = std::map<std::uint64_t, std::uint64_t>;
  Noting() {
    attention = kForever;
    flow.note_hits();
  }
  ~Noting() { take(); }
  void hit(std::uint64_t key, int times = 1) {
    for (int i = 0; i < times; ++i) EXPECT_TRUE(is_entry(flow.hit(probe(key), now)));
    told[key] += static_cast<std::uint64_t>(times);
  }
  void take() {
    flow.memory().take_hits([this](Handle key, ScopeId, std::uint32_t hits, bool given) {
      taken[Item::of(key)->id()] += hits;
      if (given) Item::of(key)->release();
    });
  }
  Counts told, taken;
};

TEST(FlowTrust, HitsAreTakenExactlyOnce) {
  Noting cache;
  cache.set(2, 20);
  cache.hit(kId, 3);
  cache.take();
  cache.take();
  EXPECT_EQ(cache.taken, cache.told);
  cache.hit(kId);
  cache.hit(2, 2);
  cache.take();
  EXPECT_EQ(cache.taken, cache.told);
}

TEST(FlowTrust, HitsSurviveRemovalReplacementAndEviction) {
  Noting cache;
  cache.hit(kId, 2);
  cache.set(kId, 11);  // replaced
  cache.hit(kId, 3);
  cache.invalidate(kId);
  cache.set(kId, 12);  // another entry under the same key
  cache.hit(kId, 4);
  cache.take();
  EXPECT_EQ(cache.taken, cache.told);
  cache.hit(kId);
  cache.now = kStart + 200 * kSecond;
  cache.settle();  // expired
  EXPECT_EQ(cache.at(kId), kNone);
  cache.take();
  EXPECT_EQ(cache.taken, cache.told);
}

TEST(FlowTrust, HitsOfManyEntriesThatEachOtherEvictAreExact) {
  Noting cache;
  cache.flow.memory().set_limits({50, 0});
  std::uint64_t x = 7;
  for (int i = 0; i < 20'000; ++i) {
    x = test::scramble(x + 1);
    const std::uint64_t key = 100 + x % 200;
    if (cache.at(key) == kNone) cache.set(key, key);
    if (cache.at(key) != kNone) cache.hit(key);
    if (x % 97 == 0) cache.take();
    if (x % 89 == 0) cache.invalidate(key);
  }
  cache.take();
  EXPECT_EQ(cache.taken, cache.told);
}

}  // namespace
}  // namespace stillwarm
