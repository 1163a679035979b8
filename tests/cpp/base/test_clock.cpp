// The clock: manual time, real time, and reading while it is moved.
#include "core/base/clock.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace stillwarm {
namespace {

struct RealTimeAfterwards {
  ~RealTimeAfterwards() { Clock::set_manual(0); }
};

TEST(Clock, StandsWhereItWasSet) {
  const RealTimeAfterwards restore;
  Clock::set_manual(123);
  EXPECT_TRUE(Clock::is_manual());
  EXPECT_EQ(Clock::now(), 123);
  EXPECT_EQ(Clock::now(), 123);
  Clock::set_manual(0);
  EXPECT_FALSE(Clock::is_manual());
  EXPECT_GT(Clock::now(), 123);
}

TEST(Clock, RealTimeDoesNotGoBack) {
  Nanos before = Clock::now();
  for (int n = 0; n < 1'000; ++n) {
    const Nanos now = Clock::now();
    ASSERT_GE(now, before);
    before = now;
    if (n % 100 == 0) Clock::resync(now);
  }
}

TEST(Clock, CountsWhatTheMachineSleptBeforeTheProcessBegan) {
  timespec boot{};
  clock_gettime(CLOCK_BOOTTIME, &boot);
  const Nanos since_boot = Nanos{boot.tv_sec} * 1'000'000'000 + boot.tv_nsec;
  EXPECT_LT(std::abs(since_boot - Clock::now()), 1'000'000'000) << "the first resync would jump";
}

TEST(Clock, ResyncMovesNothingWhileTimeIsManual) {
  const RealTimeAfterwards restore;
  const Nanos real = Clock::now();
  Clock::set_manual(kForever / 2);
  EXPECT_EQ(Clock::resync(Clock::now()), 0);
  EXPECT_EQ(Clock::now(), kForever / 2);
  Clock::set_manual(0);
  EXPECT_LT(Clock::now() - real, 60'000'000'000);
}

TEST(Clock, ManyThreadsReadWhileItIsSet) {
  const RealTimeAfterwards restore;
  constexpr Nanos kFirst = 1'000, kLast = 50'000;
  Clock::set_manual(kFirst);
  std::atomic<bool> done{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> readers;
  for (int n = 0; n < 3; ++n) {
    readers.emplace_back([&] {
      Nanos before = kFirst;
      while (!done.load()) {
        const Nanos now = Clock::now();
        if (now < before || now > kLast) ++wrong;
        before = now;
      }
    });
  }
  for (Nanos t = kFirst; t <= kLast; ++t) Clock::set_manual(t);
  done = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong.load(), 0);
}

}  // namespace
}  // namespace stillwarm
