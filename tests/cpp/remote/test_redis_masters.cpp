// A circuit for each master. Thread rule: one thread, but for the last test.
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "core/remote/redis_masters.hpp"

namespace stillwarm {
namespace {

using MasterOutcome = RedisMasters::Outcome;
const RedisPlace kA("a", 1), kB("b", 1);

void fail(RedisMasters& masters, const RedisPlace& place, Nanos now, int times = 5) {
  for (int i = 0; i < times; ++i) {
    ASSERT_TRUE(masters.allow(place, now));
    masters.report(place, MasterOutcome::kFailed, now);
  }
}

TEST(RedisMasters, OneThatFailsIsLeftAloneAndTheOthersGoOn) {
  RedisMasters masters;
  ASSERT_TRUE(masters.allow(kB, kSecond));
  masters.report(kB, MasterOutcome::kAnswered, kSecond);
  fail(masters, kA, kSecond);
  EXPECT_FALSE(masters.allow(kA, kSecond));
  EXPECT_TRUE(masters.is_away(kA, kSecond));
  EXPECT_TRUE(masters.allow(kB, kSecond));
  EXPECT_FALSE(masters.is_away(kB, kSecond));
  const std::vector<RedisPlace> both = {kA, kB}, first = {kA};
  EXPECT_TRUE(masters.some_answer(both));
  EXPECT_FALSE(masters.some_answer(first));
}

TEST(RedisMasters, OneCallerProbesAfterAWhile) {
  RedisMasters masters;
  fail(masters, kA, kSecond);
  EXPECT_FALSE(masters.allow(kA, 2 * kSecond));
  EXPECT_TRUE(masters.allow(kA, 4 * kSecond));
  EXPECT_FALSE(masters.allow(kA, 4 * kSecond)) << "one at a time";
  masters.report(kA, MasterOutcome::kUnasked, 4 * kSecond);
  EXPECT_TRUE(masters.allow(kA, 4 * kSecond)) << "it came to no end";
  masters.report(kA, MasterOutcome::kAnswered, 4 * kSecond);
  EXPECT_FALSE(masters.is_away(kA, 4 * kSecond));
}

TEST(RedisMasters, TheEarProbesBesideTheTraffic) {
  RedisMasters masters;
  for (int i = 0; i < 5; ++i) masters.probed(kA, false, kSecond);
  EXPECT_FALSE(masters.allow(kA, kSecond)) << "it notices too";
  for (int i = 0; i < 50; ++i) masters.probed(kA, false, 2 * kSecond);
  EXPECT_TRUE(masters.allow(kA, 4 * kSecond)) << "which lengthens nothing";
  masters.report(kA, MasterOutcome::kFailed, 4 * kSecond);
  EXPECT_FALSE(masters.allow(kA, 4 * kSecond));
  masters.probed(kA, true, 4 * kSecond);
  EXPECT_TRUE(masters.allow(kA, 4 * kSecond));
}

TEST(RedisMasters, NobodyWaitsTwiceForOneThatFailedAMomentAgo) {
  RedisMasters masters;
  EXPECT_FALSE(masters.failed_lately(kA, kSecond));
  fail(masters, kA, kSecond, 1);
  EXPECT_FALSE(masters.is_away(kA, kSecond));
  EXPECT_TRUE(masters.failed_lately(kA, kSecond + RedisMasters::kMoment / 2));
  EXPECT_FALSE(masters.failed_lately(kA, kSecond + RedisMasters::kMoment));
  fail(masters, kA, kSecond, 1);
  masters.probed(kA, true, kSecond);
  EXPECT_FALSE(masters.failed_lately(kA, kSecond));
}

TEST(RedisMasters, ResetForgetsWhoWasAway) {
  RedisMasters masters;
  fail(masters, kA, kSecond);
  masters.reset();
  EXPECT_TRUE(masters.allow(kA, kSecond));
}

TEST(RedisMasters, ThreadsReportAtTheSameTime) {
  RedisMasters masters;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&masters, t] {
      const RedisPlace& mine = t % 2 == 0 ? kA : kB;
      for (Nanos now = 1; now < 2'000; ++now) {
        if (masters.allow(mine, now))
          masters.report(mine, t % 2 == 0 ? MasterOutcome::kAnswered : MasterOutcome::kFailed, now);
        masters.probed(mine, t % 2 == 0, now);
        static_cast<void>(masters.failed_lately(kA, now));
        static_cast<void>(masters.some_answer(std::vector<RedisPlace>{kA, kB}));
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_FALSE(masters.is_away(kA, 2'000));
  EXPECT_TRUE(masters.is_away(kB, 2'000));
}

}  // namespace
}  // namespace stillwarm
