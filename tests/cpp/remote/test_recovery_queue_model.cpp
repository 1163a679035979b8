// The recovery queue without memory, and under random schedules beside a model that forgets nothing.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

#include "core/remote/recovery_queue.hpp"
#include "support.hpp"

namespace stillwarm {
namespace {

using test::kAny;

using Texts = std::vector<std::string>;

// Long enough that no string fits into its own object.
std::string longer(const std::string& text) { return text + std::string(40, '.'); }

TEST(RecoveryQueue, WithoutMemoryAnInvalidationBecomesAll) {
  int became = 0;
  for (int n = 0;; ++n) {
    RecoveryQueue queue;
    queue.add(longer("key:a"), false);
    const std::string name = longer("tag:b");
    test::allocations_left = n;
    queue.add(name, true);
    test::allocations_left = -1;
    const auto waiting = queue.peek_invalidations(kAny);
    if (waiting.size() == 2) {
      EXPECT_EQ(waiting.back().name, name);
      break;
    }
    ++became;
    ASSERT_EQ(waiting.size(), 1u);
    EXPECT_EQ(waiting.front().name, "all");
    EXPECT_FALSE(waiting.front().soft);
    EXPECT_TRUE(queue.concerns("any", "t", {}));
    queue.confirmed(waiting.front().number);
    EXPECT_TRUE(queue.empty());
    queue.add("key:c", false);
    EXPECT_EQ(queue.peek_invalidations(kAny).front().name, "key:c");
  }
  EXPECT_GE(became, 2) << "the name and its place";
}

TEST(RecoveryQueue, WithoutMemoryAWriteIsDroppedWithTheOlderOneOfItsKey) {
  int dropped = 0;
  for (int n = 0;; ++n) {
    RecoveryQueue queue;
    queue.add({longer("a"), "t", {}, 3, nullptr});
    queue.add({longer("b"), "t", {}, 5, nullptr});
    QueuedWrite newer{longer("a"), "t", {}, 7, nullptr};
    test::allocations_left = n;
    queue.add(std::move(newer));
    test::allocations_left = -1;
    EXPECT_EQ(queue.writes() + queue.dropped(), 2u);
    EXPECT_EQ(queue.bytes(), queue.dropped() == 0 ? 12u : 5u);
    EXPECT_EQ(queue.peek_writes(1).front().key, longer("b"));
    if (queue.dropped() == 0) break;
    ++dropped;
  }
  EXPECT_EQ(dropped, 2) << "the write and its place by key";
}

TEST(RecoveryQueue, WithoutMemoryToLookNothingCountsAsSent) {
  RecoveryQueue queue;
  for (const char* name : {"key:a", "key:b", "key:c"}) queue.add(longer(name), false);
  std::vector<QueuedInvalidation> seen;
  const int failures = test::with_failing_allocations([&] { seen = queue.peek_invalidations(kAny); },
                                                      [&] {
                                                        queue.add(longer("key:a"), false);
                                                        ASSERT_EQ(queue.invalidations(), 3u);
                                                      });
  EXPECT_GE(failures, 4);
  EXPECT_EQ(seen.size(), 3u);
  queue.confirmed(seen.back().number);
  queue.add({longer("a"), "t", {}, 3, nullptr});
  std::vector<SentWrite> writes;
  EXPECT_GE(
      test::with_failing_allocations([&] { writes = queue.peek_writes(kAny); }, [&] { ASSERT_EQ(queue.writes(), 1u); }),
      2);
  EXPECT_EQ(writes.size(), 1u);
}

TEST(RecoveryQueue, QuestionsAndLeavingNeedNoMemory) {
  RecoveryQueue queue;
  for (const char* name : {"key:a", "tag:a", "type:a", "pattern:a*"}) queue.add(longer(name), false);
  queue.add({longer("k"), "t", {"g"}, 3, nullptr});
  queue.add({longer("l"), "t", {"g"}, 3, nullptr});
  const Texts tags = {longer("x"), longer("y")};
  const std::string key = longer("k");
  const auto sent = queue.peek_invalidations(kAny);
  test::allocations_left = 0;
  EXPECT_FALSE(queue.concerns(key, "t", tags));
  queue.forget(key, "t");
  queue.add("tag:nothing", false);  // becomes all
  queue.confirmed(sent.back().number);
  const std::size_t waiting = queue.invalidations();
  queue.add_all();
  queue.clear();
  test::allocations_left = -1;
  EXPECT_EQ(waiting, 1u);
}

// ---- random schedules

// Every invalidation and write by itself, with the moment of its coming. The tier does what it is sent in order.
class OwedModel {
 public:
  struct Invalidation {
    std::string name;
    bool soft;
  };

  // The sender's answer came: whatever was added before it was sent is done.
  void done(const std::string& name, bool soft, std::size_t sent_at) {
    std::erase_if(waiting_, [&](const auto& entry) {
      const bool covered = name == "all" && !soft;
      return entry.first < sent_at && (covered || (entry.second.name == name && (!soft || entry.second.soft)));
    });
  }
  void add(const std::string& name, bool soft) { waiting_.emplace(++moment_, Invalidation{name, soft}); }
  std::size_t now() const { return moment_ + 1; }
  bool empty() const { return waiting_.empty(); }
  std::size_t size() const { return waiting_.size(); }

  bool concerns(const std::string& key, const std::string& type, const std::string& tag) const {
    for (const auto& [at, one] : waiting_) {
      if (one.name == "all" || one.name == "key:" + key || one.name == "type:" + type || one.name == "tag:" + tag)
        return true;
    }
    return false;
  }

 private:
  std::size_t moment_ = 0;
  std::map<std::size_t, Invalidation> waiting_;
};

TEST(RecoveryQueue, RandomSchedulesLoseNoInvalidation) {
  std::mt19937_64 engine(17);
  const auto any = [&engine](std::uint64_t n) { return std::to_string(engine() % n); };
  RecoveryLimits limits;
  limits.most_invalidations = 12;
  limits.most_writes = 8;
  limits.most_bytes = 40;
  RecoveryQueue queue(limits);
  OwedModel model;
  std::map<std::string, std::uint64_t> newest;  // key -> id of the write that may still be sent
  std::uint64_t ids = 0;
  std::vector<QueuedInvalidation> sent;
  std::vector<SentWrite> written;
  std::size_t sent_at = 0;
  int idle = 0;
  int sent_writes = 0;
  for (int step = 0; step < 100'000; ++step) {
    const std::uint64_t what = engine() % 100;
    if (what < 25) {
      static constexpr const char* kKinds[] = {"key:", "type:", "tag:"};
      const std::string name = engine() % 60 == 0 ? "all" : kKinds[engine() % 3] + any(6);
      const bool soft = engine() % 3 == 0;
      queue.add(name, soft);
      model.add(name, soft);
      std::erase_if(newest, [&](const auto& entry) {  // key k has type k % 3 and tag k % 2
        const std::uint64_t k = std::stoull(entry.first);
        return name == "all" || name == "key:" + entry.first || name == "type:" + std::to_string(k % 3) ||
               name == "tag:" + std::to_string(k % 2);
      });
    } else if (what < 45) {
      const std::uint64_t k = engine() % 12;
      const auto request = std::make_shared<std::uint64_t>(++ids);
      newest[std::to_string(k)] = ids;
      queue.add({std::to_string(k), std::to_string(k % 3), {std::to_string(k % 2)}, engine() % 10, request});
    } else if (what < 48) {
      const std::string key = any(12);
      queue.forget(key, std::to_string(std::stoull(key) % 3));
      newest.erase(key);
    } else if (what < 70 && sent.empty()) {
      sent = queue.peek_invalidations(1 + engine() % 15);
      sent_at = model.now();
    } else if (what < 85 && !sent.empty()) {
      if (engine() % 4 == 0) {  // the tier is away again
        if (engine() % 2 == 0) queue.put_back();
      } else {
        const std::size_t through = 1 + engine() % sent.size();
        for (std::size_t i = 0; i < through; ++i) model.done(sent[i].name, sent[i].soft, sent_at);
        queue.confirmed(sent[through - 1].number);
      }
      sent.clear();
    } else if (what < 95 && written.empty()) {
      written = queue.peek_writes(1 + engine() % 4);
      if (!written.empty()) {
        ASSERT_TRUE(model.empty()) << step;
      }
      for (const SentWrite& one : written) {
        const auto allowed = newest.find(one.key);
        ASSERT_NE(allowed, newest.end()) << "invalidated or superseded: " << one.key;
        ASSERT_EQ(*std::static_pointer_cast<std::uint64_t>(one.request), allowed->second) << "not the newest";
        ++sent_writes;
      }
    } else {
      for (const SentWrite& one : written) queue.confirmed(one);
      written.clear();
    }
    if (queue.overflowed() == 0 || step % 2 == 0) {
      const std::uint64_t k = engine() % 12;
      const Texts tags = {std::to_string(k % 2)};
      // It may say yes too often (it became `all`), never no while something waits.
      const bool says = queue.concerns(std::to_string(k), std::to_string(k % 3), tags);
      if (model.concerns(std::to_string(k), std::to_string(k % 3), tags.front())) {
        ASSERT_TRUE(says) << step;
      }
      idle += says ? 0 : 1;
    }
    ASSERT_LE(queue.invalidations(), limits.most_invalidations);
    ASSERT_LE(queue.writes(), limits.most_writes);
    ASSERT_LE(queue.bytes(), limits.most_bytes);
    if (queue.invalidations() == 0) {
      ASSERT_TRUE(model.empty()) << step;
    }
  }
  EXPECT_GT(idle, 1'000) << "else it would pass with a queue that always says yes";
  EXPECT_GT(sent_writes, 1'000);
  EXPECT_GT(queue.overflowed(), 10u);
  EXPECT_GT(queue.dropped(), 100u);
}

}  // namespace
}  // namespace stillwarm
