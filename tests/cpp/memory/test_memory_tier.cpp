// The memory tier: limits, expiry before eviction, bounded work, accounting, and what a failed insert leaves behind.
#include "core/memory/memory_tier.hpp"

#include <gtest/gtest.h>

#include <random>

#include "support.hpp"

namespace stillwarm {
namespace {

using test::Cache;
using test::Item;

constexpr auto kExpired = static_cast<std::size_t>(Cause::kExpired);
constexpr auto kSize = static_cast<std::size_t>(Cause::kSize);

TEST(MemoryTier, TheLimitsHoldAfterEveryOperation) {
  for (const Limits limits : {Limits{50, 0}, Limits{0, 4'000}, Limits{40, 3'000}, Limits{1, 0}, Limits{0, 4}}) {
    Cache cache(limits);
    std::mt19937_64 random(51);
    for (int n = 0; n < 20'000; ++n) {
      const std::uint64_t id = random() % 200;
      cache.now += static_cast<Nanos>(random() % (2 * kSecond));
      cache.defaults.ttl = static_cast<Nanos>(random() % 100 + 1) * kSecond;
      cache.weight = random() % 16 == 0 ? random() % 2'000 : random() % 100 + 1;
      switch (random() % 4) {
        case 0:
          cache.look(id);
          break;
        case 1:
          cache.invalidate(id, random() % 2 == 0);
          break;
        default:
          cache.set(id, id);
      }
      const auto& memory = cache.flow.memory();
      ASSERT_TRUE(limits.max_entries == 0 || memory.size() <= limits.max_entries);
      ASSERT_TRUE(limits.max_bytes == 0 || memory.bytes() <= limits.max_bytes);
      ASSERT_EQ(cache.stats().entries, memory.size());
      ASSERT_EQ(cache.stats().bytes, memory.bytes());
      ASSERT_TRUE(n % 64 != 0 || cache.flow.check_invariants());
    }
  }
}

TEST(MemoryTier, TheLargestValueIsAQuarterOfTheBudget) {
  EXPECT_EQ(Cache({0, 1000}).flow.memory().largest(), 250u);
  EXPECT_EQ(Cache({10, 0}).flow.memory().largest(), 0xFFFFFFFFu);
  EXPECT_EQ(Cache({0, std::uint64_t{1} << 40}).flow.memory().largest(), 0xFFFFFFFFu);
}

TEST(MemoryTier, ExpiredEntriesGoBeforeLiveOnes) {
  Cache cache({100, 0});
  cache.defaults.ttl = 10 * kSecond;
  for (std::uint64_t id = 0; id < 20; ++id) cache.set(id, id);
  cache.defaults.ttl = kForever;
  for (std::uint64_t id = 20; id < 100; ++id) cache.set(id, id);
  cache.now += 60 * kSecond;
  for (std::uint64_t id = 100; id < 120; ++id) cache.set(id, id);
  EXPECT_EQ(cache.stats().removed[kSize], 0u) << "there was room in what had expired";
  EXPECT_EQ(cache.stats().removed[kExpired], 20u);
  for (std::uint64_t id = 20; id < 120; ++id) ASSERT_NE(cache.at(id), kNone) << id;
}

TEST(MemoryTier, OneCallRemovesABoundedNumberOfWhatExpired) {
  Cache cache({10'000, 0});
  cache.defaults.ttl = 10 * kSecond;
  for (std::uint64_t id = 0; id < 5'000; ++id) cache.set(id, id);
  cache.now += 60 * kSecond;
  std::size_t before = cache.flow.memory().size();
  int calls = 0;
  for (; before > 0 && calls < 1'000; ++calls) {
    cache.settle();
    const std::size_t now = cache.flow.memory().size();
    ASSERT_LE(before - now, MemoryTier<test::Traits>::kExpiryBudget);
    before = now;
  }
  EXPECT_EQ(before, 0u) << "and in the end all of it";
  EXPECT_LE(calls, 5'000 / 16);
  EXPECT_LE(cache.flow.memory().most_removed(), MemoryTier<test::Traits>::kExpiryBudget);
}

TEST(MemoryTier, WhatIsForeverIsNotScheduled) {
  Cache cache;
  cache.defaults.ttl = kForever;
  cache.set(1, 10);
  cache.now = kForever - 1;
  cache.settle();
  EXPECT_NE(cache.at(1), kNone);
}

TEST(MemoryTier, AReplacedValueLivesAsLongAsTheNewOneSays) {
  Cache cache;
  cache.defaults.ttl = 10 * kSecond;
  cache.set(1, 10);
  cache.defaults.ttl = 100 * kSecond;
  cache.set(1, 11);
  cache.now += 50 * kSecond;
  cache.settle();
  EXPECT_NE(cache.at(1), kNone);
  cache.defaults.ttl = 10 * kSecond;
  cache.set(1, 12);
  cache.now += 11 * kSecond;
  cache.settle();
  EXPECT_EQ(cache.at(1), kNone);
}

TEST(MemoryTier, ASoftInvalidationBringsTheRemovalForward) {
  Cache cache;
  cache.defaults = {1000 * kSecond, 10 * kSecond, 0, 0, 0, 0};
  cache.set(1, 10);
  cache.invalidate(1, true);
  cache.now += 11 * kSecond;
  cache.settle();
  EXPECT_EQ(cache.at(1), kNone);
}

TEST(MemoryTier, ReplaceReturnsTheOldValueAndKeepsTheKey) {
  Cache cache;
  cache.set(1, 10);
  const Index i = cache.at(1);
  const Handle key = cache.flow.memory()[i].key;
  Item* next = Item::make(11);
  Handle old = cache.flow.memory().replace(
      i, next, [&](Entry& e) { fill(e, cache.result(next), nullptr, 0, e.born, cache.now, 0); });
  EXPECT_EQ(Item::of(old)->id(), 10u);
  Item::of(old)->release();
  EXPECT_EQ(cache.at(1), i);
  EXPECT_EQ(cache.flow.memory()[i].key, key);
  EXPECT_EQ(cache.value_at(i), 11u);
}

TEST(MemoryTier, WhatIsDroppedWaitsToBeReleasedAndItsPlaceWithIt) {
  Cache cache;
  cache.set(1, 10);
  cache.set(2, 20);
  auto& memory = cache.flow.memory();
  const Index first = cache.at(1);
  memory.drop(first, Cause::kInvalidated);
  EXPECT_TRUE(memory.has_dead());
  EXPECT_FALSE(memory.live(first));
  EXPECT_EQ(Item::of(memory[first].value)->id(), 10u) << "still owned by the tier";
  EXPECT_TRUE(memory.check_invariants());
  memory.drop(cache.at(2), Cause::kInvalidated);
  for (int n = 0; n < 2; ++n) {
    const Dead dead = memory.take_dead();
    EXPECT_TRUE(memory.check_invariants()) << "whole before anything is released";
    Item::of(dead.key)->release();
    Item::of(dead.value)->release();
  }
  EXPECT_FALSE(memory.has_dead());
}

TEST(MemoryTier, EachVisitsAllAndMayDropThem) {
  Cache cache;
  for (std::uint64_t id = 0; id < 300; ++id) cache.set(id, id);
  std::size_t seen = 0;
  cache.flow.memory().each([&](Index i) {
    ++seen;
    if (i % 2 == 0) cache.flow.memory().drop(i, Cause::kInvalidated);
  });
  cache.release_dead();
  EXPECT_EQ(seen, 300u);
  EXPECT_TRUE(cache.flow.check_invariants());
}

TEST(MemoryTier, RemovalsAreCountedByCauseInTheScopeThatStored) {
  Cache cache({10, 0});
  const ScopeId scope = cache.add_scope(1, cache.defaults);
  for (std::uint64_t id = 0; id < 15; ++id) cache.set(id, id, scope);
  EXPECT_EQ(cache.stats(scope).removed[kSize], 5u);
  EXPECT_EQ(cache.stats(scope).entries, 10u);
  EXPECT_EQ(cache.stats(0).removed[kSize], 0u);
}

}  // namespace
}  // namespace stillwarm
