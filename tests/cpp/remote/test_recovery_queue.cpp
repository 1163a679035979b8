// The recovery queue: order, bounds, what an invalidation takes with it, and that none is lost, whatever is on its way.
#include "core/remote/recovery_queue.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support.hpp"

namespace stillwarm {
namespace {

using test::kAny;

using Texts = std::vector<std::string>;

QueuedWrite write(const std::string& key, std::size_t bytes = 1, const std::string& type = "t",
                  const Texts& tags = {}) {
  return {key, type, tags, bytes, nullptr};
}

Texts names(RecoveryQueue& queue, std::size_t most = kAny) {
  Texts all;
  for (const QueuedInvalidation& one : queue.peek_invalidations(most)) all.push_back(one.name + (one.soft ? "~" : ""));
  queue.put_back();
  return all;
}

Texts keys(const RecoveryQueue& queue, std::size_t most = kAny) {
  Texts all;
  for (const SentWrite& one : queue.peek_writes(most)) all.push_back(one.key);
  return all;
}

TEST(RecoveryQueue, InvalidationsKeepTheirOrder) {
  RecoveryQueue queue;
  EXPECT_TRUE(queue.empty());
  queue.add("key:b", false);
  queue.add("tag:x", true);
  queue.add("type:a", false);
  queue.add("pattern:*", false);
  EXPECT_EQ(names(queue), (Texts{"key:b", "tag:x~", "type:a", "pattern:*"}));
  EXPECT_EQ(names(queue, 2), (Texts{"key:b", "tag:x~"}));
  EXPECT_EQ(queue.invalidations(), 4u) << "to look is not to take";
  EXPECT_FALSE(queue.empty());
}

TEST(RecoveryQueue, OnlyWhatWasConfirmedLeaves) {
  RecoveryQueue queue;
  for (const char* name : {"key:a", "key:b", "key:c"}) queue.add(name, false);
  const auto sent = queue.peek_invalidations(2);
  queue.confirmed(sent.front().number);
  EXPECT_EQ(names(queue), (Texts{"key:b", "key:c"}));
  EXPECT_FALSE(queue.concerns("a", "t", {}));
  EXPECT_TRUE(queue.concerns("b", "t", {}));
  queue.confirmed(sent.back().number);
  queue.confirmed(sent.back().number);
  EXPECT_EQ(names(queue), (Texts{"key:c"}));
}

TEST(RecoveryQueue, TheSameWaitsOnce) {
  RecoveryQueue queue;
  for (int i = 0; i < 3; ++i) {
    queue.add("key:a", false);
    queue.add("tag:a", true);
    queue.add("key:b", false);
  }
  EXPECT_EQ(names(queue), (Texts{"key:a", "tag:a~", "key:b"}));
  queue.add("key:a", true);   // less than what waits
  queue.add("tag:a", false);  // more
  EXPECT_EQ(names(queue), (Texts{"key:a", "tag:a", "key:b"}));
}

TEST(RecoveryQueue, TheSameAddedWhileItIsSentStays) {
  RecoveryQueue queue;
  queue.add("key:a", false);
  queue.add("key:b", true);
  const auto sent = queue.peek_invalidations(kAny);
  queue.add("key:a", false);
  queue.add("key:a", false);
  queue.add("key:b", false);  // must not harden what was sent as a soft one
  queue.confirmed(sent.back().number);
  EXPECT_TRUE(queue.concerns("a", "t", {}));
  EXPECT_EQ(names(queue), (Texts{"key:a", "key:b"}));
  const auto again = queue.peek_invalidations(kAny);
  queue.confirmed(again.back().number);
  EXPECT_FALSE(queue.concerns("a", "t", {}));
  EXPECT_TRUE(queue.empty());
}

TEST(RecoveryQueue, PutBackIsSentAgainAndDeduplicatesAgain) {
  RecoveryQueue queue;
  queue.add("key:a", false);
  const auto first = queue.peek_invalidations(kAny);
  queue.put_back();
  queue.add("key:a", false);
  EXPECT_EQ(queue.invalidations(), 1u);
  EXPECT_EQ(queue.peek_invalidations(kAny).front().number, first.front().number);
}

TEST(RecoveryQueue, AllCoversWhatWaits) {
  RecoveryQueue queue;
  queue.add("key:a", false);
  queue.add("all", true);
  EXPECT_EQ(names(queue), (Texts{"key:a", "all~"}));
  EXPECT_TRUE(queue.concerns("any", "t", {})) << "a soft one concerns everything too";
  queue.add("all", false);
  queue.add("key:b", false);
  EXPECT_EQ(names(queue), (Texts{"all"}));
  EXPECT_TRUE(queue.concerns("any", "t", {}));
  EXPECT_EQ(queue.overflowed(), 0u);
}

TEST(RecoveryQueue, AllAddedWhileOthersAreSentStays) {
  RecoveryQueue queue;
  queue.add("key:a", false);
  const auto keyed = queue.peek_invalidations(kAny);
  queue.add("all", false);
  queue.confirmed(keyed.back().number);
  EXPECT_EQ(queue.invalidations(), 1u);

  const auto all = queue.peek_invalidations(kAny);
  ASSERT_EQ(all.size(), 1u);
  queue.add("key:b", false);  // after the one that is on its way: not covered
  EXPECT_EQ(queue.invalidations(), 2u);
  queue.confirmed(all.back().number);
  EXPECT_EQ(names(queue), (Texts{"key:b"}));

  queue.add_all();
  const auto third = queue.peek_invalidations(kAny);
  queue.add_all();
  queue.confirmed(third.back().number);
  EXPECT_EQ(names(queue), (Texts{"all"}));
  EXPECT_TRUE(queue.concerns("b", "t", {}));
}

TEST(RecoveryQueue, TenThousandAndOneBecomeAll) {
  RecoveryQueue queue;
  for (int i = 0; i < 10'000; ++i) queue.add("key:" + std::to_string(i), true);
  EXPECT_EQ(queue.invalidations(), 10'000u);
  EXPECT_FALSE(queue.concerns("x", "t", {}));
  queue.add("key:7", true);
  EXPECT_EQ(queue.invalidations(), 10'000u);
  const auto sent = queue.peek_invalidations(100);
  queue.add("key:x", true);
  EXPECT_EQ(queue.invalidations(), 1u);
  EXPECT_EQ(queue.overflowed(), 1u);
  queue.confirmed(sent.back().number);
  EXPECT_TRUE(queue.concerns("other", "t", {}));
  EXPECT_EQ(names(queue), (Texts{"all"})) << "a hard one";
}

TEST(RecoveryQueue, EachKindConcernsItsOwn) {
  const Texts tags = {"g", "h"};
  const auto concerns = [&tags](const char* name) {
    RecoveryQueue queue;
    queue.add(name, false);
    return queue.concerns("scope:1", "t", tags);
  };
  for (const char* name :
       {"key:scope:1", "type:t", "tag:g", "tag:h", "pattern:scope:*", "pattern:s[!a]*1", "all", "where"})
    EXPECT_TRUE(concerns(name)) << name;
  for (const char* name : {"key:scope:2", "key:t", "key:g", "type:scope:1", "type:g", "tag:t", "tag:", "pattern:scope",
                           "key:", "pattern:t"})
    EXPECT_FALSE(concerns(name)) << name;
  RecoveryQueue queue;
  EXPECT_FALSE(queue.concerns("", "", {}));
  queue.add("tag:g", false);
  EXPECT_FALSE(queue.concerns("scope:1", "t", {}));
}

TEST(RecoveryQueue, TooManyPatternsConcernEverything) {
  RecoveryQueue queue;
  for (int i = 0; i < 256; ++i) queue.add("pattern:" + std::to_string(i) + ":*", false);
  EXPECT_FALSE(queue.concerns("x", "t", {}));
  EXPECT_TRUE(queue.concerns("255:x", "t", {}));
  queue.add("pattern:y", false);
  EXPECT_TRUE(queue.concerns("x", "t", {}));
  EXPECT_EQ(queue.invalidations(), 257u) << "sent as they were meant";
}

TEST(RecoveryQueue, TheNewestWriteOfAKey) {
  RecoveryQueue queue;
  queue.add(write("a", 10));
  queue.add(write("b", 20));
  queue.add(write("a", 5));
  EXPECT_EQ(keys(queue), (Texts{"b", "a"})) << "the oldest first";
  EXPECT_EQ(keys(queue, 1), (Texts{"b"}));
  EXPECT_EQ(queue.bytes(), 25u);
  EXPECT_EQ(queue.dropped(), 0u);
}

TEST(RecoveryQueue, TheOldestWritesGoFirst) {
  RecoveryLimits limits;
  limits.most_writes = 3;
  RecoveryQueue queue(limits);
  for (const char* key : {"a", "b", "c", "a", "d"}) queue.add(write(key));
  EXPECT_EQ(keys(queue), (Texts{"c", "a", "d"}));
  EXPECT_EQ(queue.dropped(), 1u);
  EXPECT_EQ(queue.bytes(), 3u);
}

TEST(RecoveryQueue, BytesAreBounded) {
  RecoveryQueue queue;
  const std::size_t mib = 1 << 20;
  for (int i = 0; i < 4; ++i) queue.add(write(std::to_string(i), 4 * mib));
  EXPECT_EQ(queue.writes(), 4u);
  queue.add(write("4", 5 * mib));
  EXPECT_EQ(keys(queue), (Texts{"2", "3", "4"}));
  EXPECT_EQ(queue.dropped(), 2u);
  queue.add(write("3", 17 * mib));  // alone too large; the older one must not be sent in its place
  EXPECT_EQ(keys(queue), (Texts{"2", "4"}));
  EXPECT_EQ(queue.dropped(), 3u);
  EXPECT_EQ(queue.bytes(), 9 * mib);
}

TEST(RecoveryQueue, TenThousandKeys) {
  RecoveryQueue queue;
  for (int i = 0; i < 10'001; ++i) queue.add(write(std::to_string(i)));
  EXPECT_EQ(queue.writes(), 10'000u);
  EXPECT_EQ(queue.dropped(), 1u);
  EXPECT_EQ(keys(queue, 1), (Texts{"1"}));
}

TEST(RecoveryQueue, AnInvalidationTakesWritesWithIt) {
  const auto left = [](const char* name, bool soft) {
    RecoveryQueue queue;
    queue.add(write("a", 1, "t", {"g"}));
    queue.add(write("b", 2, "u", {"h", "g"}));
    queue.add(write("c", 4, "t", {}));
    queue.add(name, soft);
    const std::size_t bytes = queue.bytes();
    EXPECT_TRUE(keys(queue).empty()) << "while an invalidation waits no write goes out";
    queue.confirmed(queue.peek_invalidations(kAny).back().number);
    Texts found = keys(queue);
    EXPECT_EQ(bytes == 0, found.empty());
    EXPECT_EQ(queue.dropped(), 0u);
    return found;
  };
  for (const bool soft : {false, true}) {
    EXPECT_EQ(left("key:a", soft), (Texts{"b", "c"}));
    EXPECT_EQ(left("type:t", soft), (Texts{"b"}));
    EXPECT_EQ(left("tag:g", soft), (Texts{"c"}));
    EXPECT_EQ(left("key:g", soft), (Texts{"a", "b", "c"}));
    for (const char* name : {"all", "pattern:nothing", "where"}) EXPECT_TRUE(left(name, soft).empty()) << name;
  }
}

TEST(RecoveryQueue, AWriteRemovesAlsoWhereTheSameInvalidationWaits) {
  RecoveryQueue queue;
  queue.add("key:a", false);
  queue.add(write("a"));  // later than the invalidation: held back, not lost
  EXPECT_EQ(queue.writes(), 1u);
  queue.add("key:a", false);  // not added twice, but later than the write
  EXPECT_EQ(queue.writes(), 0u);
  queue.add("all", false);
  queue.add(write("a"));
  queue.add("tag:x", false);
  EXPECT_EQ(queue.writes(), 1u);
  queue.add("all", false);
  EXPECT_EQ(queue.writes(), 0u);
  EXPECT_EQ(queue.bytes(), 0u);
}

TEST(RecoveryQueue, AWriteQueuedWhileAnOlderOneIsSentStays) {
  RecoveryQueue queue;
  const auto request = std::make_shared<int>(1);
  queue.add({"a", "t", {}, 1, request});
  queue.add(write("b"));
  auto sent = queue.peek_writes(kAny);
  EXPECT_EQ(sent.front().request, request);
  queue.add(write("a"));
  for (const SentWrite& one : sent) queue.confirmed(one);
  EXPECT_EQ(keys(queue), (Texts{"a"}));
  sent.clear();
  EXPECT_EQ(request.use_count(), 1);
}

TEST(RecoveryQueue, ANewerWriteThatGotThroughSupersedes) {
  RecoveryQueue queue;
  queue.add(write("a", 3));
  queue.add(write("b", 5));
  queue.forget("a", "t");
  queue.forget("x", "t");
  EXPECT_EQ(keys(queue), (Texts{"b"}));
  EXPECT_EQ(queue.bytes(), 5u);
}

TEST(RecoveryQueue, ClearLeavesNothingButCounts) {
  RecoveryLimits limits;
  limits.most_writes = 1;
  RecoveryQueue queue(limits);
  queue.add(write("a"));
  queue.add(write("b"));
  queue.add("tag:x", false);
  const auto sent = queue.peek_invalidations(kAny);
  queue.add_all();
  queue.clear();
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.bytes(), 0u);
  EXPECT_FALSE(queue.concerns("b", "t", Texts{"x"}));
  EXPECT_EQ(queue.dropped(), 1u);
  queue.add("key:a", false);
  queue.confirmed(sent.back().number);
  EXPECT_EQ(names(queue), (Texts{"key:a"})) << "a confirmation of what was cleared is nobody's";
}

}  // namespace
}  // namespace stillwarm
