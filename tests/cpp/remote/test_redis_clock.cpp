// The clock of a Redis server between two TIMEs.
#include "core/remote/redis_clock.hpp"

#include <gtest/gtest.h>

namespace stillwarm {
namespace {

constexpr Nanos kAsked = 5'000'000'000;             // of our own clock
constexpr long long kTold = 1'700'000'000'000'000;  // us since 1970

TEST(RedisClock, KnowsNothingAtFirst) { EXPECT_FALSE(RedisClock().knows(RedisClock::own_now())); }

TEST(RedisClock, GoesOnFromWhatItWasTold) {
  RedisClock clock;
  clock.told(kTold, kAsked, kAsked + kMillisecond);
  EXPECT_TRUE(clock.knows(kAsked + kMillisecond));
  EXPECT_EQ(clock.at(kAsked + 250 * kMillisecond), kTold / 1000 + 250);
}

TEST(RedisClock, IsNeverBehind) {
  RedisClock clock;
  clock.told(kTold, kAsked,
             kAsked + 3 * kMillisecond);  // the server may have said so at once, and the answer been late
  EXPECT_GE(clock.at(kAsked + 3 * kMillisecond), kTold / 1000 + 3);
}

TEST(RedisClock, AsksAgainAfterASecond) {
  RedisClock clock;
  clock.told(kTold, kAsked, kAsked + kMillisecond);
  EXPECT_TRUE(clock.knows(kAsked + RedisClock::kGood - 1));
  EXPECT_FALSE(clock.knows(kAsked + RedisClock::kGood));
}

TEST(RedisClock, WhatCameLateIsGoodForOneAnswer) {
  RedisClock clock;
  const Nanos arrived = kAsked + RedisClock::kExact + 1;
  clock.told(kTold, kAsked, arrived);
  EXPECT_FALSE(clock.knows(arrived));
  EXPECT_GE(clock.at(arrived), kTold / 1000);
}

}  // namespace
}  // namespace stillwarm
