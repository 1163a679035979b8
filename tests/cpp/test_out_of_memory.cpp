// Every allocation of every operation fails once: nothing is lost, nothing leaks, and what was there is still served.
#include <gtest/gtest.h>

#include "core/flow.hpp"
#include "support.hpp"

namespace stillwarm {
namespace {

using test::Cache;
using test::Item;
using test::with_failing_allocations;

// What must be true after an operation that threw.
class Unchanged {
 public:
  explicit Unchanged(Cache& cache) : cache_(cache) { note(); }
  void note() {
    size_ = cache_.flow.memory().size();
    bytes_ = cache_.flow.memory().bytes();
    flights_ = cache_.flow.flights().size();
    alive_ = Item::alive();
  }
  void operator()() const {
    ASSERT_TRUE(cache_.flow.check_invariants());
    ASSERT_EQ(cache_.flow.memory().size(), size_);
    ASSERT_EQ(cache_.flow.memory().bytes(), bytes_);
    ASSERT_EQ(cache_.flow.flights().size(), flights_);
    ASSERT_EQ(Item::alive(), alive_);
  }

 private:
  Cache& cache_;
  std::size_t size_ = 0;
  std::uint64_t bytes_ = 0;
  std::size_t flights_ = 0;
  std::int64_t alive_ = 0;
};

TEST(OutOfMemory, SetOfNewKeys) {
  for (const bool tagged : {false, true}) {
    Cache cache({2000, 0});
    Unchanged unchanged(cache);
    cache.own_durations = tagged;
    if (tagged) cache.tags = {1, 2};
    int failures = 0;
    for (std::uint64_t id = 0; id < 1'000; ++id) {
      failures += with_failing_allocations([&] { cache.set(id, id); }, unchanged);
      ASSERT_EQ(cache.value_at(cache.at(id)), id);
      unchanged.note();
    }
    EXPECT_GT(failures, tagged ? 2'000 : 10) << "table, sketch, slab, extra and tags all had to grow";
  }
}

TEST(OutOfMemory, SetOverAnOldValueKeepsItUntilItSucceeds) {
  Cache cache;
  cache.tags = {1, 2};
  cache.set(7, 70);
  const Unchanged unchanged(cache);
  const int failures = with_failing_allocations([&] { cache.set(7, 71); },
                                                [&] {
                                                  unchanged();
                                                  ASSERT_EQ(cache.value_at(cache.at(7)), 70u);
                                                });
  EXPECT_GT(failures, 0);
  EXPECT_EQ(cache.value_at(cache.at(7)), 71u);
}

TEST(OutOfMemory, LeadAndCommit) {
  Cache cache({2000, 0});
  cache.tags = {1};
  Unchanged unchanged(cache);
  std::vector<std::unique_ptr<test::Load>> loads(600);
  for (std::uint64_t id = 0; id < loads.size(); ++id) {
    with_failing_allocations([&] { loads[id] = cache.lead(id); }, unchanged);
    ASSERT_TRUE(loads[id]->flight.attached);
    unchanged.note();
  }
  EXPECT_EQ(cache.stats().misses, loads.size()) << "a miss that failed to start is not counted";
  for (std::uint64_t id = 0; id < loads.size(); ++id) {
    Stored stored = Stored::kNotKept;
    with_failing_allocations([&] { stored = cache.commit(*loads[id], id); }, unchanged);
    ASSERT_EQ(stored, Stored::kStored);
    unchanged.note();
  }
}

TEST(OutOfMemory, CommitOverAnOldValue) {
  Cache cache;
  cache.tags = {1};
  cache.set(7, 70);
  const auto load = cache.lead(7, 0, true);
  const Unchanged unchanged(cache);
  EXPECT_GT(with_failing_allocations([&] { cache.commit(*load, 71); }, unchanged), 0);
  EXPECT_EQ(cache.value_at(cache.at(7)), 71u);
}

TEST(OutOfMemory, InvalidationsAreDoneAllTheSame) {
  for (const int form : {0, 1, 2, 3, 4}) {
    for (int n = 0; n < 4; ++n) {
      Cache cache;
      const ScopeId scope = cache.add_scope(9, cache.defaults);
      cache.tags = {5};
      cache.set(7, 70, scope);
      const auto load = cache.lead(8, scope);
      test::allocations_left = n;
      switch (form) {
        case 0:
          cache.flow.invalidate_type(9, false, cache.now);
          break;
        case 1:
          cache.flow.invalidate_scope(scope, false, cache.now);
          break;
        case 2:
          cache.flow.invalidate_tag(5, false, cache.now);
          break;
        case 3:
          cache.flow.clear(scope);
          break;
        default:
          cache.flow.retire(scope);
      }
      test::allocations_left = -1;
      cache.release_dead();
      EXPECT_EQ(cache.look(7, scope).step, Step::kLead) << form;
      EXPECT_EQ(cache.commit(*load, 80), Stored::kLost) << form;
    }
  }
}

TEST(OutOfMemory, AFailureWithoutMemoryForItsPauseServesAllTheSame) {
  Cache cache;
  cache.defaults = {10 * kSecond, 0, 50 * kSecond, 0, 0, 0};
  cache.flow.scopes()[0].durations = cache.defaults;
  cache.own_durations = false;
  cache.set(7, 70);
  cache.now += 20 * kSecond;
  auto load = cache.lead(7);
  test::allocations_left = 0;
  const Failure f = cache.fail(*load, ErrorKind::kTransient);
  test::allocations_left = -1;
  ASSERT_NE(f.entry, kNone);
  load.reset();
  EXPECT_EQ(cache.look(7).step, Step::kLead);
}

TEST(OutOfMemory, HousekeepingAllocatesNothing) {
  Cache cache({100, 0});
  for (std::uint64_t id = 0; id < 300; ++id) cache.set(id, id);
  cache.flow.invalidate_all(true, cache.now);
  cache.now += 5 * kSecond;
  test::allocations_left = 0;
  cache.settle();
  for (std::uint64_t id = 0; id < 300; ++id) cache.look(id);
  for (std::uint64_t id = 0; id < 300; ++id) cache.invalidate(id);
  cache.settle();
  test::allocations_left = -1;
  EXPECT_EQ(cache.flow.memory().size(), 0u);
}

}  // namespace
}  // namespace stillwarm
