// The slab: indices, addresses that stay, reuse, and what an allocation that fails leaves behind.
#include <gtest/gtest.h>

#include <set>
#include <unordered_map>

#include "core/base/entry.hpp"
#include "support.hpp"

namespace stillwarm {
namespace {

TEST(Slab, NeverHandsOutTheIndexThatMeansNone) {
  Slab slab;
  std::set<Index> seen;
  for (int n = 0; n < 1'000; ++n) {
    const Index i = slab.allocate();
    ASSERT_NE(i, kNone);
    ASSERT_LT(i, slab.end());
    ASSERT_TRUE(seen.insert(i).second) << i << " was handed out twice";
  }
}

TEST(Slab, AddressesStayWhileItGrows) {
  Slab slab;
  std::unordered_map<Index, Entry*> where;
  for (int n = 0; n < 5'000; ++n) {
    const Index i = slab.allocate();
    where[i] = &slab[i];
  }
  for (const auto& [i, address] : where) ASSERT_EQ(&slab[i], address);
}

TEST(Slab, WhatWasFreedComesBackClean) {
  Slab slab;
  const Index first = slab.allocate();
  slab[first].hash = 99;
  slab[first].flags = 1;
  slab[first].queue = Queue::kProtected;
  slab.free(first);
  EXPECT_EQ(slab[first].queue, Queue::kNowhere) << "a scan must not take it for live";
  const Index again = slab.allocate();
  EXPECT_EQ(again, first);
  EXPECT_EQ(slab[again].hash, 0u);
  EXPECT_EQ(slab[again].flags, kFlagQuiet);
  EXPECT_EQ(slab[again].newer, kNone) << "the link of the free list is gone";
}

TEST(Slab, DoesNotGrowWhileThereAreFreeOnes) {
  Slab slab;
  for (int n = 0; n < 100'000; ++n) slab.free(slab.allocate());
  EXPECT_EQ(slab.end(), 256u);
}

TEST(Slab, FailedAllocationChangesNothing) {
  Slab slab;
  for (int round = 0; round < 20; ++round) {
    Index got = kNone;
    const Index end = slab.end();
    test::with_failing_allocations([&] { got = slab.allocate(); }, [&] { EXPECT_EQ(slab.end(), end); });
    ASSERT_NE(got, kNone);
    for (int n = 0; n < 254; ++n) slab.allocate();
  }
}

}  // namespace
}  // namespace stillwarm
