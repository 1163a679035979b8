// The circuit breaker beside a model of it, in random schedules.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>
#include <utility>

#include "core/base/breaker.hpp"
#include "support.hpp"

namespace stillwarm {
namespace {

using test::kStart;

// The rules once more, written down naively: every call of the window by itself.
class BreakerModel {
 public:
  bool allow(Nanos now) {
    if (closed_) return true;
    if ((probing_ && now < probed_ + 30 * kSecond) || now < until_) return false;
    probed_ = now;
    return probing_ = true;
  }
  void result(Nanos now, bool failure) {
    if (!closed_) {
      if (!probing_) return;
      probing_ = false;
      if (!failure) return close();
      wait_ = std::min(2 * wait_, 30 * kSecond);
      until_ = now + wait_;
      return;
    }
    row_ = failure ? row_ + 1 : 0;
    calls_.emplace_back(now / kSecond, failure);
    while (calls_.front().first <= now / kSecond - 10) calls_.pop_front();
    const auto failures = std::count_if(calls_.begin(), calls_.end(), [](const auto& call) { return call.second; });
    if (row_ < 5 && (calls_.size() < 20 || static_cast<std::size_t>(2 * failures) < calls_.size())) return;
    closed_ = false;
    wait_ = 2 * kSecond;
    until_ = now + wait_;
  }
  void abandoned() { probing_ = false; }
  void close() {
    closed_ = true;
    probing_ = false;
    row_ = 0;
    calls_.clear();
  }
  bool closed() const { return closed_; }

 private:
  bool closed_ = true;
  bool probing_ = false;
  int row_ = 0;
  Nanos probed_ = 0;
  Nanos until_ = 0;
  Nanos wait_ = 0;
  std::deque<std::pair<std::int64_t, bool>> calls_;
};

TEST(CircuitBreaker, RandomSchedulesGoAsTheModelSays) {
  std::mt19937_64 engine(11);
  int closings = 0;
  int openings = 0;
  std::uint64_t refused = 0;
  BreakerOptions options;
  options.probe_most = 30 * kSecond;
  for (const int failing : {5, 30, 50, 60, 90}) {
    CircuitBreaker breaker(options);
    BreakerModel model;
    Nanos now = kStart;
    for (int step = 0; step < 40'000; ++step) {
      now += static_cast<Nanos>(engine() % (step % 1'000 < 500 ? 300 : 3'000)) * kMillisecond;
      const bool before = model.closed();
      const std::uint64_t what = engine() % 100;
      const bool failure = static_cast<int>(engine() % 100) < failing;
      if (what < 90) {
        const bool go = breaker.allow(now);
        ASSERT_EQ(go, model.allow(now)) << step;
        if (go && what < 5) {
          breaker.abandoned();
          model.abandoned();
        } else if (go && what < 85) {  // the others come late, or never
          failure ? breaker.failed(now) : breaker.succeeded(now);
          model.result(now, failure);
        }
      } else if (what < 99) {
        failure ? breaker.failed(now) : breaker.succeeded(now);
        model.result(now, failure);
      } else {
        breaker.probe_succeeded();
        if (!model.closed()) model.close();
      }
      ASSERT_EQ(breaker.state(now) == Circuit::kClosed, model.closed()) << step;
      closings += !before && model.closed() ? 1 : 0;
      openings += before && !model.closed() ? 1 : 0;
    }
    refused += breaker.refused();
  }
  EXPECT_GT(refused, 1'000u);
  EXPECT_GT(closings, 1'000);
  EXPECT_GT(openings, 1'000);
}

}  // namespace
}  // namespace stillwarm
