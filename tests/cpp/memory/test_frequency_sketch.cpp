// FrequencySketch: accuracy, ageing, growth and seeding.
#include <gtest/gtest.h>

#include <cstdint>

#include "core/memory/frequency_sketch.hpp"

namespace stillwarm {
namespace {

constexpr std::uint64_t kSeed = 0x5eed;

TEST(FrequencySketch, CountsOneKeyExactlyAndSaturates) {
  FrequencySketch sketch(kSeed);
  sketch.reserve(1024);
  for (std::uint32_t n = 0; n < FrequencySketch::kMax; ++n) {
    EXPECT_EQ(sketch.estimate(42), n);
    sketch.add(42, 1);
  }
  sketch.add(42, 1);
  sketch.add(42, 200);
  EXPECT_EQ(sketch.estimate(42), FrequencySketch::kMax);
}

TEST(FrequencySketch, AddsSeveralAccessesAtOnce) {
  FrequencySketch sketch(kSeed);
  sketch.reserve(64);
  sketch.add(7, 3);
  EXPECT_EQ(sketch.estimate(7), 3u);
  sketch.add(7, 14);
  EXPECT_EQ(sketch.estimate(7), FrequencySketch::kMax);
}

TEST(FrequencySketch, NeverUnderestimatesAndRarelyOverestimates) {
  FrequencySketch sketch(kSeed);
  constexpr std::uint64_t kKeys = 4096;
  sketch.reserve(kKeys);
  for (std::uint64_t key = 0; key < kKeys; ++key) sketch.add(key, key % 4 + 1);
  std::uint64_t wrong = 0;
  for (std::uint64_t key = 0; key < kKeys; ++key) {
    EXPECT_GE(sketch.estimate(key), key % 4 + 1);
    wrong += sketch.estimate(key) > key % 4 + 1;
  }
  EXPECT_LT(wrong, kKeys / 5);
  std::uint64_t ghosts = 0;
  for (std::uint64_t key = kKeys; key < 2 * kKeys; ++key) ghosts += sketch.estimate(key) != 0;
  EXPECT_LT(ghosts, kKeys / 3);
}

TEST(FrequencySketch, HalvesEveryCounterAfterTenAccessesPerKey) {
  FrequencySketch sketch(kSeed);
  sketch.reserve(512);
  sketch.add(1, 12);
  std::uint64_t n = 12;
  // One hot key takes all other accesses, so that collisions cannot blur the count.
  for (; n < sketch.capacity() * 10 - 1; ++n) sketch.add(2, 1);
  EXPECT_EQ(sketch.estimate(1), 12u);
  for (std::uint64_t more = 0; more < sketch.capacity(); ++more) sketch.add(2, 1);
  EXPECT_EQ(sketch.estimate(1), 6u);
}

TEST(FrequencySketch, GrowthKeepsTheHistory) {
  FrequencySketch sketch(kSeed);
  sketch.reserve(64);
  for (std::uint64_t key = 0; key < 32; ++key) sketch.add(key, 5);
  sketch.reserve(5000);
  EXPECT_GE(sketch.capacity(), 5000u);
  for (std::uint64_t key = 0; key < 32; ++key) EXPECT_GE(sketch.estimate(key), 5u) << key;
}

TEST(FrequencySketch, MemoryStaysBetweenFourAndEightBytesPerEntry) {
  FrequencySketch sketch(kSeed);
  for (std::uint64_t entries : {100u, 1000u, 4096u, 4097u, 70000u}) {
    sketch.reserve(entries);
    EXPECT_GE(sketch.allocated_bytes(), entries * 4) << entries;
    EXPECT_LE(sketch.allocated_bytes(), entries * 8 + 256) << entries;
  }
}

TEST(FrequencySketch, AnotherSeedMakesOtherCollisions) {
  FrequencySketch sketch(kSeed);
  FrequencySketch other(kSeed + 1);
  sketch.reserve(64);
  other.reserve(64);
  // Keys that are mistaken for known ones under one seed are mostly not so under the other.
  for (FrequencySketch* s : {&sketch, &other}) {
    for (std::uint64_t key = 0; key < 128; ++key) s->add(key, 5);
  }
  int first = 0;
  int both = 0;
  for (std::uint64_t key = 128; key < 20'000; ++key) {
    if (sketch.estimate(key) == 0) continue;
    ++first;
    both += other.estimate(key) != 0;
  }
  EXPECT_GT(first, 100);
  EXPECT_LT(both, first * 2 / 3);
}

}  // namespace
}  // namespace stillwarm
