// Scopes: numbers, addresses, reuse, and counters that are reset without losing what is stored.
#include "core/base/scope.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "support.hpp"

namespace stillwarm {
namespace {

TEST(ScopeTable, NumbersAreDenseAndNameTheirOwnKeys) {
  ScopeTable scopes;
  for (ScopeId id = 0; id < 10; ++id) {
    const Scope& scope = scopes.add(id + 100, "f", id);
    EXPECT_EQ(scope.id, id);
    EXPECT_EQ(scope.key_scope, id);
    EXPECT_EQ(scope.type, id + 100);
    EXPECT_TRUE(scope.in_use);
  }
  EXPECT_EQ(scopes.size(), 10u);
}

TEST(ScopeTable, AddressesStayWhileItGrows) {
  ScopeTable scopes;
  const Stats* first = &scopes.add(0, "first", 0).stats;
  for (int n = 0; n < 1'000; ++n) scopes.add(0, "more", 0);
  EXPECT_EQ(&scopes[0].stats, first) << "the hot path keeps this address";
}

TEST(ScopeTable, AFreedNumberIsUsedAgainAndStartsClean) {
  ScopeTable scopes;
  scopes.add(0, "a", 0);
  Scope& old = scopes.add(7, "b", 1);
  old.stats.hits = 5;
  old.shares = old.single = true;
  old.key_scope = 0;
  old.durations.ttl = 1;
  scopes.remove(1);
  EXPECT_FALSE(scopes[1].in_use);
  const Scope& fresh = scopes.add(8, "c", 2);
  EXPECT_EQ(fresh.id, 1u);
  EXPECT_EQ(fresh.key_scope, 1u);
  EXPECT_EQ(fresh.type, 8u);
  EXPECT_EQ(fresh.name, "c");
  EXPECT_EQ(fresh.stats.hits, 0u);
  EXPECT_FALSE(fresh.shares || fresh.single);
  EXPECT_EQ(fresh.durations.ttl, kForever);
  EXPECT_EQ(scopes.add(9, "d", 3).id, 2u) << "nothing is free any more";
}

TEST(ScopeTable, FailedAddLeavesNoScopeBehind) {
  ScopeTable scopes;
  for (ScopeId n = 0; n < 40; ++n) {
    test::with_failing_allocations(
        [&] { scopes.add(1, "a name that is too long for the small buffer of a string", n); },
        [&] {
          ASSERT_LE(scopes.size(), n);  // deque may grow its map, not its elements
        });
    ASSERT_EQ(scopes.size(), n + 1);
    ASSERT_TRUE(scopes[n].in_use);
  }
  test::allocations_left = 0;  // to free all needs no memory
  for (ScopeId n = 0; n < 40; ++n) scopes.remove(n);
  test::allocations_left = -1;
  for (ScopeId n = 0; n < 40; ++n) EXPECT_LT(scopes.add(1, "", 0).id, 40u);
}

TEST(Stats, ResetKeepsWhatIsStored) {
  Stats stats;
  stats.hits = 1;
  stats.load_time = 2;
  stats.removed[2] = 3;
  stats.entries = 4;
  stats.bytes = 5;
  stats.reset_counters();
  EXPECT_EQ(stats.hits, 0u);
  EXPECT_EQ(stats.load_time, 0);
  EXPECT_EQ(stats.removed[2], 0u);
  EXPECT_EQ(stats.entries, 4u);
  EXPECT_EQ(stats.bytes, 5u);
}

}  // namespace
}  // namespace stillwarm
