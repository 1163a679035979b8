// Request queue: the round trip, deadlines, broken connections, and the end. Q1 to Q5.
#include "core/remote/request_queue.hpp"

#include <gtest/gtest.h>

#include "remote/queue_fixture.hpp"

namespace stillwarm {
namespace {

using test::await_waiting;
using test::Ends;
using test::look_up;
using test::outcome;
using test::patient;
using test::Queue;
using test::store;

TEST(RequestQueue, ACallerDoesTheRoundTripItself) {
  Queue q;
  bool own = false;  // not at once: the thread that made the connection may not have put it back yet
  for (int i = 0; !own && i < 10'000; ++i) {
    ASSERT_EQ(outcome(q.queue, look_up("a")), TierFault::kOk);
    q.server->set([&] { own = q.server->served.back().thread == std::this_thread::get_id(); });
    std::this_thread::yield();
  }
  EXPECT_TRUE(own);
  EXPECT_EQ(q.server->made, 1);
}

// ---- Q1

TEST(RequestQueue, Q1EverySinkHearsOnceHoweverItEnds) {
  auto o = patient(1);
  o.most_waiting = 2;
  Queue q(o);
  q.occupy();
  const auto ends = std::make_shared<Ends>(*q.server);
  const auto post = [&](std::shared_ptr<Request> r) {
    r->sink = ends;
    q.queue.post(r);
    return r;
  };
  post(look_up("late", 1));  // 1 ns
  q.server->await("too late", [&] { return ends->count == 1; });
  const auto good = post(look_up("good"));
  const auto gone = post(look_up("gone"));
  post(look_up("full"));
  q.queue.abandon(gone);
  q.go_on();
  q.server->await("served", [&] { return ends->count == 3; });
  q.hold();
  post(look_up("cut"));
  q.server->await("it runs", [&] { return q.server->inside == 1; });
  post(look_up("closed"));
  q.queue.close(kSecond / 10);
  q.server->await("closed", [&] { return ends->count == 5; });
  post(look_up("too late"));
  EXPECT_EQ(ends->count, 6);
  EXPECT_EQ(ends->faults[0], TierFault::kTimeout);
  EXPECT_EQ(std::multiset<TierFault>(ends->faults.begin() + 1, ends->faults.begin() + 3),
            (std::multiset<TierFault>{TierFault::kOk, TierFault::kFull}));
  EXPECT_EQ(std::multiset<TierFault>(ends->faults.begin() + 3, ends->faults.end()),
            (std::multiset<TierFault>{TierFault::kTimeout, TierFault::kClosed, TierFault::kClosed}));
  EXPECT_FALSE(good->error);
}

TEST(RequestQueue, AnAbandonedRequestIsNotServedAndSaysNothing) {
  Queue q;
  q.occupy();
  const auto ends = std::make_shared<Ends>(*q.server);
  const auto r = look_up("gone");
  r->sink = ends;
  q.queue.post(r);
  await_waiting(q.queue, 1);
  q.queue.abandon(r);
  await_waiting(q.queue, 0);
  EXPECT_EQ(ends.use_count(), 1);
  q.go_on();
  q.join();
  ASSERT_EQ(outcome(q.queue, look_up("b")), TierFault::kOk);
  EXPECT_EQ(q.server->served.size(), 2u);
  EXPECT_EQ(ends->count, 0);
}

TEST(RequestQueue, ACallCanBeContinued) {
  Queue q;
  q.occupy();
  const auto r = look_up("a");
  EXPECT_FALSE(q.queue.run(r, steady_now()));
  EXPECT_FALSE(q.queue.run(r, steady_now() + 1'000'000));
  q.go_on();
  EXPECT_EQ(outcome(q.queue, r), TierFault::kOk);
  EXPECT_EQ(q.queue.run(r, 0)->fault, TierFault::kOk) << "it is over";
}

// ---- Q2, Q3

TEST(RequestQueue, Q2AServerThatDoesNotAnswerIsCutAtTheDeadline) {
  Queue q;
  ASSERT_EQ(outcome(q.queue, look_up("a")), TierFault::kOk);
  q.hold();
  EXPECT_EQ(outcome(q.queue, look_up("b", 20'000'000)), TierFault::kTimeout);
  q.server->await("cut", [&] { return q.server->cuts > 0 && q.server->connections == 0; });
  q.go_on();
  EXPECT_EQ(outcome(q.queue, look_up("c")), TierFault::kOk);
  EXPECT_EQ(q.server->made, 2) << "Q3: on another connection";
}

TEST(RequestQueue, Q2NoCallerWaitsInLineBeyondItsDeadline) {
  Queue q;
  q.occupy();
  EXPECT_EQ(outcome(q.queue, look_up("b", 5'000'000)), TierFault::kTimeout);
  EXPECT_EQ(q.queue.health().waiting, 0u);
  q.go_on();
}

TEST(RequestQueue, Q2NoCallerWaitsForAConnectionBeyondItsDeadline) {
  Queue q;
  q.server->set([&] { q.server->connecting_held = true; });
  EXPECT_EQ(outcome(q.queue, look_up("b", 5'000'000)), TierFault::kTimeout);
  EXPECT_EQ(q.queue.health().recent_failures, 1u) << "no connection: the tier failed it";
  q.server->set([&] { q.server->connecting_held = false; });
}

// One statement for two callers of which one has less time: it leaves while its request is in use.
TEST(RequestQueue, Q2ACallerLeavesWhileItsRequestIsServed) {
  Queue q;
  q.occupy();
  q.call(look_up("patient"));
  await_waiting(q.queue, 1);
  std::thread hasty([&] {
    auto r = look_up("hasty", 200'000'000);
    EXPECT_EQ(outcome(q.queue, r), TierFault::kTimeout);
  });
  await_waiting(q.queue, 2);
  q.server->set([&] { q.server->holds = [](const Request& r) { return test::name_of(r) == "patient"; }; });
  hasty.join();
  q.server->set([&] {
    q.server->answer = [](std::span<Request* const> batch) {
      for (Request* r : batch) static_cast<LookUp*>(r)->found.resize(1);  // also of the one that nobody waits for
    };
    q.server->holds = nullptr;
  });
  q.join();
  EXPECT_EQ(q.faults, (std::vector<TierFault>(2, TierFault::kOk)));
}

TEST(RequestQueue, Q2NoCallerServesWhatMayTakeLonger) {
  RequestQueue::Options o;
  o.links = 2;
  Queue q(o);
  const auto ends = std::make_shared<Ends>(*q.server);
  for (int i = 0; i < 300; ++i) {
    const auto slow = std::make_shared<Invalidate>("pattern:*", false);
    slow->sink = ends;
    q.queue.post(slow);
    static_cast<void>(outcome(q.queue, look_up("a")));
  }
  q.server->await("all have ended", [&] { return ends->count == 300; });
  q.server->set([&] {
    for (const auto& s : q.server->served) {
      EXPECT_FALSE(s.kind == Request::Kind::kInvalidate && s.thread == std::this_thread::get_id());
    }
  });
}

// ---- Q4

TEST(RequestQueue, Q4NobodyIsForgotten) {
  Queue q(2);
  constexpr int kThreads = 6, kEach = 400;
  const auto ends = std::make_shared<Ends>(*q.server);
  for (int t = 0; t < kThreads; ++t) {
    q.threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        std::shared_ptr<Request> r;
        if ((i + t) % 5 == 0) {
          r = std::make_shared<Poll>();
        } else if ((i + t) % 7 == 0) {
          r = store(std::to_string(i % 3));
        } else {
          r = look_up(std::to_string(i));
        }
        if ((i + t) % 3 == 0) {
          r->sink = ends;
          q.queue.post(r);
        } else {
          EXPECT_EQ(outcome(q.queue, r), TierFault::kOk);
        }
      }
    });
  }
  q.join();
  int posted = 0;
  for (int t = 0; t < kThreads; ++t) {
    for (int i = 0; i < kEach; ++i) posted += (i + t) % 3 == 0;
  }
  q.server->await("all that was posted", [&] { return ends->count == posted; });
  EXPECT_EQ(q.queue.health().served, static_cast<std::uint64_t>(kThreads * kEach));
  EXPECT_EQ(q.queue.health().failures, 0u);
  EXPECT_LE(q.server->most_polls_inside, 1);
  EXPECT_LE(q.server->made, 2);
}

TEST(RequestQueue, Q4AlsoWhereConnectionsBreak) {
  Queue q(2);
  std::vector<std::thread> threads;
  std::atomic<int> over{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        if (i % 20 == 0) q.server->set([&] { q.server->breaks = 1; });
        static_cast<void>(t % 2 == 0 ? outcome(q.queue, look_up("a")) : outcome(q.queue, store("a")));
        ++over;
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(over, 800);
  EXPECT_EQ(q.queue.health().waiting, 0u);
  EXPECT_LE(q.queue.health().open, 2u);
}

// ---- Q5

TEST(RequestQueue, Q5OnlyWhatIsIdempotentIsAskedOnceMore) {
  Queue q;
  ASSERT_EQ(outcome(q.queue, look_up("a")), TierFault::kOk);
  q.server->set([&] { q.server->breaks = 1; });
  EXPECT_EQ(outcome(q.queue, store("b")), TierFault::kUnavailable);
  EXPECT_EQ(q.server->served.size(), 2u);
  ASSERT_EQ(outcome(q.queue, look_up("a")), TierFault::kOk);
  q.server->set([&] { q.server->breaks = 1; });
  EXPECT_EQ(outcome(q.queue, look_up("c")), TierFault::kOk);
  EXPECT_EQ(q.server->served.size(), 5u);
  q.server->set([&] { q.server->breaks = 2; });
  EXPECT_EQ(outcome(q.queue, look_up("d")), TierFault::kUnavailable);
  EXPECT_EQ(q.server->served.size(), 7u) << "once more, and not for ever";
}

TEST(RequestQueue, Q5TheSecondAttemptIsNotOnAConnectionOfTheSameDeadServer) {
  Queue q(2);
  q.occupy();
  q.occupy();
  q.go_on();
  q.join();
  ASSERT_EQ(q.queue.health().open, 2u);
  q.server->set([&] { q.server->breaks = 1; });
  ASSERT_EQ(outcome(q.queue, look_up("a")), TierFault::kOk);
  EXPECT_EQ(q.server->made, 3);
  EXPECT_EQ(q.queue.health().open, 1u) << "the other one was given up, too";
}

TEST(RequestQueue, ARetryWithoutAnyConnectionEndsAtTheDeadline) {
  Queue q;
  ASSERT_EQ(outcome(q.queue, look_up("a")), TierFault::kOk);
  q.server->set([&] {
    q.server->breaks = 1;
    q.server->connecting_held = true;
  });
  EXPECT_EQ(outcome(q.queue, look_up("b", 50'000'000)), TierFault::kTimeout);
  q.server->set([&] { q.server->connecting_held = false; });
}

}  // namespace
}  // namespace stillwarm
