// The clock of a Redis server between two TIMEs.
#include "core/remote/redis_clock.hpp"

#include <gtest/gtest.h>

namespace stillwarm {
namespace {

constexpr Nanos kMilli = 1'000'000;
constexpr Nanos kStart = 5'000'000'000;             // of our own clock
constexpr long long kTold = 1'700'000'000'000'000;  // us since 1970

TEST(RedisClock, KnowsNothingAtFirst) { EXPECT_FALSE(RedisClock().knows(RedisClock::own_now())); }

TEST(RedisClock, GoesOnFromWhatItWasTold) {
  RedisClock clock;
  clock.told(kTold, kStart, kStart + kMilli);
  EXPECT_TRUE(clock.knows(kStart + kMilli));
  EXPECT_EQ(clock.at(kStart + 250 * kMilli), kTold / 1000 + 250);
}

TEST(RedisClock, IsNeverBehind) {
  RedisClock clock;
  clock.told(kTold, kStart, kStart + 3 * kMilli);  // the server may have said so at once, and the answer been late
  EXPECT_GE(clock.at(kStart + 3 * kMilli), kTold / 1000 + 3);
}

TEST(RedisClock, AsksAgainAfterASecond) {
  RedisClock clock;
  clock.told(kTold, kStart, kStart + kMilli);
  EXPECT_TRUE(clock.knows(kStart + RedisClock::kGood - 1));
  EXPECT_FALSE(clock.knows(kStart + RedisClock::kGood));
}

TEST(RedisClock, WhatCameLateIsGoodForOneAnswer) {
  RedisClock clock;
  const Nanos arrived = kStart + RedisClock::kExact + 1;
  clock.told(kTold, kStart, arrived);
  EXPECT_FALSE(clock.knows(arrived));
  EXPECT_GE(clock.at(arrived), kTold / 1000);
}

}  // namespace
}  // namespace stillwarm
