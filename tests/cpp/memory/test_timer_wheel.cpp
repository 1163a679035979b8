// TimerWheel: never early, at most a tick late, bounded work, against a model that keeps a sorted map.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

#include "core/memory/timer_wheel.hpp"
#include "support.hpp"

namespace stillwarm {
namespace {

using test::kDay;

constexpr Nanos kYear = 365 * kDay;
constexpr std::uint32_t kPlenty = 1u << 30;

class TimerWheelTest : public testing::Test {
 protected:
  explicit TimerWheelTest(Nanos start = 5 * kSecond) : now_(start), wheel_(slab_, start) {}

  Index add(Nanos deadline) {
    const Index i = slab_.allocate();
    deadline_[i] = deadline;
    wheel_.schedule(i, deadline);
    return i;
  }

  std::uint32_t advance(Nanos now, std::uint32_t budget = kPlenty) {
    now_ = std::max(now_, now);
    return wheel_.advance(
        now, budget, [this](Index i) { return deadline_.at(i); },
        [this](Index i) {
          EXPECT_LE(deadline_.at(i), now_) << "early";
          expired_.push_back(i);
        });
  }

  Slab slab_;
  Nanos now_;
  TimerWheel wheel_;
  std::map<Index, Nanos> deadline_;
  std::vector<Index> expired_;
};

TEST_F(TimerWheelTest, ExpiresWithinOneTickAtEveryDistance) {
  for (Nanos distance :
       {Nanos{1}, TimerWheel::kTick, 100 * TimerWheel::kTick, kSecond, 3600 * kSecond, kDay, kYear, 50 * kYear}) {
    expired_.clear();
    const Nanos deadline = now_ + distance;
    const Index i = add(deadline);
    advance(deadline - 1);
    EXPECT_TRUE(expired_.empty()) << distance;
    ASSERT_TRUE(wheel_.check_invariants());
    advance(deadline + TimerWheel::kTick);
    EXPECT_EQ(expired_, std::vector<Index>{i}) << distance;
    EXPECT_EQ(wheel_.scheduled(), 0u);
  }
}

TEST_F(TimerWheelTest, AJumpOverEmptyYearsLooksAtNothing) {
  const Nanos start = now_;
  add(start + 80 * kYear);
  EXPECT_EQ(advance(start + 10 * kYear), 0u);
  EXPECT_LE(advance(start + 79 * kYear), 7u);
  EXPECT_TRUE(expired_.empty());
}

TEST_F(TimerWheelTest, ADeadlineInThePastIsDueOnTheNextAdvance) {
  advance(now_ + kDay);
  const Index a = add(kSecond);
  const Index b = add(-kSecond);
  EXPECT_TRUE(wheel_.check_invariants());
  advance(now_);
  EXPECT_EQ(expired_.size(), 2u);
  EXPECT_NE(std::find(expired_.begin(), expired_.end(), a), expired_.end());
  EXPECT_NE(std::find(expired_.begin(), expired_.end(), b), expired_.end());
}

TEST_F(TimerWheelTest, ForeverIsNeverScheduled) {
  const Index i = add(kForever);
  EXPECT_EQ(wheel_.scheduled(), 0u);
  wheel_.cancel(i);
  add(kForever - 1);
  EXPECT_EQ(wheel_.scheduled(), 1u);
  EXPECT_TRUE(wheel_.check_invariants());
  advance(kForever - kYear);
  EXPECT_TRUE(expired_.empty());
  const Index again = add(now_ + kSecond);
  wheel_.schedule(again, kForever);
  EXPECT_EQ(wheel_.scheduled(), 1u);
}

TEST_F(TimerWheelTest, ADeadlineThatMovedLaterIsPlacedAgainWithoutACall) {
  const Index i = add(now_ + kSecond);
  const Index never = add(now_ + kSecond);
  deadline_[i] = now_ + kDay;
  deadline_[never] = kForever;
  const Nanos start = now_;
  advance(start + kDay - 1);
  EXPECT_TRUE(expired_.empty());
  EXPECT_EQ(wheel_.scheduled(), 1u);
  advance(start + kDay + TimerWheel::kTick);
  EXPECT_EQ(expired_, std::vector<Index>{i});
}

TEST_F(TimerWheelTest, TheBudgetBoundsTheWorkAndNothingIsLost) {
  constexpr std::uint32_t kEntries = 1000;
  for (std::uint32_t n = 0; n < kEntries; ++n) add(now_ + kSecond + n % 3);
  const Nanos late = now_ + kDay;
  EXPECT_EQ(advance(late, 0), 0u);
  std::uint32_t calls = 0;
  while (wheel_.scheduled() != 0) {
    const std::size_t before = expired_.size();
    EXPECT_EQ(advance(late, 64), std::min<std::uint32_t>(64, kEntries - 64 * calls));
    EXPECT_LE(expired_.size() - before, 64u);
    ASSERT_TRUE(wheel_.check_invariants());
    ++calls;
  }
  EXPECT_EQ(calls, (kEntries + 63) / 64);
  EXPECT_EQ(expired_.size(), kEntries);
}

TEST_F(TimerWheelTest, ExpireMayCancelScheduleAndFree) {
  const Index a = add(now_ + kSecond);
  const Index b = add(now_ + kSecond);
  const Index c = slab_.allocate();
  int calls = 0;
  wheel_.advance(
      now_ + 2 * kSecond, kPlenty, [&](Index) { return Nanos{1}; },
      [&](Index i) {
        if (++calls == 1) {
          wheel_.cancel(i == a ? b : a);
          wheel_.schedule(c, now_);
        }
        slab_.free(i);
      });
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(wheel_.scheduled(), 0u);
}

TEST_F(TimerWheelTest, AClockThatStepsBackExpiresNothingEarly) {
  advance(now_ + kDay);
  const Index i = add(now_ + kSecond);
  EXPECT_EQ(wheel_.advance(
                0, kPlenty, [&](Index x) { return deadline_.at(x); }, [&](Index) { FAIL(); }),
            0u);
  advance(now_ + kSecond + TimerWheel::kTick);
  EXPECT_EQ(expired_, std::vector<Index>{i});
}

// Random schedules, moves in both directions, cancellations and small budgets. After each full advance the wheel and
// the model agree on who is left, up to one tick.
TEST_F(TimerWheelTest, AgreesWithASortedMap) {
  std::mt19937_64 random(11);
  std::vector<Index> all;
  for (int n = 0; n < 600; ++n) all.push_back(slab_.allocate());
  std::map<Index, Nanos> model;
  const auto distance = [&] { return static_cast<Nanos>(random() % (std::uint64_t{1} << (10 + random() % 50))); };
  for (int step = 0; step < 60'000; ++step) {
    const Index i = all[random() % all.size()];
    switch (random() % 8) {
      case 0:
        wheel_.cancel(i);
        model.erase(i);
        break;
      case 1:  // moves later, silently
        if (model.contains(i)) model[i] += distance();
        break;
      case 2:
      case 3: {
        const bool whole = random() % 2 == 0;
        now_ += distance() >> (20 + random() % 30);
        const std::uint32_t budget = whole ? kPlenty : static_cast<std::uint32_t>(random() % 9);
        const std::uint32_t work = wheel_.advance(
            now_, budget, [&](Index x) { return model.at(x); },
            [&](Index x) {
              ASSERT_LE(model.at(x), now_);
              model.erase(x);
            });
        ASSERT_LE(work, budget);
        if (whole) {
          for (const auto& [x, deadline] : model) ASSERT_GT(deadline, now_ - TimerWheel::kTick) << "late";
        }
        break;
      }
      default:
        model[i] = now_ + distance() - (random() % 4 == 0 ? kSecond : 0);
        wheel_.schedule(i, model[i]);
    }
    ASSERT_EQ(wheel_.scheduled(), model.size());
    ASSERT_TRUE(step % 16 != 0 || wheel_.check_invariants());
  }
}

}  // namespace
}  // namespace stillwarm
