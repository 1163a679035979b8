// Policy: limits, progress and invariants under random use, and what it keeps on the patterns that break other
// policies.
#include <gtest/gtest.h>

#include <random>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/memory/policy.hpp"
#include "support.hpp"

namespace stillwarm {
namespace {

using test::scramble;

// A cache of keys without values.
class KeyCache {
 public:
  explicit KeyCache(Limits limits, std::uint64_t seed = 1) : policy_(slab_, limits, seed) {}

  bool get(std::uint64_t key, std::uint32_t weight = 1) {
    ++asked_;
    if (const auto it = index_.find(key); it != index_.end()) {
      Policy::on_hit(slab_[it->second]);
      ++hits_;
      return true;
    }
    policy_.reserve_for_insert();
    const Index i = slab_.allocate();
    slab_[i].hash = scramble(key);
    slab_[i].weight = weight;
    slab_[i].born = key;
    index_.emplace(key, i);
    policy_.on_insert(i);
    evict();
    return false;
  }

  void reweigh(std::uint64_t key, std::uint32_t weight) {
    Entry& e = slab_[index_.at(key)];
    const std::uint32_t old = std::exchange(e.weight, weight);
    policy_.on_reweigh(index_.at(key), old);
    evict();
  }

  void remove(std::uint64_t key) {
    const Index i = index_.at(key);
    policy_.on_remove(i);
    index_.erase(key);
    slab_.free(i);
  }

  void evict() {
    for (Index i = policy_.victim(); i != kNone; i = policy_.victim()) {
      ASSERT_NE(slab_[i].queue, Queue{}) << "a victim is in a list";
      index_.erase(slab_[i].born);
      policy_.on_remove(i);
      slab_.free(i);
    }
  }

  double hit_ratio() const { return static_cast<double>(hits_) / static_cast<double>(asked_); }
  void forget_counts() { hits_ = asked_ = 0; }

  Slab slab_;
  Policy policy_;
  std::unordered_map<std::uint64_t, Index> index_;
  std::uint64_t hits_ = 0;
  std::uint64_t asked_ = 0;
};

TEST(Policy, HoldsUpToTheLimitAndNotMore) {
  KeyCache cache({.max_entries = 100, .max_bytes = 0});
  for (std::uint64_t key = 0; key < 100; ++key) EXPECT_FALSE(cache.get(key));
  for (std::uint64_t key = 0; key < 100; ++key) EXPECT_TRUE(cache.get(key));
  for (std::uint64_t key = 100; key < 1000; ++key) {
    cache.get(key);
    ASSERT_EQ(cache.policy_.entries(), 100u);
  }
  EXPECT_TRUE(cache.policy_.check_invariants());
}

TEST(Policy, KeepsBothLimits) {
  KeyCache cache({.max_entries = 50, .max_bytes = 1000});
  for (std::uint64_t key = 0; key < 500; ++key) {
    cache.get(key, key < 250 ? 1 : 100);
    ASSERT_LE(cache.policy_.entries(), 50u);
    ASSERT_LE(cache.policy_.bytes(), 1000u);
  }
  EXPECT_TRUE(cache.policy_.entries() == 50 || cache.policy_.bytes() >= 900) << "one of the two is used up";
}

TEST(Policy, WorksWithTheSmallestLimits) {
  for (std::uint64_t limit : {1u, 2u, 3u}) {
    KeyCache cache({.max_entries = limit, .max_bytes = 0});
    for (std::uint64_t key = 0; key < 100; ++key) {
      cache.get(key);
      cache.get(key % 3);
      ASSERT_LE(cache.policy_.entries(), limit);
      ASSERT_GE(cache.policy_.entries(), 1u);
    }
  }
}

TEST(Policy, AnEntryLargerThanTheBudgetGoesAndTakesNobodyAlong) {
  KeyCache cache({.max_entries = 0, .max_bytes = 1000});
  for (std::uint64_t key = 0; key < 10; ++key) cache.get(key, 100);
  cache.get(77, 5000);
  EXPECT_FALSE(cache.index_.contains(77));
  EXPECT_EQ(cache.policy_.entries(), 10u);
  cache.reweigh(3, 4'000'000'000u);
  EXPECT_FALSE(cache.index_.contains(3));
  EXPECT_GE(cache.policy_.entries(), 8u);
  EXPECT_TRUE(cache.policy_.check_invariants());
}

TEST(Policy, ALowerLimitIsReachedByAskingForVictims) {
  KeyCache cache({.max_entries = 1000, .max_bytes = 0});
  for (std::uint64_t key = 0; key < 3000; ++key) cache.get(key % 1100);
  cache.policy_.set_limits({.max_entries = 10, .max_bytes = 0});
  cache.evict();
  EXPECT_EQ(cache.policy_.entries(), 10u);
  EXPECT_TRUE(cache.policy_.check_invariants());
}

TEST(Policy, AHitCountsOnlySaturating) {
  Entry e;
  for (int n = 0; n < 300; ++n) Policy::on_hit(e);
  EXPECT_EQ(e.touched, 255);
}

TEST(Policy, SurvivesRandomUse) {
  std::mt19937_64 random(5);
  for (const Limits limits : {Limits{64, 0}, Limits{0, 6400}, Limits{64, 6400}, Limits{1, 50}}) {
    KeyCache cache(limits);
    for (int step = 0; step < 40'000; ++step) {
      const std::uint64_t key = random() % 40 * (random() % 10);
      const auto weight = static_cast<std::uint32_t>(random() % 300);
      if (!cache.index_.contains(key) || random() % 4 != 0) {
        cache.get(key, weight);
      } else if (random() % 2 == 0) {
        cache.reweigh(key, weight);
      } else {
        cache.remove(key);
      }
      ASSERT_EQ(cache.policy_.entries(), cache.index_.size());
      ASSERT_TRUE(limits.max_entries == 0 || cache.policy_.entries() <= limits.max_entries);
      ASSERT_TRUE(limits.max_bytes == 0 || cache.policy_.bytes() <= limits.max_bytes);
      ASSERT_TRUE(step % 64 != 0 || cache.policy_.check_invariants());
    }
  }
}

TEST(Policy, AScanDoesNotFlushWhatIsUsed) {
  KeyCache cache({.max_entries = 1000, .max_bytes = 0});
  for (int round = 0; round < 10; ++round) {
    for (std::uint64_t key = 0; key < 700; ++key) cache.get(key);
  }
  for (std::uint64_t key = 1'000'000; key < 1'010'000; ++key) cache.get(key);
  cache.forget_counts();
  for (std::uint64_t key = 0; key < 700; ++key) cache.get(key);
  EXPECT_GT(cache.hit_ratio(), 0.75);
}

TEST(Policy, KeepsAPartOfALoopThatDoesNotFit) {
  KeyCache cache({.max_entries = 1000, .max_bytes = 0});
  for (std::uint64_t n = 0; n < 100'000; ++n) cache.get(n % 1500);
  EXPECT_GT(cache.hit_ratio(), 0.55);
}

TEST(Policy, FollowsWhenPopularityMoves) {
  KeyCache cache({.max_entries = 500, .max_bytes = 0});
  std::mt19937_64 random(3);
  for (std::uint64_t phase = 0; phase < 5; ++phase) {
    for (int n = 0; n < 30'000; ++n) cache.get(phase * 100'000 + random() % 400);
  }
  EXPECT_GT(cache.hit_ratio(), 0.90);
}

TEST(Policy, PrefersSmallEntriesWhenBytesAreShort) {
  KeyCache cache({.max_entries = 0, .max_bytes = 100'000});
  std::mt19937_64 random(9);
  for (int n = 0; n < 100'000; ++n) {
    const std::uint64_t key = random() % 2000;  // equally popular; every second one is 16 times as large
    cache.get(key, key % 2 == 0 ? 100 : 1600);
  }
  std::uint64_t small = 0;
  for (const auto& [key, i] : cache.index_) small += key % 2 == 0;
  EXPECT_GT(small, 800u);
}

TEST(Policy, OneLargeEntryDoesNotReplaceManySmallOnesThatAreUsedMore) {
  KeyCache cache({.max_entries = 0, .max_bytes = 100'000});
  for (int round = 0; round < 20; ++round) {
    for (std::uint64_t key = 0; key < 150; ++key) cache.get(key, 500);
    for (std::uint64_t key = 0; key < 5; ++key) cache.get(1000 + key, 20'000);
  }
  cache.forget_counts();
  for (std::uint64_t key = 0; key < 150; ++key) cache.get(key, 500);
  EXPECT_GT(cache.hit_ratio(), 0.95);
}

TEST(Policy, TheWindowClosesOnALoop) {
  KeyCache cache({.max_entries = 1000, .max_bytes = 0});
  for (std::uint64_t n = 0; n < 200'000; ++n) cache.get(n % 1500);
  EXPECT_LT(cache.policy_.window_share(), 0.05);
  EXPECT_LT(cache.policy_.window_entries(), 60u);
}

TEST(Policy, TheWindowOpensWhenOnlyTheNewIsWanted) {
  KeyCache cache({.max_entries = 300, .max_bytes = 0});
  std::mt19937_64 random(17);
  // Four requests for each new key, most of them soon after its birth, some later: made for LRU.
  for (std::uint64_t n = 0; n < 200'000; ++n) {
    const std::uint64_t age = random() % 4 == 0 ? random() % 400 : random() % 60;
    cache.get(n / 4 + 400 - age);
  }
  EXPECT_GT(cache.policy_.window_share(), 0.35);
}

TEST(Policy, OwnMemoryIsFourToTenBytesAnEntry) {
  for (const std::uint64_t entries : {5000u, 8192u, 9000u, 60'000u}) {
    KeyCache cache({.max_entries = entries, .max_bytes = 0});
    for (std::uint64_t key = 0; key < entries; ++key) cache.get(key);
    EXPECT_GE(cache.policy_.allocated_bytes(), entries * 4) << entries;
    EXPECT_LE(cache.policy_.allocated_bytes(), entries * 9 + 1024) << entries;
  }
}

TEST(Policy, AHashFloodCannotKeepAResidentForEver) {
  KeyCache cache({.max_entries = 100, .max_bytes = 0});
  for (std::uint64_t key = 0; key < 100; ++key) {
    for (int n = 0; n < 30; ++n) cache.get(key);
  }
  // All counters of the residents are at their top, and no candidate ever asks twice.
  for (std::uint64_t key = 1000; key < 21'000; ++key) cache.get(key);
  std::uint64_t left = 0;
  for (std::uint64_t key = 0; key < 100; ++key) left += cache.index_.contains(key);
  EXPECT_LT(left, 50u);
}

}  // namespace
}  // namespace stillwarm
