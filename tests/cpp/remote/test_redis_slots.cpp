// Slots, who serves them, and moments of several buckets: what is known without a connection.
#include "core/remote/redis_slots.hpp"

#include <gtest/gtest.h>

#include <set>

#include "core/remote/redis_names.hpp"
#include "core/remote/redis_work.hpp"

namespace stillwarm {
namespace {

TEST(RedisSlots, SlotsAreThoseOfTheServer) {  // CLUSTER KEYSLOT says the same
  EXPECT_EQ(RedisSlots::slot_of("123456789"), 12739);
  EXPECT_EQ(RedisSlots::slot_of("foo"), 12182);
  EXPECT_EQ(RedisSlots::slot_of(""), 0);
  EXPECT_EQ(RedisSlots::slot_of("a{foo}b"), 12182);
  EXPECT_EQ(RedisSlots::slot_of("{foo}{bar}"), 12182);
  EXPECT_EQ(RedisSlots::slot_of("foo{}{bar}"), RedisSlots::slot_of("foo{}{bar}"));
  EXPECT_NE(RedisSlots::slot_of("foo{}{bar}"), RedisSlots::slot_of("bar"));
  EXPECT_NE(RedisSlots::slot_of("foo{bar"), RedisSlots::slot_of("bar"));
}

TEST(RedisSlots, WhatAnErrorSaysOfAPlace) {
  const RedisPlace node("10.0.0.1", 7000);
  EXPECT_EQ(RedisSlots::place_in("MOVED 3999 127.0.0.1:6381", node), RedisPlace("127.0.0.1", 6381));
  EXPECT_EQ(RedisSlots::place_in("ASK 3999 ::1:6381", node), RedisPlace("::1", 6381));
  EXPECT_EQ(RedisSlots::place_in("MOVED 3999 :6381", node), RedisPlace("10.0.0.1", 6381));
  EXPECT_EQ(RedisSlots::place_in("MOVED 3999", node), std::nullopt);
  EXPECT_EQ(RedisSlots::place_in("MOVED 3999 host:", node), std::nullopt);
}

TEST(RedisSlots, AnOwnerHasAnotherEpochWheneverTheBucketChangesHands) {
  const RedisPlace node("n", 1);
  RedisSlots slots({"a", "b"}, {node});
  EXPECT_THROW(static_cast<void>(slots.owner(0)), TierFailure);
  EXPECT_EQ(slots.candidates(), std::vector<RedisPlace>{node});
  slots.moved(0, "MOVED 1 x:1", node);
  const auto first = slots.owner(0);
  EXPECT_EQ(first.place, RedisPlace("x", 1));
  slots.moved(0, "MOVED 1 x:1", node);
  EXPECT_EQ(slots.owner(0).epoch, first.epoch);
  slots.moved(0, "MOVED 1 y:1", node);
  slots.moved(0, "MOVED 1 x:1", node);
  EXPECT_EQ(slots.owner(0).place, first.place);
  EXPECT_TRUE(slots.is_at(0, RedisPlace("x", 1)));
  EXPECT_FALSE(slots.is_at(0, RedisPlace("y", 1)));
  EXPECT_FALSE(slots.is_at(1, RedisPlace("x", 1)));
  EXPECT_EQ(slots.owner(0).epoch, first.epoch + 2) << "it was another's meanwhile";
  EXPECT_EQ(slots.epochs()[1], 0U);
  EXPECT_EQ(slots.masters(), std::vector<RedisPlace>{RedisPlace("x", 1)});
}

TEST(RedisSlots, IsAskedForSoonAfterADoubtAndSeldomWithout) {
  RedisSlots slots({"a"}, {});
  EXPECT_TRUE(slots.is_due(kSecond));
  EXPECT_FALSE(slots.is_due(kSecond + 1)) << "somebody asks already";
  EXPECT_TRUE(slots.is_due(2 * kSecond)) << "and had no answer";
}

TEST(RedisSlots, MomentsOfSeveralBuckets) {
  EXPECT_EQ(moment_in("5:5:/abc", std::nullopt), "5:5:/abc");
  EXPECT_EQ(moment_in("5:5:/abc", 7), "5:5:/abc");
  EXPECT_EQ(moment_in("1|5:5:/abc;17|6:6:/def", 1), "5:5:/abc");
  EXPECT_EQ(moment_in("1|5:5:/abc;17|6:6:/def", 17), "6:6:/def");
  EXPECT_EQ(moment_in("1|5:5:/abc;17|6:6:/def", 7), "");
  EXPECT_EQ(moment_in("", 7), "");
}

TEST(RedisSlots, ALeaseIsInTheBucketOfItsEntry) {
  for (int i = 0; i < 1'000; ++i) {
    const std::string key = "f:" + std::to_string(i) + (i % 2 == 0 ? "\nmore" : "");
    EXPECT_EQ(RedisNames::bucket_of_lease("type\n" + key), RedisNames::bucket(key));
  }
  EXPECT_EQ(RedisNames::bucket_of_lease("check:1"), RedisNames::bucket("check:1"));
}

TEST(RedisSlots, KeysOfEveryStripeAreInEveryBucket) {
  std::set<std::uint32_t> buckets, stripes_of_one;
  for (int i = 0; i < 20'000; ++i) {
    const std::string key = "key" + std::to_string(i);
    buckets.insert(RedisNames::bucket(key));
    if (RedisNames::bucket(key) == 5) stripes_of_one.insert(RedisNames::stripe(key));
  }
  EXPECT_EQ(buckets.size(), RedisNames::kBuckets);
  EXPECT_GT(stripes_of_one.size(), 250U);
  const RedisNames names("shop", 5);
  EXPECT_EQ(names.marks, "stillwarm:{shop.5}:m");
  EXPECT_EQ(names.channel, RedisNames("shop").channel);
  EXPECT_EQ(RedisNames("shop").marks, "stillwarm:{shop}:m");
  EXPECT_EQ(RedisSlots::slot_of(names.entry("t", "a{b}")), RedisSlots::slot_of(names.marks));
}

}  // namespace
}  // namespace stillwarm
