// Inbox: N1 to N3, messages between reading and applying, rounds, and no memory.
#include "core/remote/inbox.hpp"

#include <gtest/gtest.h>

#include <thread>

#include "support.hpp"

namespace stillwarm {
namespace {

constexpr Nanos kLag = 1'000'000'000;
constexpr Nanos kPollBegan = 1'000 * kLag;

void poll(Inbox& inbox, Nanos began, std::vector<Message> messages = {}, const std::string& seen = "1:1:") {
  const auto [from, round] = inbox.begin_poll();
  inbox.end_poll(seen, round, began, std::move(messages));
}

std::vector<std::string> names(const Inbox& inbox) {
  std::vector<std::string> all;
  for (const auto& m : inbox.read().first) all.push_back(m.name);
  return all;
}

TEST(Inbox, NothingIsTrustedBeforeTheFirstPoll) {
  Inbox inbox(kLag);
  EXPECT_EQ(inbox.attention().load(), 0);
  poll(inbox, kPollBegan);
  EXPECT_EQ(inbox.attention().load(), kPollBegan + kLag) << "from the beginning of the poll, not from its end";
  EXPECT_EQ(inbox.trusted_until(), kPollBegan + kLag);
}

TEST(Inbox, AClockThatIsMovedBackIsFollowed) {
  Inbox inbox(kLag);
  poll(inbox, kPollBegan + 600 * kLag, {}, "9:9:");
  poll(inbox, kPollBegan + 5, {}, "10:10:");
  EXPECT_EQ(inbox.trusted_until(), kPollBegan + 5 + kLag) << "nothing is trusted for ten minutes";
  EXPECT_EQ(inbox.begin_poll().first, "10:10:") << "nothing is heard twice";
}

TEST(Inbox, N1NoHitPassesByAMessageThatHasArrived) {
  Inbox inbox(kLag);
  poll(inbox, kPollBegan, {{"key:a", false}});
  EXPECT_EQ(inbox.attention().load(), 0);
  const auto until = inbox.read().second;
  EXPECT_EQ(inbox.attention().load(), 0) << "read is not applied";
  inbox.applied(until);
  EXPECT_EQ(inbox.attention().load(), kPollBegan + kLag);
  inbox.post({"tag:b", true});
  EXPECT_EQ(inbox.attention().load(), 0);
  EXPECT_TRUE(inbox.waiting());
  EXPECT_TRUE(inbox.read().first[0].soft);
}

TEST(Inbox, N1MessagesBetweenReadingAndApplyingStay) {
  Inbox inbox(kLag);
  poll(inbox, kPollBegan, {{"key:a", false}, {"key:b", false}});
  const auto until = inbox.read().second;
  inbox.post({"key:c", false});
  inbox.applied(until);
  EXPECT_EQ(names(inbox), (std::vector<std::string>{"key:c"}));
  EXPECT_EQ(inbox.attention().load(), 0);
  inbox.applied(until);  // somebody else applied the same
  EXPECT_EQ(names(inbox), (std::vector<std::string>{"key:c"}));
  inbox.applied(inbox.read().second);
  EXPECT_FALSE(inbox.waiting());
}

TEST(Inbox, N1APollThatBeganEarlierDoesNotShortenTrustNorGoBack) {
  Inbox inbox(kLag);
  const auto [from, round] = inbox.begin_poll();
  poll(inbox, kPollBegan + 5, {}, "2:2:");
  inbox.end_poll("1:1:", round, kPollBegan, {{"key:a", false}});
  EXPECT_EQ(inbox.trusted_until(), kPollBegan + 5 + kLag);
  EXPECT_EQ(inbox.begin_poll().first, "2:2:");
  EXPECT_EQ(names(inbox), (std::vector<std::string>{"key:a"})) << "what it brought counts";
}

TEST(Inbox, N2APollThatBeganBeforeTheLinkWasLostTrustsNothing) {
  Inbox inbox(kLag);
  poll(inbox, kPollBegan, {}, "1:1:");
  const auto [from, round] = inbox.begin_poll();
  inbox.lost();
  EXPECT_EQ(inbox.attention().load(), 0);
  inbox.end_poll("2:2:", round, kPollBegan + 5, {});
  EXPECT_EQ(inbox.attention().load(), 0);
  EXPECT_EQ(inbox.begin_poll().first, "1:1:") << "what it saw is asked for again";
  poll(inbox, kPollBegan + 6);
  EXPECT_EQ(inbox.attention().load(), kPollBegan + 6 + kLag);
}

TEST(Inbox, WhatWasLostKeepsItsMessages) {
  Inbox inbox(kLag);
  inbox.post({"key:a", false});
  inbox.lost();
  EXPECT_EQ(names(inbox), (std::vector<std::string>{"key:a"}));
}

TEST(Inbox, TheBeginningIsThatOfTheFirstConnection) {
  Inbox inbox(kLag);
  EXPECT_EQ(inbox.begin_poll().first, "");
  EXPECT_EQ(inbox.moment("k"), "");
  inbox.begin_from("1:1:", "a");
  inbox.begin_from("2:2:", "b");
  EXPECT_EQ(inbox.begin_poll().first, "1:1:");
  EXPECT_EQ(inbox.moment("k"), "1:1:/a");
}

TEST(Inbox, TheMomentIsTheNewestOfItsLife) {
  Inbox inbox(kLag);
  inbox.begin_from("5:5:", "a");
  inbox.know("7:7:/a");
  EXPECT_EQ(inbox.moment("k"), "7:7:/a");
  inbox.know("6:6:/a");
  EXPECT_EQ(inbox.moment("k"), "7:7:/a");
  inbox.know("2:2:/b");  // after a crash numbers begin below
  EXPECT_EQ(inbox.moment("k"), "2:2:/b");
  EXPECT_TRUE(inbox.is_another("b"));
  const auto [seen, round] = inbox.begin_poll();
  inbox.end_poll("3:3:", round, kPollBegan, {}, "b");
  EXPECT_EQ(inbox.moment("k"), "3:3:/b");
}

TEST(Inbox, N3MoreThanTheMostBecomeOneAll) {
  Inbox inbox(kLag);
  for (std::size_t i = 0; i < Inbox::kMostMessages; ++i) inbox.post({"key:" + std::to_string(i), true});
  EXPECT_EQ(names(inbox).size(), Inbox::kMostMessages);
  const auto until = inbox.read().second;
  inbox.post({"key:x", true});
  EXPECT_EQ(names(inbox), (std::vector<std::string>{"all"}));
  EXPECT_FALSE(inbox.read().first[0].soft);
  inbox.applied(until);
  EXPECT_EQ(names(inbox), (std::vector<std::string>{"all"})) << "it came after what was read";
  inbox.applied(inbox.read().second);
  EXPECT_FALSE(inbox.waiting());
}

TEST(Inbox, N3WithoutMemoryMessagesBecomeAll) {
  Inbox inbox(kLag);
  const std::string longer(50, 'x');
  Message message{"key:" + longer, false};
  inbox.post({"key:" + longer, false});  // there is room for one
  test::allocations_left = 0;
  inbox.post(std::move(message));
  test::allocations_left = -1;
  EXPECT_EQ(names(inbox), (std::vector<std::string>{"all"}));
  EXPECT_EQ(inbox.attention().load(), 0);
}

TEST(Inbox, ManyThreadsLoseNothing) {
  Inbox inbox(kLag);
  std::atomic<int> applied{0};
  std::atomic<bool> done{false};
  std::thread reader([&] {
    for (bool last = false; !last;) {
      last = done.load();
      const auto [messages, until] = inbox.read();
      applied += static_cast<int>(messages.size());
      inbox.applied(until);
    }
  });
  std::vector<std::thread> writers;
  for (int t = 0; t < 4; ++t) {
    writers.emplace_back([&] {
      for (int i = 0; i < 500; ++i) inbox.post({"key:a", false});
    });
  }
  for (auto& w : writers) w.join();
  done = true;
  reader.join();
  EXPECT_EQ(applied.load(), 2000);
  EXPECT_FALSE(inbox.waiting());
}

}  // namespace
}  // namespace stillwarm
