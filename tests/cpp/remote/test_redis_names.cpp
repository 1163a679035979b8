// What things are called in Redis, what its errors mean, and that scripts say what they may do.
#include <gtest/gtest.h>

#include <set>

#include "core/remote/redis_names.hpp"
#include "core/remote/redis_session.hpp"
#include "core/remote/redis_tier.hpp"

namespace stillwarm {
namespace {

TEST(RedisNames, EverythingOfANamespaceHasOneHashTag) {
  const RedisNames names("shop");
  for (const auto& name : {names.marks, names.log, names.tags_1, names.tags_2, names.hits, names.channel,
                           names.entry("page", "k"), names.lease("page\nk"), names.flushed("p")}) {
    EXPECT_TRUE(name.starts_with("stillwarm:{shop}:")) << name;
    EXPECT_EQ(name.find('{'), name.rfind('{')) << name;
  }
}

TEST(RedisNames, EntriesOfAnyTypeAndKeyAreToldApartAndReadBack) {
  const RedisNames names("shop");
  const std::string texts[] = {"", "a", ":", "%", "%3A", "a:b", "a%3Ab", "%25", "%2", "a\nb", "%0A", "\xc3\xbc", "a%"};
  std::set<std::string> seen;
  for (const auto& type : texts) {
    for (const auto& key : texts) {
      const std::string entry = names.entry(type, key);
      EXPECT_TRUE(seen.insert(entry).second) << entry;
      EXPECT_EQ(names.type_of(entry), type) << entry;
      EXPECT_EQ(names.key_of(entry).value_or("none"), key) << entry;
      EXPECT_EQ(entry.find('\n') != std::string::npos, key.find('\n') != std::string::npos)
          << entry;  // types are lines
    }
  }
}

TEST(RedisNames, WhatIsNoEntryHasNoKey) {
  const RedisNames names("shop");
  for (const std::string name :
       {"", "stillwarm:{shop}:m", "stillwarm:{shop}:e:", "stillwarm:{shop}:e:nocolon", "stillwarm:{other}:e:page:k"}) {
    EXPECT_EQ(names.key_of(name), std::nullopt) << name;
  }
}

TEST(RedisNames, StripesAreTheSameInEveryProcessAndSpread) {
  EXPECT_EQ(RedisNames::stripe("k"), 3014U);  // what entries in servers were fenced by
  std::set<std::uint32_t> stripes;
  for (int i = 0; i < 1000; ++i) {
    const auto stripe = RedisNames::stripe("key:" + std::to_string(i));
    EXPECT_LT(stripe, RedisNames::kStripes);
    stripes.insert(stripe);
  }
  EXPECT_GT(stripes.size(), 850U);
}

TEST(RedisMoment, CarriesTheCounterAndTheIncarnation) {
  const std::string text = redis_moment("725", "abcdefgh");
  const Moment moment = Moment::of(text);
  EXPECT_EQ(xmax_of(moment.snapshot), 725U);
  EXPECT_EQ(moment.life, "abcdefgh");
}

TEST(RedisErrors, SayWhatTheyMean) {
  struct Row {
    std::string_view text;
    TierFault fault;
    std::string_view state;
  };
  for (const Row& row : std::vector<Row>{
           {"OOM command not allowed when used memory > 'maxmemory'.", TierFault::kRejected, "OOM"},
           {"READONLY You can't write against a read only replica.", TierFault::kUnavailable, "READONLY"},
           {"LOADING Redis is loading the dataset in memory", TierFault::kUnavailable, "LOADING"},
           {"MASTERDOWN Link with MASTER is down", TierFault::kUnavailable, "MASTERDOWN"},
           {"CLUSTERDOWN The cluster is down", TierFault::kUnavailable, "CLUSTERDOWN"},
           {"NOAUTH Authentication required.", TierFault::kRejected, "NOAUTH"},
           {"WRONGPASS invalid username-password pair", TierFault::kRejected, "WRONGPASS"},
           {"MOVED 3999 127.0.0.1:6381", TierFault::kUnavailable, "MOVED"},
           {"BUSY Redis is busy running a script.", TierFault::kTimeout, "BUSY"},
           {"ERR max number of clients reached", TierFault::kUnavailable, "ERR"},
           {"ERR unknown command\nwith more", TierFault::kRejected, "ERR"},
       }) {
    const TierError error = redis_error(row.text);
    EXPECT_EQ(error.fault, row.fault) << row.text;
    EXPECT_EQ(error.state, row.state) << row.text;
    EXPECT_EQ(error.message.find('\n'), std::string::npos);
  }
}

TEST(RedisScripts, ThoseThatFreeRoomSaySoWhereTheServerListens) {
  for (std::size_t i = 0; i < kRedisScripts; ++i) {
    const auto script = static_cast<RedisScript>(i);
    const std::string plain = text_of(script, false), flagged = text_of(script, true);
    EXPECT_EQ(plain.find("#!"), std::string::npos);
    const bool frees = script == RedisScript::kInvalidate || script == RedisScript::kMatch ||
                       script == RedisScript::kGiveBack || script == RedisScript::kSurvey;
    EXPECT_EQ(flagged.starts_with("#!lua flags=allow-oom\n"), frees) << i;
    EXPECT_TRUE(flagged.ends_with(plain));
  }
}

TEST(RandomText, HasItsLengthAndIsNeverTheSame) {
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    const std::string text = random_text(12);
    EXPECT_EQ(text.size(), 12U);
    EXPECT_TRUE(seen.insert(text).second);
  }
}

}  // namespace
}  // namespace stillwarm
