// Ghosts: reach, forgetting, and a clock that wraps.
#include <gtest/gtest.h>

#include <cstdint>

#include "core/memory/ghosts.hpp"

namespace stillwarm {
namespace {

TEST(Ghosts, AnswersWithinReachAndOnlyOnce) {
  Ghosts ghosts(1);
  ghosts.reserve(100);
  ghosts.remember(42, 1000);
  EXPECT_FALSE(ghosts.take(43, 1000, 10));
  EXPECT_TRUE(ghosts.take(42, 1010, 10));
  EXPECT_FALSE(ghosts.take(42, 1010, 10));
  ghosts.remember(42, 1000);
  EXPECT_FALSE(ghosts.take(42, 1011, 10));
}

TEST(Ghosts, TheClockMayWrap) {
  Ghosts ghosts(1);
  ghosts.reserve(100);
  ghosts.remember(7, 0xfffffffe);
  EXPECT_TRUE(ghosts.take(7, 3, 10));
  ghosts.remember(7, 0xfffffffe);
  EXPECT_FALSE(ghosts.take(7, 30, 10));
}

TEST(Ghosts, KeepsMostOfWhatItHasRoomForAndForgetsTheOldest) {
  Ghosts ghosts(1);
  ghosts.reserve(1024);
  for (std::uint32_t n = 0; n < 512; ++n) ghosts.remember(n, n);
  int kept = 0;
  for (std::uint32_t n = 0; n < 512; ++n) kept += ghosts.take(n, 512, 512);
  EXPECT_GT(kept, 350);
  for (std::uint32_t n = 0; n < 20'000; ++n) ghosts.remember(n, n);
  EXPECT_LE(ghosts.allocated_bytes(), 1024u * 8);
  kept = 0;
  for (std::uint32_t n = 0; n < 4000; ++n) kept += ghosts.take(n, 20'000, 20'000);
  EXPECT_LT(kept, 10);
}

}  // namespace
}  // namespace stillwarm
