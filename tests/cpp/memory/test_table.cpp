// The hash table: random use against a model, colliding hashes, comparisons that change it, failing memory.
#include "core/memory/table.hpp"

#include <gtest/gtest.h>

#include <iterator>
#include <random>
#include <unordered_map>

#include "support.hpp"

namespace stillwarm {
namespace {

using test::Item;
using test::one_hash;
using test::Probe;
using test::Traits;

class Keys {
 public:
  using Hash = std::uint64_t (*)(std::uint64_t);
  explicit Keys(Hash hash = test::scramble) : table(slab), hash_(hash) { Traits::reset(); }
  ~Keys() {
    Traits::reset();
    for (const auto& [id, index] : model) Item::of(slab[index].key)->release();
  }

  Probe probe(std::uint64_t id) const { return {hash_(id), 0, id, nullptr}; }
  Index find(std::uint64_t id) { return table.find(probe(id)); }
  void add(std::uint64_t id) {
    table.reserve_one();
    const Index i = slab.allocate();
    slab[i].key = Item::make(id);
    slab[i].hash = hash_(id);
    table.insert(i);
    model[id] = i;
  }
  void remove(std::uint64_t id) {
    const Index i = model.at(id);
    table.erase(i);
    Item::of(slab[i].key)->release();
    slab.free(i);
    model.erase(id);
  }

  Slab slab;
  Table<Traits> table;
  std::unordered_map<std::uint64_t, Index> model;

 private:
  Hash hash_;
};

void use_at_random(Keys& keys, std::uint64_t range, int rounds, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  for (int n = 0; n < rounds; ++n) {
    const std::uint64_t id = random() % range;
    const auto it = keys.model.find(id);
    ASSERT_EQ(keys.find(id), it == keys.model.end() ? kNone : it->second);
    if (it == keys.model.end()) {
      keys.add(id);
    } else if (random() % 2 == 0) {
      keys.remove(id);
    }
    ASSERT_EQ(keys.table.size(), keys.model.size());
    ASSERT_TRUE(n % 256 != 0 || keys.table.check_invariants());
  }
  for (std::uint64_t id = 0; id < range; ++id) {
    const auto it = keys.model.find(id);
    ASSERT_EQ(keys.find(id), it == keys.model.end() ? kNone : it->second);
  }
  while (!keys.model.empty()) keys.remove(keys.model.begin()->first);
  EXPECT_TRUE(keys.table.check_invariants());
}

TEST(Table, AgreesWithAModelUnderRandomUse) {
  Keys keys;
  use_at_random(keys, 3'000, 60'000, 41);
}

TEST(Table, ShiftsBackCorrectlyWhenHomesCrowd) {
  // Few homes, at the end of the table: runs that wrap, and neighbours with homes of their own between them.
  Keys keys([](std::uint64_t id) { return (std::uint64_t{0xFFFFFFF8} + id % 11) << 32 | id; });
  use_at_random(keys, 120, 60'000, 42);
}

TEST(Table, BearsHashesThatAreAllEqual) {
  Keys keys([](std::uint64_t) { return std::uint64_t{7} << 32; });
  use_at_random(keys, 40, 10'000, 43);
}

TEST(Table, AsksForNoComparisonWhenHashesDiffer) {
  Keys keys([](std::uint64_t id) { return std::uint64_t{5} << 32 | id; });  // the same tag
  for (std::uint64_t id = 0; id < 10; ++id) keys.add(id);
  Traits::compared = 0;
  EXPECT_NE(keys.find(9), kNone);
  EXPECT_EQ(Traits::compared, 1);
  EXPECT_EQ(keys.find(99), kNone);
  EXPECT_EQ(Traits::compared, 1);
}

TEST(Table, GenerationMovesWithEveryChange) {
  Keys keys;
  std::uint64_t before = keys.table.generation();
  for (std::uint64_t id = 0; id < 50; ++id) {
    keys.add(id);
    EXPECT_GT(keys.table.generation(), before);
    before = keys.table.generation();
  }
  keys.remove(3);
  EXPECT_GT(keys.table.generation(), before);
  before = keys.table.generation();
  keys.find(4);
  EXPECT_EQ(keys.table.generation(), before);
}

TEST(Table, AComparisonMayEraseWhatItComparesWith) {
  Keys keys(one_hash);
  keys.add(1);
  keys.add(2);
  Traits::once([&] { keys.remove(1); });
  EXPECT_EQ(keys.find(1), kNone);
  EXPECT_EQ(Traits::compared, 2) << "it looked again, at what is left";
}

TEST(Table, AComparisonMayMakeItGrow) {
  Keys keys(one_hash);
  for (std::uint64_t id = 0; id < 5; ++id) keys.add(id);
  Traits::once([&] {
    for (std::uint64_t id = 100; id < 200; ++id) keys.add(id);
  });
  EXPECT_EQ(keys.find(4), keys.model.at(4));
  EXPECT_TRUE(keys.table.check_invariants());
}

TEST(Table, AComparisonMayPutAnotherEntryInItsPlace) {
  Keys keys(one_hash);
  keys.add(1);
  Traits::once([&] {
    keys.remove(1);
    keys.add(1);
    keys.add(3);
  });
  const Index found = keys.find(1);
  EXPECT_EQ(found, keys.model.at(1));
}

TEST(Table, AComparisonMayEmptyIt) {
  Keys keys(one_hash);
  for (std::uint64_t id = 0; id < 30; ++id) keys.add(id);
  Traits::once([&] {
    while (!keys.model.empty()) keys.remove(keys.model.begin()->first);
  });
  EXPECT_EQ(keys.find(29), kNone);
}

TEST(Table, RandomForeignCodeNeverMisleadsALookUp) {
  Keys keys([](std::uint64_t id) { return id % 5 << 32; });
  std::mt19937_64 random(44);
  for (int n = 0; n < 20'000; ++n) {
    if (n % 2 == 0) {
      Traits::once([&] {
        const std::uint64_t id = random() % 40;
        keys.model.contains(id) ? keys.remove(id) : keys.add(id);
      });
    }
    const std::uint64_t id = random() % 40;
    const Index found = keys.find(id);
    Traits::foreign = nullptr;
    const auto it = keys.model.find(id);
    ASSERT_EQ(found, it == keys.model.end() ? kNone : it->second);
    if (it == keys.model.end()) {
      keys.add(id);
    } else if (random() % 2 == 0) {
      keys.remove(id);
    }
  }
}

TEST(Table, AComparisonThatNeverSettlesEndsWithAnError) {
  Keys keys(one_hash);
  keys.add(1);
  Traits::foreign = [&] { keys.model.contains(50) ? keys.remove(50) : keys.add(50); };
  EXPECT_EQ(keys.find(1), kFindError);
  EXPECT_EQ(Traits::unsettled, 1);
  EXPECT_EQ(Traits::compared, kFindRestarts);
}

TEST(Table, AFailedComparisonIsAnError) {
  Keys keys;
  keys.add(1);
  Traits::raises = true;
  EXPECT_EQ(keys.find(1), kFindError);
  EXPECT_EQ(Traits::unsettled, 0);
}

TEST(Table, FailedGrowthChangesNothing) {
  Keys keys;
  for (std::uint64_t id = 0; id < 500; ++id) {
    const std::uint64_t generation = keys.table.generation();
    test::with_failing_allocations([&] { keys.table.reserve_one(); },
                                   [&] { ASSERT_EQ(keys.table.generation(), generation); });
    keys.add(id);
    ASSERT_EQ(keys.find(id), keys.model.at(id));
  }
  EXPECT_TRUE(keys.table.check_invariants());
}

}  // namespace
}  // namespace stillwarm
