// Marks: ties, the epoch, hard and soft, the bound on tags with its floor, and invalidations without memory.
#include "core/fence/marks.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include "support.hpp"

namespace stillwarm {
namespace {

using Tags = std::vector<std::uint64_t>;

constexpr TypeId kTypeId = 3;
constexpr ScopeId kScopeId = 5;

Verdict check(const Marks& marks, std::uint64_t born, const Tags& tags = {}) {
  return marks.check(born, kTypeId, kScopeId, tags);
}

TEST(Marks, NothingIsMarkedAtFirst) {
  const Marks marks;
  EXPECT_FALSE(check(marks, marks.counter(), {1, 2}).dead);
  EXPECT_EQ(check(marks, marks.counter()).stale_at, kForever);
  EXPECT_GE(marks.counter(), 1u) << "0 is older than everything";
}

TEST(Marks, TiesCountAsInvalidated) {
  Marks marks;
  const std::uint64_t at_the_same_number = marks.counter();
  marks.mark_all(kForever);
  EXPECT_TRUE(check(marks, at_the_same_number).dead);
  EXPECT_FALSE(check(marks, at_the_same_number + 1).dead);
  EXPECT_EQ(marks.counter(), at_the_same_number + 1);
}

TEST(Marks, EachKindConcernsItsOwn) {
  Marks type, scope, tag;
  type.mark_type(kTypeId, kForever);
  scope.mark_scope(kScopeId, kForever);
  tag.mark_tag(77, kForever);
  EXPECT_TRUE(type.check(1, kTypeId, 0, {}).dead);
  EXPECT_FALSE(type.check(1, kTypeId + 1, kScopeId, {}).dead);
  EXPECT_FALSE(type.check(1, kTypeId - 1, kScopeId, {}).dead);
  EXPECT_TRUE(scope.check(1, 0, kScopeId, {}).dead);
  EXPECT_FALSE(scope.check(1, kTypeId, kScopeId + 1, {}).dead);
  EXPECT_FALSE(scope.check(1, kTypeId, kScopeId - 1, {}).dead);
  EXPECT_TRUE(tag.check(1, 0, 0, Tags{1, 77}).dead);
  EXPECT_FALSE(tag.check(1, kTypeId, kScopeId, Tags{1, 78}).dead);
  EXPECT_FALSE(tag.check(1, kTypeId, kScopeId, {}).dead);
}

TEST(Marks, EpochMovesWithMarksOnly) {
  Marks marks;
  const std::uint64_t epoch = marks.epoch();
  marks.take();
  marks.take();
  EXPECT_EQ(marks.epoch(), epoch) << "a key's fence must not send every hit to the marks";
  marks.mark_tag(1, kForever);
  EXPECT_GT(marks.epoch(), epoch);
  EXPECT_LE(marks.epoch(), marks.counter()) << "what begins now needs no look at the marks";
}

TEST(Marks, SoftMarkTellsWhenAndDoesNotKill) {
  Marks marks;
  marks.mark_type(kTypeId, 500);
  const Verdict verdict = check(marks, 1);
  EXPECT_FALSE(verdict.dead);
  EXPECT_EQ(verdict.stale_at, 500);
  EXPECT_EQ(check(marks, 2).stale_at, kForever);
}

TEST(Marks, TheEarliestOfSeveralSoftMarksCounts) {
  Marks marks;
  marks.mark_tag(1, 500);
  marks.mark_all(700);
  marks.mark_scope(kScopeId, 600);
  EXPECT_EQ(check(marks, 1, {1}).stale_at, 500);
  EXPECT_EQ(check(marks, 2, {1}).stale_at, 600) << "700 came before 600 in no clock, and still the earlier one counts";
  EXPECT_EQ(check(marks, 1).stale_at, 600);
}

TEST(Marks, SoftMarkAfterSoftMarkDoesNotLengthen) {
  Marks marks;
  marks.mark_tag(1, 500);
  marks.mark_tag(1, 900);
  EXPECT_LE(check(marks, 1, {1}).stale_at, 500) << "it has been stale since the first";
  EXPECT_LE(check(marks, 2, {1}).stale_at, 900);
  EXPECT_EQ(check(marks, 3, {1}).stale_at, kForever);
}

TEST(Marks, WhenAllWasLookedAtASoftMarkStandsAlone) {
  Marks marks;
  marks.mark_tag(1, 500);
  marks.looked_at_all(marks.counter());
  marks.mark_tag(1, 900);
  EXPECT_EQ(check(marks, 2, {1}).stale_at, 900);
}

TEST(Marks, WhatWasBornBetweenSoftMarksIsStaleSinceTheNext) {
  Marks marks;
  marks.mark_tag(1, 500);
  const std::uint64_t between = marks.counter();
  marks.mark_tag(1, 900);
  EXPECT_EQ(check(marks, between, {1}).stale_at, 900) << "what is in use keeps its time of service";
}

TEST(Marks, RandomSoftMarksNeverLengthen) {
  std::mt19937_64 random(22);
  for (int round = 0; round < 300; ++round) {
    Marks marks;
    std::vector<std::pair<std::uint64_t, Nanos>> made;  // number and moment of each mark of tag 1
    Nanos now = 100;
    std::uint64_t seen = 0;  // nothing that is older than this is asked about any more
    for (int n = 0; n < 30; ++n) {
      now += static_cast<Nanos>(random() % 10);
      if (random() % 8 == 0) {
        seen = marks.epoch();
        marks.looked_at_all(seen);
      }
      made.emplace_back(marks.counter(), now);
      marks.mark_tag(1, now);
      for (std::uint64_t born = std::max<std::uint64_t>(seen, 1); born <= marks.counter(); ++born) {
        Nanos since = kForever;
        for (const auto& [number, at] : made) {
          if (number >= born) since = std::min(since, at);
        }
        const Nanos told = check(marks, born, {1}).stale_at;
        ASSERT_LE(told, since);
        ASSERT_EQ(told == kForever, since == kForever);
      }
    }
  }
}

TEST(Marks, SoftMarkDoesNotUndoAHardOne) {
  Marks marks;
  marks.mark_tag(1, kForever);
  marks.mark_tag(1, 500);
  EXPECT_TRUE(check(marks, 1, {1}).dead);
  EXPECT_FALSE(check(marks, 2, {1}).dead);
  EXPECT_EQ(check(marks, 2, {1}).stale_at, 500);
  EXPECT_EQ(check(marks, 3, {1}).stale_at, kForever);
}

TEST(Marks, RemembersABoundedNumberOfTagsAndRaisesTheFloor) {
  Marks marks;
  const std::uint64_t first = marks.counter();
  for (std::uint64_t tag = 0; tag < Marks::kMostTags; ++tag) marks.mark_tag(tag, kForever);
  EXPECT_EQ(marks.tags(), Marks::kMostTags);
  EXPECT_FALSE(check(marks, first, {999'999}).dead) << "nothing was dropped yet";
  marks.mark_tag(1'000'000, kForever);
  EXPECT_EQ(marks.tags(), Marks::kMostTags);
  EXPECT_TRUE(check(marks, first, {999'999}).dead) << "with a tag and born at the floor: invalid";
  EXPECT_FALSE(check(marks, first, {}).dead) << "without a tag the floor does not concern it";
  EXPECT_FALSE(check(marks, first + 1, {999'999}).dead);
  EXPECT_TRUE(check(marks, first + 1, {1}).dead);
}

TEST(Marks, ATagMarkedAgainIsNotTheOldest) {
  Marks marks;
  for (std::uint64_t tag = 0; tag < Marks::kMostTags; ++tag) marks.mark_tag(tag, kForever);
  marks.mark_tag(0, kForever);
  const std::uint64_t born = marks.counter() - 1;  // at the second mark of tag 0
  marks.mark_tag(1'000'000, kForever);             // drops tag 1
  EXPECT_EQ(marks.tags(), Marks::kMostTags);
  EXPECT_TRUE(check(marks, born, {0}).dead);
  EXPECT_FALSE(check(marks, born, {1}).dead);
  EXPECT_TRUE(check(marks, 2, {1}).dead) << "by the floor";
}

TEST(Marks, ATagWithoutMemoryInvalidatesAllThatHasTags) {
  Marks marks;
  test::allocations_left = 0;
  marks.mark_tag(1, kForever);
  test::allocations_left = -1;
  EXPECT_TRUE(check(marks, 1, {1}).dead);
  EXPECT_TRUE(check(marks, 1, {2}).dead);
  EXPECT_FALSE(check(marks, 1, {}).dead);
  EXPECT_FALSE(check(marks, marks.counter(), {1}).dead);
}

TEST(Marks, EachFailingAllocationOfATagKeepsTheInvalidation) {
  for (const bool again : {false, true}) {
    for (int n = 0; n < 5; ++n) {
      Marks marks;
      marks.mark_tag(1, kForever);
      const std::uint64_t tag = again ? 1 : 2;
      const std::uint64_t born = marks.counter();
      test::allocations_left = n;
      marks.mark_tag(tag, kForever);
      test::allocations_left = -1;
      EXPECT_TRUE(check(marks, born, {tag}).dead) << n;
      EXPECT_FALSE(check(marks, marks.counter(), {tag}).dead) << n;
      EXPECT_TRUE(marks.may_concern(born, 0, 0));
      for (std::uint64_t more = 0; more < 10; ++more) marks.mark_tag(more, kForever);  // the index is whole
      EXPECT_EQ(marks.tags(), 10u);
    }
  }
}

TEST(Marks, TheFloorNeverSinks) {
  Marks marks;
  for (std::uint64_t tag = 0; tag < Marks::kMostTags; ++tag) marks.mark_tag(tag, kForever);
  const std::uint64_t born = marks.counter();
  test::allocations_left = 0;
  marks.mark_tag(5'000'000, kForever);  // without memory: by the floor
  test::allocations_left = -1;
  ASSERT_TRUE(check(marks, born, {5'000'000}).dead);
  marks.mark_tag(6'000'000, kForever);  // drops the oldest tag, whose number is far lower
  EXPECT_TRUE(check(marks, born, {5'000'000}).dead) << "it came back to life";
}

TEST(Marks, TypeAndScopeWithoutMemoryMarkEverything) {
  for (const bool scope : {false, true}) {
    Marks marks;
    test::allocations_left = 0;
    scope ? marks.mark_scope(kScopeId, kForever) : marks.mark_type(kTypeId, kForever);
    test::allocations_left = -1;
    EXPECT_TRUE(check(marks, 1).dead);
    EXPECT_FALSE(check(marks, marks.counter()).dead);
  }
}

TEST(Marks, MayConcernIsTrueWheneverCheckCouldBe) {
  std::mt19937_64 random(21);
  Marks marks;
  for (int n = 0; n < 3'000; ++n) {
    const Nanos soft_at = random() % 2 == 0 ? kForever : static_cast<Nanos>(random() % 1'000);
    switch (random() % 5) {
      case 0:
        marks.mark_type(static_cast<TypeId>(random() % 4), soft_at);
        break;
      case 1:
        marks.mark_scope(static_cast<ScopeId>(random() % 4), soft_at);
        break;
      case 2:
        marks.mark_tag(random() % 4, soft_at);
        break;
      case 3:
        marks.take();
        break;
      default:
        if (random() % 16 == 0) marks.mark_all(soft_at);
    }
    const std::uint64_t back = random() % 12;
    const std::uint64_t born = marks.counter() > back ? marks.counter() - back : 1;
    const auto type = static_cast<TypeId>(random() % 5);
    const auto scope = static_cast<ScopeId>(random() % 5);
    const Verdict verdict = marks.check(born, type, scope, Tags{random() % 5});
    const bool concerned = verdict.dead || verdict.stale_at != kForever;
    ASSERT_TRUE(!concerned || marks.may_concern(born, type, scope));
    ASSERT_FALSE(marks.check(marks.counter(), type, scope, Tags{0, 1, 2, 3}).dead) << "it begins now";
  }
}

}  // namespace
}  // namespace stillwarm
