// The delay sequence: growth, cap, bounds and distribution of the spread, extremes.
#include "core/retry/backoff.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>
#include <vector>

namespace stillwarm {
namespace {

constexpr double kAlmostOne = 0x1.fffffffffffffp-1;  // the largest draw below 1

const Backoff kReference{200 * kMillisecond, 2 * kSecond, 2.0, 0.3, 0.3};

TEST(Backoff, DoublesUpToTheCap) {
  const std::vector<Nanos> expected{200 * kMillisecond,   400 * kMillisecond, 800 * kMillisecond,
                                    1'600 * kMillisecond, 2 * kSecond,        2 * kSecond};
  for (std::uint32_t n = 0; n < expected.size(); ++n) EXPECT_EQ(kReference.nominal(n), expected[n]) << n;
}

TEST(Backoff, SpreadKeepsItsBoundsAndNeverPassesTheCap) {
  std::mt19937_64 engine(20'240'601);
  std::uniform_real_distribution<double> draw(0.0, 1.0);
  for (std::uint32_t n = 0; n < 8; ++n) {
    const double nominal = static_cast<double>(kReference.nominal(n));
    const auto low = static_cast<Nanos>(nominal * 0.7);
    const Nanos high = std::min(kReference.cap, static_cast<Nanos>(nominal * 1.3));
    Nanos smallest = kForever;
    Nanos largest = 0;
    for (int i = 0; i < 10'000; ++i) {
      const Nanos d = kReference.delay(n, draw(engine));
      ASSERT_GE(d, low - 1) << n;
      ASSERT_LE(d, high) << n;
      smallest = std::min(smallest, d);
      largest = std::max(largest, d);
    }
    const Nanos edge = (high - low) / 100;
    EXPECT_LT(smallest, low + edge) << n;
    EXPECT_GT(largest, high - edge) << n;
  }
}

TEST(Backoff, SpreadIsEvenAlsoAtTheCap) {
  // Ten equal slices of the range hold a tenth of the draws each; a result cut at the cap would fill the last with
  // half.
  std::mt19937_64 engine(7);
  std::uniform_real_distribution<double> draw(0.0, 1.0);
  const double low = 2e9 * 0.7;
  std::array<int, 10> slices{};
  for (int i = 0; i < 10'000; ++i) {
    const double d = static_cast<double>(kReference.delay(9, draw(engine)));
    ++slices[std::min<std::size_t>(9, static_cast<std::size_t>((d - low) / (2e9 - low) * 10))];
  }
  for (const int count : slices) EXPECT_NEAR(count, 1'000, 150);
}

TEST(Backoff, WithoutSpreadTheDrawDoesNotMatter) {
  const Backoff plain{200 * kMillisecond, 2 * kSecond, 2.0, 0.0, 0.0};
  EXPECT_EQ(plain.delay(2, 0.0), 800 * kMillisecond);
  EXPECT_EQ(plain.delay(2, kAlmostOne), 800 * kMillisecond);
}

TEST(Backoff, FullJitterIsBetweenZeroAndTheNominalDelay) {
  const Backoff full{200 * kMillisecond, 2 * kSecond, 2.0, 1.0, 0.0};
  EXPECT_EQ(full.delay(1, 0.0), 0);
  EXPECT_EQ(full.delay(1, 0.5), 200 * kMillisecond);
  EXPECT_LE(full.delay(1, kAlmostOne), 400 * kMillisecond);
}

TEST(Backoff, ExtremesDoNotOverflow) {
  EXPECT_EQ(kReference.nominal(4'000'000'000U), 2 * kSecond);
  const Backoff huge{kForever, kForever, 1e300, 1.0, 1.0};
  EXPECT_EQ(huge.nominal(4'000'000'000U), kForever);
  EXPECT_GE(huge.delay(3, kAlmostOne), 0);
  EXPECT_EQ(huge.at_least(kForever, kAlmostOne), kForever);
  const Backoff none{0, 2 * kSecond, 2.0, 0.3, 0.3};
  EXPECT_EQ(none.delay(4'000'000'000U, 0.5), 0);
}

TEST(Backoff, AServersWaitIsSpreadUpwardOnlyAndMayPassTheCap) {
  EXPECT_EQ(kReference.at_least(10 * kSecond, 0.0), 10 * kSecond);
  EXPECT_EQ(kReference.at_least(10 * kSecond, 0.5), 11'500 * kMillisecond);
  const Backoff full{200 * kMillisecond, 2 * kSecond, 2.0, 1.0, 0.0};
  EXPECT_EQ(full.at_least(10 * kSecond, 0.5), 15 * kSecond);
}

}  // namespace
}  // namespace stillwarm
