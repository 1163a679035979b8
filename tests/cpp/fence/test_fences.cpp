// Fences: ties, stripes that two keys share, and patterns.
#include "core/fence/fences.hpp"

#include <gtest/gtest.h>

namespace stillwarm {
namespace {

TEST(Fences, LetPassWhatWasBornAfter) {
  Fences fences;
  EXPECT_TRUE(fences.passes(1, 1));
  fences.raise_key(1, 5);
  EXPECT_FALSE(fences.passes(1, 4));
  EXPECT_FALSE(fences.passes(1, 5)) << "a tie is invalid";
  EXPECT_TRUE(fences.passes(1, 6));
}

TEST(Fences, AKeyStopsItsStripeAndNoOther) {
  Fences fences;
  fences.raise_key(7, 5);
  EXPECT_FALSE(fences.passes(7 + Fences::kStripes, 3)) << "the same stripe: a lost fill";
  for (std::uint64_t hash = 0; hash < Fences::kStripes; ++hash) {
    ASSERT_EQ(fences.passes(hash, 3), hash != 7) << hash;
  }
}

TEST(Fences, OnlyAPatternKeepsCallersFromJoining) {
  Fences fences;
  fences.raise_key(1, 5);
  EXPECT_TRUE(fences.joinable(3)) << "the key's own flight is detached by name";
  fences.raise_all(8);
  EXPECT_FALSE(fences.joinable(8));
  EXPECT_TRUE(fences.joinable(9));
  EXPECT_FALSE(fences.passes(2, 8));
  EXPECT_TRUE(fences.passes(2, 9));
  EXPECT_TRUE(fences.passes(1, 9));
}

}  // namespace
}  // namespace stillwarm
