// Names of entries in Redis: types and keys of any text are told apart, and are read back.
#include "core/remote/redis_names.hpp"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace stillwarm {
namespace {

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
  for (const auto& name : {names.marks, names.log, names.lease("a:b"), names.entries + "type", std::string("e:a:b")}) {
    EXPECT_FALSE(names.key_of(name)) << name;
  }
  EXPECT_TRUE(names.key_of(names.entries + "type:"));  // the control
  EXPECT_EQ(names.type_of("x"), "");
}

}  // namespace
}  // namespace stillwarm
