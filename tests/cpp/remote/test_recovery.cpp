// Recovery: writes behind, what is owed, W1 to W3, limits, and the end.
#include "core/remote/recovery.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "remote/fake_server.hpp"

namespace stillwarm {
namespace {

using test::FakeServer;
using test::look_up;
using test::outcome;
using test::store;

using Texts = std::vector<std::string>;

struct Recovering {
  explicit Recovering(unsigned links = 1) {
    RequestQueue::Options o;
    o.links = links;
    o.timeout = o.longest_on_caller = 100 * kSecond;
    o.probe_every = 1'000'000;
    queue = std::make_shared<RequestQueue>(server, o);
    recovery = std::make_shared<Recovery>(queue, inbox);
    server->answer = [](std::span<Request* const> batch) {
      for (Request* r : batch) {
        if (r->kind == Request::Kind::kStore) static_cast<Store*>(r)->stored = true;
      }
    };
  }
  Recovering(const Recovering&) = delete;
  Recovering& operator=(const Recovering&) = delete;
  ~Recovering() { end(); }
  void end() {
    if (queue == nullptr) return;
    recovery->close();
    queue->close(0);
    recovery.reset();
    queue.reset();
    hold(false);
    server->await("no connection is left", [this] { return server->connections == 0; });
  }
  void hold(bool held) {
    server->set([&] {
      server->holds = nullptr;
      if (held) server->holds = [](const Request&) { return true; };
    });
  }
  bool concerns(const std::string& key, const std::string& type = "t", const Texts& tags = {}, Nanos asked = 0) {
    return recovery->concerns(key, type, tags, asked != 0 ? asked : steady_now());
  }
  // Kinds and names in the order in which the server was asked.
  Texts asked() {
    return server->get([this] {
      Texts all;
      for (const auto& s : server->served) all.insert(all.end(), s.names.begin(), s.names.end());
      return all;
    });
  }
  Texts messages() {
    Texts all;
    for (const auto& m : inbox->read().first) all.push_back(m.name);
    return all;
  }

  std::shared_ptr<FakeServer> server = std::make_shared<FakeServer>();
  std::shared_ptr<Inbox> inbox = std::make_shared<Inbox>(kSecond);
  std::shared_ptr<RequestQueue> queue;
  std::shared_ptr<Recovery> recovery;
};

constexpr Nanos kLong = 60 * kSecond;

TEST(Recovery, AWriteBehindIsWritten) {
  Recovering r;
  r.recovery->write(store("a"));
  EXPECT_TRUE(r.recovery->drain(kLong));
  EXPECT_EQ(r.recovery->figures().written, 1u);
  EXPECT_TRUE(r.messages().empty());
}

TEST(Recovery, W1InvalidationsGoFirstAndInTheirOrder) {
  Recovering r;
  r.server->set([&] { r.server->connecting_held = true; });
  r.recovery->owe("tag:b", false);
  r.server->await("it tries", [&] { return r.server->attempts > 0; });
  r.recovery->owe(store("w"));
  r.recovery->owe("key:a", true);
  r.recovery->owe(store("v"));
  r.server->set([&] { r.server->connecting_held = false; });
  EXPECT_TRUE(r.recovery->drain(kLong));
  EXPECT_EQ(r.asked(), (Texts{"tag:b", "key:a", "w", "v"}));
}

TEST(Recovery, W1AWriteThatAnOwedInvalidationConcernsWaitsForIt) {
  Recovering r;
  r.server->set([&] { r.server->connecting_held = true; });
  r.recovery->owe("key:a", false);
  r.recovery->write(store("a"));
  EXPECT_EQ(r.recovery->figures().owed_writes, 1u);
  r.server->set([&] { r.server->connecting_held = false; });
  EXPECT_TRUE(r.recovery->drain(kLong));
  EXPECT_EQ(r.asked(), (Texts{"key:a", "a"}));
}

TEST(Recovery, W2WhatIsOwedConcernsUntilTheTierHasIt) {
  Recovering r;
  r.hold(true);
  EXPECT_FALSE(r.concerns("a"));
  r.recovery->owe("tag:g", false);
  EXPECT_TRUE(r.concerns("a", "t", {"g"}));
  EXPECT_FALSE(r.concerns("a"));
  r.server->await("it is on its way", [&] { return r.server->inside == 1; });
  EXPECT_TRUE(r.concerns("a", "t", {"g"})) << "on its way is not there";
  r.server->set([&] { r.server->breaks = 1; });
  r.hold(false);  // it breaks, and is sent again
  EXPECT_TRUE(r.recovery->drain(kLong));
  EXPECT_FALSE(r.concerns("a", "t", {"g"}));
  EXPECT_TRUE(r.recovery->owes()) << "who looks has to ask on";
  EXPECT_TRUE(r.concerns("a", "t", {"g"}, 1)) << "the answer to what was asked before may be of before";
  EXPECT_FALSE(r.concerns("a", "t", {}, 1));
  EXPECT_EQ(r.asked(), (Texts{"tag:g", "tag:g"}));
}

TEST(Recovery, W2ANameThatTheServerNeverTakesGoesOutAsAll) {
  Recovering r;
  r.server->set([&] {
    r.server->answer = [](std::span<Request* const> batch) {
      for (Request* request : batch) {
        if (static_cast<Invalidate*>(request)->name == "tag:long") request->error = {TierFault::kRejected, "54000", ""};
      }
    };
  });
  r.recovery->owe("tag:long", false);
  r.recovery->owe("key:a", false);
  EXPECT_TRUE(r.recovery->drain(kLong));
  EXPECT_EQ(r.asked().back(), "all");
  EXPECT_FALSE(r.concerns("b"));
  const Texts heard = r.messages();
  EXPECT_NE(std::find(heard.begin(), heard.end(), "all"), heard.end());
}

TEST(Recovery, W3ARefusedWriteLeavesMemory) {
  Recovering r;
  r.server->set([&] { r.server->answer = nullptr; });
  r.recovery->write(store("a"));
  EXPECT_TRUE(r.recovery->drain(kLong));
  EXPECT_EQ(r.recovery->figures().refused, 1u);
  EXPECT_EQ(r.messages(), (Texts{"key:a"}));
  r.recovery->owe(store("b"));
  EXPECT_TRUE(r.recovery->drain(kLong));
  EXPECT_EQ(r.messages(), (Texts{"key:a", "key:b"}));
}

TEST(Recovery, AWriteThatTheServerRejectsIsNotRepeated) {
  Recovering r;
  r.server->set([&] {
    r.server->answer = [](std::span<Request* const> batch) {
      for (Request* one : batch) one->error = {TierFault::kRejected, "22P02", "no number"};
    };
  });
  r.recovery->write(store("a"));
  r.recovery->owe(store("b"));
  EXPECT_TRUE(r.recovery->drain(kLong));
  EXPECT_EQ(r.recovery->figures().rejected, 2u);
  EXPECT_EQ(r.recovery->figures().last_rejection.state, "22P02");
}

TEST(Recovery, AWriteThatTheServerWillTakeLaterIsRepeated) {
  for (const auto* state : {"25006", "NOAUTH", "WRONGPASS"}) {
    Recovering r;
    int left = 3;  // the write behind, the owed one, and one of them once more
    r.server->set([&] {
      r.server->answer = [&](std::span<Request* const> batch) {
        for (Request* one : batch) {
          if (left > 0) {
            --left;
            one->error = {TierFault::kRejected, state, "not now"};
          } else {
            static_cast<Store*>(one)->stored = true;
          }
        }
      };
    });
    r.recovery->write(store("a"));
    r.recovery->owe(store("b"));
    EXPECT_TRUE(r.recovery->drain(kLong)) << state;
    EXPECT_EQ(r.recovery->figures().written, 2u) << state;
    EXPECT_EQ(r.recovery->figures().rejected, 0u) << state;
  }
}

TEST(Recovery, AWriteWhoseConnectionIsNotThereComesBackLater) {
  Recovering r;
  r.server->set([&] { r.server->away = true; });
  r.recovery->write(store("a"));
  r.server->await("it is tried", [&] { return r.server->attempts > 0; });
  r.server->set([&] { r.server->away = false; });
  EXPECT_TRUE(r.recovery->drain(kLong));
  EXPECT_EQ(r.recovery->figures().written, 1u);
}

TEST(Recovery, AnOwedSetOverwritesNothingYoungerThanTheMomentItWasMadeAt) {
  Recovering r;
  r.inbox->begin_from("5:5:", "life");
  std::string born;
  r.server->set([&] {
    r.server->away = true;
    r.server->answer = [&](std::span<Request* const> batch) {
      born = static_cast<Store*>(batch.front())->born;
      static_cast<Store*>(batch.front())->stored = true;
    };
  });
  r.recovery->write(store("a", Store::Mode::kSet));
  r.server->await("it is tried", [&] { return r.server->attempts > 0; });
  r.server->set([&] { r.server->away = false; });
  EXPECT_TRUE(r.recovery->drain(kLong));
  EXPECT_EQ(r.server->get([&] { return born; }), "5:5:/life");
}

TEST(Recovery, AnOwedInvalidationIsHeardHereWhenItIsDone) {
  Recovering r;
  r.recovery->owe("tag:x", true);
  EXPECT_TRUE(r.recovery->drain(kLong));
  const auto messages = r.inbox->read().first;
  ASSERT_EQ(messages.size(), 1u) << "a look-up that was answered before may come home after";
  EXPECT_EQ(messages[0].name, "tag:x");
  EXPECT_TRUE(messages[0].soft);
}

TEST(Recovery, TheNewestWriteOfAKeyInItsTypeIsOwed) {
  Recovering r;
  r.server->set([&] { r.server->connecting_held = true; });
  r.recovery->owe("tag:x", false);
  r.recovery->owe(store("a"));
  r.recovery->owe(store("a"));
  auto other = store("a");
  other->type = "u";
  r.recovery->owe(other);
  EXPECT_EQ(r.recovery->figures().owed_writes, 2u) << "the same text is another entry in another type";
  auto newer = store("a");
  newer->type = "u";
  r.recovery->write(newer);
  EXPECT_EQ(r.recovery->figures().owed_writes, 1u) << "the newer one of this type is on its way";
  r.recovery->owe("key:a", false);
  EXPECT_EQ(r.recovery->figures().owed_writes, 0u) << "a key is one of every type";
  r.server->set([&] { r.server->connecting_held = false; });
  EXPECT_TRUE(r.recovery->drain(kLong));
}

TEST(Recovery, WhatIsWrittenBehindIsBounded) {
  Recovering r;
  r.hold(true);
  constexpr std::size_t kBig = 1 << 20;
  for (int i = 0; i < 40; ++i) r.recovery->write(store(std::to_string(i), Store::Mode::kLoad, kBig));
  const auto f = r.recovery->figures();
  EXPECT_GE(f.owed_writes, 10u);
  EXPECT_LT(f.owed_writes, 16u) << "there is a limit, too";
  EXPECT_EQ(f.dropped, 40u - f.owed_writes - 15u);
  EXPECT_LE(r.queue->health().waiting, 16u + f.owed_writes);
  r.hold(false);
  EXPECT_TRUE(r.recovery->drain(kLong));
}

TEST(Recovery, WithoutMemoryNothingWaitsForEver) {
  Recovering r;
  ASSERT_EQ(outcome(*r.queue, look_up("warm")), TierFault::kOk);
  for (int n = 0; n < 12; ++n) {
    const auto one = store("a key that is longer than a string holds in itself " + std::to_string(n));
    test::allocations_left = n;
    try {
      r.recovery->write(one);
    } catch (const std::bad_alloc&) {
      test::allocations_left = -1;
    }
    test::allocations_left = -1;
    ASSERT_TRUE(r.recovery->drain(kLong)) << n;
  }
}

TEST(Recovery, AClosedQueueHoldsNobodyUp) {
  Recovering r;
  r.hold(true);
  r.recovery->owe("tag:a", false);
  r.server->await("it is on its way", [&] { return r.server->inside == 1; });
  r.recovery->close();
  r.queue->close(0);
  r.recovery->owe("tag:b", false);
  r.recovery->write(store("a"));
  EXPECT_FALSE(r.recovery->drain(0)) << "an invalidation is owed";
}

// The last owner of everything is the sink of a request that is being served.
TEST(Recovery, ItsLastWriteMayOutliveIt) {
  Recovering r;
  r.hold(true);
  r.recovery->write(store("a"));
  r.server->await("it is on its way", [&] { return r.server->inside == 1; });
  const std::weak_ptr<Recovery> last = r.recovery;
  r.end();
  while (!last.expired()) std::this_thread::yield();
}

TEST(Recovery, DrainWaitsNoLongerThanItMay) {
  Recovering r;
  r.hold(true);
  r.recovery->write(store("a"));
  EXPECT_FALSE(r.recovery->drain(1));
}

}  // namespace
}  // namespace stillwarm
