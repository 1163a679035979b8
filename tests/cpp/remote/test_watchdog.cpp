// Watchdog: what is cut, what is not, sleep, and no memory.
#include "core/remote/watchdog.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "remote/fake_server.hpp"

namespace stillwarm {
namespace {

using test::FakeLink;
using test::FakeServer;

constexpr Nanos kNever = 1'000'000 * kSecond;

struct Cuts {
  FakeServer server;
  Watchdog watchdog;
  void await(int cuts) {
    server.await("a cut", [&] { return server.cuts >= cuts; });
  }
};

TEST(Watchdog, CutsAtTheDeadlineAndSaysSo) {
  Cuts t;
  FakeLink link(t.server);
  ASSERT_TRUE(t.watchdog.begin(link, steady_now()));
  t.await(1);
  EXPECT_TRUE(t.watchdog.end(link));
  EXPECT_FALSE(t.watchdog.end(link)) << "it is not watched any more";
}

TEST(Watchdog, WhatEndsInTimeIsNotCut) {
  Cuts t;
  FakeLink quick(t.server), slow(t.server);
  ASSERT_TRUE(t.watchdog.begin(quick, kNever));
  ASSERT_TRUE(t.watchdog.begin(slow, steady_now()));
  t.await(1);
  EXPECT_FALSE(t.watchdog.end(quick));
  EXPECT_TRUE(t.watchdog.end(slow));
}

TEST(Watchdog, CutsAgainUntilTheOperationHasNoticed) {
  Cuts t;
  FakeLink link(t.server);
  ASSERT_TRUE(t.watchdog.begin(link, steady_now()));
  t.await(3);
  EXPECT_TRUE(t.watchdog.end(link));
}

TEST(Watchdog, CutAllCutsWhateverRuns) {
  Cuts t;
  FakeLink a(t.server), b(t.server), c(t.server);
  ASSERT_TRUE(t.watchdog.begin(a, kNever));
  ASSERT_TRUE(t.watchdog.begin(b, kNever));
  ASSERT_TRUE(t.watchdog.begin(c, kNever));
  EXPECT_FALSE(t.watchdog.end(c));
  t.watchdog.cut_all();
  EXPECT_EQ(t.server.cuts, 2);
  EXPECT_TRUE(t.watchdog.end(a));
  EXPECT_TRUE(t.watchdog.end(b));
}

TEST(Watchdog, ALinkMayBeDestroyedOnceItsOperationEnded) {
  Cuts t;
  std::vector<std::thread> threads;
  for (int n = 0; n < 4; ++n) {
    threads.emplace_back([&] {
      for (int i = 0; i < 300; ++i) {
        std::unique_ptr<FakeLink> link;
        t.server.set([&] { link = std::make_unique<FakeLink>(t.server); });
        ASSERT_TRUE(t.watchdog.begin(*link, i % 2 == 0 ? steady_now() : kNever));
        if (i % 50 == 0) t.watchdog.cut_all();
        t.watchdog.end(*link);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(t.server.connections, 0);
}

// A second one is the clock: the first has had nothing to do for longer than it stays awake.
TEST(Watchdog, OneThatSleepsIsWokenByTheNextOperation) {
  Cuts sleeper, clock;
  FakeLink link(sleeper.server), tick(clock.server);
  ASSERT_TRUE(sleeper.watchdog.begin(link, kNever));
  ASSERT_FALSE(sleeper.watchdog.end(link));
  ASSERT_TRUE(clock.watchdog.begin(tick, steady_now() + kSecond + kSecond / 2));
  clock.await(1);
  clock.watchdog.end(tick);
  ASSERT_TRUE(sleeper.watchdog.begin(link, steady_now()));
  sleeper.await(1);
  EXPECT_TRUE(sleeper.watchdog.end(link));
}

TEST(Watchdog, WithoutMemoryNothingIsWatched) {
  Cuts t;
  int refused = 0;
  for (int n = 0;; ++n) {
    auto link = std::make_unique<FakeLink>(t.server);
    test::allocations_left = n;
    const bool begun = t.watchdog.begin(*link, steady_now());
    test::allocations_left = -1;
    if (begun) {
      t.await(1);
      EXPECT_TRUE(t.watchdog.end(*link));
      break;
    }
    ++refused;  // the link goes, and nobody may cut it
  }
  EXPECT_GE(refused, 2);
  EXPECT_GE(t.server.cuts, 1);
}

}  // namespace
}  // namespace stillwarm
