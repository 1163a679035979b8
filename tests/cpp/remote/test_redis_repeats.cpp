// What another server is told of the last minute. Thread rule: one thread.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/remote/redis_repeats.hpp"

namespace stillwarm {
namespace {

constexpr Nanos kSecond = 1'000'000'000;

std::vector<std::string> names(const std::vector<Message>& due) {
  std::vector<std::string> names;
  for (const auto& message : due) names.push_back((message.soft ? "~" : "") + message.name);
  return names;
}

using Names = std::vector<std::string>;

TEST(RedisRepeats, AreDueToAnotherServerInTheirOrder) {
  RedisRepeats repeats;
  repeats.took("a", "key:k", false, 1);
  repeats.took("a", "tag:t", true, 2);
  EXPECT_EQ(names(repeats.due("a", 3)), Names{});
  EXPECT_EQ(names(repeats.due("b", 3)), (Names{"key:k", "~tag:t"}));
  repeats.repeated("b", 3);
  EXPECT_EQ(names(repeats.due("b", 4)), Names{});
  EXPECT_EQ(names(repeats.due("a", 4)), (Names{"key:k", "~tag:t"}));
}

TEST(RedisRepeats, WhatCameMeanwhileIsStillDue) {
  RedisRepeats repeats;
  repeats.took("a", "key:k", false, 1);
  repeats.took("a", "key:l", false, 5);
  repeats.repeated("b", 3);
  EXPECT_EQ(names(repeats.due("b", 6)), Names{"key:l"});
}

TEST(RedisRepeats, AreForgottenAfterAMinute) {
  RedisRepeats repeats;
  repeats.took("a", "key:k", false, kSecond);
  EXPECT_EQ(names(repeats.due("b", 61 * kSecond)), Names{"key:k"});
  EXPECT_EQ(names(repeats.due("b", 62 * kSecond)), Names{});
}

TEST(RedisRepeats, AServerWithoutANameIsAlwaysAnother) {
  RedisRepeats repeats;
  repeats.took("", "key:k", false, 1);
  repeats.repeated("", 2);
  EXPECT_EQ(names(repeats.due("", 3)), Names{"key:k"});
}

TEST(RedisRepeats, OneThatMeansAllStandsForThoseBeforeIt) {
  RedisRepeats repeats;
  repeats.took("a", "key:k", false, 1);
  repeats.took("a", "all", true, 2);
  EXPECT_EQ(names(repeats.due("b", 3)), (Names{"key:k", "~all"}));
  repeats.took("a", "all", false, 3);
  EXPECT_EQ(names(repeats.due("b", 4)), Names{"all"});
}

TEST(RedisRepeats, APatternIsRepeatedAsAll) {
  RedisRepeats repeats;
  repeats.took("a", "pattern:k*", true, 1);
  EXPECT_EQ(names(repeats.due("b", 2)), Names{"~all"});
}

TEST(RedisRepeats, TooManyAreOneThatMeansAll) {
  RedisRepeats repeats;
  for (std::size_t i = 0; i < RedisRepeats::kMost; ++i) repeats.took("a", "key:" + std::to_string(i), false, 1);
  EXPECT_EQ(repeats.due("b", 2).size(), RedisRepeats::kMost);
  repeats.took("a", "key:one more", false, 2);
  EXPECT_EQ(names(repeats.due("b", 3)), Names{"all"});
}

}  // namespace
}  // namespace stillwarm
