// What another server is told of the last minute. Thread rule: one thread.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/remote/redis_repeats.hpp"

namespace stillwarm {
namespace {

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
  EXPECT_EQ(names(repeats.due("a", 3).messages), Names{});
  EXPECT_EQ(names(repeats.due("b", 3).messages), (Names{"key:k", "~tag:t"}));
  repeats.repeated("b", repeats.due("b", 3).last);
  EXPECT_EQ(names(repeats.due("b", 4).messages), Names{});
  EXPECT_EQ(names(repeats.due("a", 4).messages), (Names{"key:k", "~tag:t"}));
}

TEST(RedisRepeats, WhatCameMeanwhileIsStillDue) {
  RedisRepeats repeats;
  repeats.took("a", "key:k", false, 1);
  const auto due = repeats.due("b", 1);
  repeats.took("a", "key:l", false, 1);  // the clock is coarse: at the same moment
  repeats.repeated("b", due.last);
  EXPECT_EQ(names(due.messages), Names{"key:k"});
  EXPECT_EQ(names(repeats.due("b", 6).messages), Names{"key:l"});
}

TEST(RedisRepeats, AreForgottenAfterAMinute) {
  RedisRepeats repeats;
  repeats.took("a", "key:k", false, kSecond);
  EXPECT_EQ(names(repeats.due("b", 61 * kSecond).messages), Names{"key:k"});
  EXPECT_EQ(names(repeats.due("b", 62 * kSecond).messages), Names{});
}

TEST(RedisRepeats, AServerWithoutANameIsAlwaysAnother) {
  RedisRepeats repeats;
  repeats.took("", "key:k", false, 1);
  repeats.repeated("", repeats.due("", 2).last);
  EXPECT_EQ(names(repeats.due("", 3).messages), Names{"key:k"});
}

TEST(RedisRepeats, OneThatMeansAllStandsForThoseBeforeIt) {
  RedisRepeats repeats;
  repeats.took("a", "key:k", false, 1);
  repeats.took("a", "all", true, 2);
  EXPECT_EQ(names(repeats.due("b", 3).messages), (Names{"key:k", "~all"}));
  repeats.took("a", "all", false, 3);
  EXPECT_EQ(names(repeats.due("b", 4).messages), Names{"all"});
}

TEST(RedisRepeats, APatternIsRepeatedAsAll) {
  RedisRepeats repeats;
  repeats.took("a", "pattern:k*", true, 1);
  EXPECT_EQ(names(repeats.due("b", 2).messages), Names{"~all"});
}

TEST(RedisRepeats, TooManyAreOneThatMeansAll) {
  RedisRepeats repeats;
  for (std::size_t i = 0; i < RedisRepeats::kMost; ++i) repeats.took("a", "key:" + std::to_string(i), false, 1);
  EXPECT_EQ(repeats.due("b", 2).messages.size(), RedisRepeats::kMost);
  repeats.took("a", "key:one more", false, 2);
  EXPECT_EQ(names(repeats.due("b", 3).messages), Names{"all"});
}

}  // namespace
}  // namespace stillwarm
