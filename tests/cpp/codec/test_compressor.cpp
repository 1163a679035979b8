// zstd: what is compressed, what is not, and frames that were made to hurt. Each bomb has a naive control that expands.
#include "core/codec/compressor.hpp"

#include <gtest/gtest.h>
#include <zstd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "codec/values.hpp"

namespace stillwarm {
namespace {

using test::FreeContext;
using test::kMiB;
using test::noise;
using test::peak_memory;

constexpr std::size_t kGiB = std::size_t{1} << 30;

std::string json_text(std::size_t size) {
  std::string text;
  for (int n = 0; text.size() < size; ++n) {
    text += R"({"asin":"B0)" + std::to_string(n * 7919) + R"(","price":)" + std::to_string(n * 37 % 9973) + "},";
  }
  text.resize(size);
  return text;
}

std::string compressed(std::string_view raw) {
  std::string out;
  EXPECT_TRUE(compress(raw, {}, out));
  return out;
}

// A frame of `size` equal bytes; with `pledged` its header says so, without it says nothing.
std::string bomb(std::size_t size, bool pledged, int window_log = 0) {
  const std::unique_ptr<ZSTD_CCtx, FreeContext> context(ZSTD_createCCtx());
  ZSTD_CCtx_setParameter(context.get(), ZSTD_c_compressionLevel, 1);
  if (window_log != 0) ZSTD_CCtx_setParameter(context.get(), ZSTD_c_windowLog, window_log);
  if (pledged) ZSTD_CCtx_setPledgedSrcSize(context.get(), size);
  const std::string chunk(std::min(size, kMiB), '\0');
  std::string out(size / 16'384 + 4'096, '\0');
  ZSTD_outBuffer to{out.data(), out.size(), 0};
  for (std::size_t done = 0; done < size; done += chunk.size()) {
    ZSTD_inBuffer in{chunk.data(), chunk.size(), 0};
    while (in.pos < in.size) {
      if (ZSTD_isError(ZSTD_compressStream2(context.get(), &to, &in, ZSTD_e_continue))) return {};
    }
  }
  ZSTD_inBuffer none{nullptr, 0, 0};
  while (ZSTD_compressStream2(context.get(), &to, &none, ZSTD_e_end) != 0) {
  }
  out.resize(to.pos);
  return out;
}

// What somebody writes who trusts the frame; it counts instead of keeping, for the sake of the machine.
std::size_t naive_expansion(std::string_view frame) {
  const std::unique_ptr<ZSTD_DCtx, FreeContext> context(ZSTD_createDCtx());
  std::string chunk(kMiB, '\0');
  ZSTD_inBuffer in{frame.data(), frame.size(), 0};
  std::size_t total = 0;
  for (;;) {
    ZSTD_outBuffer to{chunk.data(), chunk.size(), 0};
    const std::size_t left = ZSTD_decompressStream(context.get(), &to, &in);
    total += to.pos;
    if (ZSTD_isError(left) || left == 0 || (in.pos == in.size && to.pos < to.size)) return total;
  }
}

TEST(Compressor, RoundTripsAndAppends) {
  for (const std::size_t size : {1'025UL, 5'000UL, 50'000UL, 3 * kMiB}) {
    const std::string raw = json_text(size);
    std::string out = "head";
    ASSERT_TRUE(compress(raw, {}, out)) << size;
    EXPECT_EQ(out.substr(0, 4), "head");
    EXPECT_LT(out.size(), size * 9 / 10 + 4);
    std::string back = "what was here before";
    ASSERT_EQ(decompress(std::string_view(out).substr(4), {}, back), Expanded::kOk) << size;
    EXPECT_EQ(back, raw);
  }
}

TEST(Compressor, ShortValuesStayAsTheyAre) {
  std::string out = "head";
  EXPECT_FALSE(compress(json_text(1'024), {}, out));
  EXPECT_FALSE(compress("", {}, out));
  EXPECT_EQ(out, "head");
  EXPECT_TRUE(compress(json_text(1'025), {}, out));
}

TEST(Compressor, ZeroSwitchesItOff) {
  std::string out;
  EXPECT_FALSE(compress(json_text(100'000), {0, 3}, out));
  EXPECT_TRUE(out.empty());
  EXPECT_TRUE(compress(json_text(200), {100, 3}, out));
}

TEST(Compressor, WhatDoesNotPayStaysAsItIs) {
  std::string out = "head";
  EXPECT_FALSE(compress(noise(0, 50'000), {}, out));
  EXPECT_EQ(out, "head");
  // 5 % of it can be compressed: too little.
  EXPECT_FALSE(compress(noise(0, 50'000) + std::string(2'500, 'x'), {}, out));
  EXPECT_TRUE(compress(noise(0, 50'000) + std::string(20'000, 'x'), {}, out));
}

TEST(Compressor, MakesNothingThatItWouldRefuse) {
  for (const std::size_t size : {2'000UL, kMiB, kMiB + 1, 20 * kMiB}) {
    const std::string raw(size, 'x');
    std::string out, back;
    if (!compress(raw, {}, out)) {
      EXPECT_GT(size, kMiB) << "small values may have any ratio";
      continue;
    }
    ASSERT_EQ(decompress(out, {}, back), Expanded::kOk) << size;
    EXPECT_EQ(back, raw);
  }
}

TEST(Compressor, AGigabyteInAFewKilobytesIsRefusedBeforeItIsAllocated) {
  const std::string told = bomb(kGiB, true);
  const std::string untold = bomb(kGiB, false);
  ASSERT_FALSE(told.empty() || untold.empty());
  ASSERT_LT(told.size(), 100'000u);
  EXPECT_EQ(ZSTD_getFrameContentSize(told.data(), told.size()), kGiB);
  EXPECT_EQ(ZSTD_getFrameContentSize(untold.data(), untold.size()), ZSTD_CONTENTSIZE_UNKNOWN);

  std::string out;
  out.shrink_to_fit();
  const std::size_t before = peak_memory();
  EXPECT_EQ(decompress(told, {}, out), Expanded::kTooLarge);
  EXPECT_EQ(decompress(untold, {}, out), Expanded::kTooLarge);
  EXPECT_TRUE(out.empty());
  EXPECT_LT(out.capacity(), 256u << 10);
  EXPECT_LT(peak_memory() - before, 32 * kMiB) << "the guard has to come before the memory";

  EXPECT_EQ(naive_expansion(told), kGiB) << "the control: without a guard it does expand";
  EXPECT_EQ(naive_expansion(untold), kGiB);
}

TEST(Compressor, AFrameThatLiesAboutItsSizeIsDamaged) {
  std::string frame = bomb(kGiB, true);
  ASSERT_EQ(static_cast<unsigned char>(frame[4]) >> 6, 2) << "four bytes of size";
  const std::size_t at = static_cast<unsigned char>(frame[4]) & 0x20 ? 5 : 6;
  frame.replace(at, 4, std::string("\0\0\x08\0", 4));  // 512 KB
  ASSERT_EQ(ZSTD_getFrameContentSize(frame.data(), frame.size()), 512u << 10);
  std::string out;
  EXPECT_EQ(decompress(frame, {}, out), Expanded::kDamaged);
  EXPECT_TRUE(out.empty());
}

TEST(Compressor, AFewBytesCannotAskForMuchMemory) {
  const std::string frame = bomb(48 * kMiB, true);
  ASSERT_LT(frame.size() * kHighestRatio, 48 * kMiB);
  std::string out;
  EXPECT_EQ(decompress(frame, {}, out), Expanded::kTooLarge);
  EXPECT_LT(out.capacity(), kMiB);
  EXPECT_EQ(naive_expansion(frame), 48 * kMiB);
}

TEST(Compressor, TheLimitIsExact) {
  const std::string raw = json_text(10'000);
  const std::string frame = compressed(raw);
  std::string out;
  EXPECT_EQ(decompress(frame, {10'000, 0}, out), Expanded::kOk);
  EXPECT_EQ(decompress(frame, {9'999, 0}, out), Expanded::kTooLarge);
  EXPECT_TRUE(out.empty());
}

TEST(Compressor, AnUntoldSizeMayBeSmall) {
  std::string out;
  EXPECT_EQ(decompress(bomb(60'000, false), {}, out), Expanded::kOk);
  EXPECT_EQ(out, std::string(60'000, '\0'));
  EXPECT_EQ(decompress(bomb(65'537, false), {}, out), Expanded::kTooLarge);
  EXPECT_EQ(decompress(bomb(60'000, false), {50'000, 65'536}, out), Expanded::kTooLarge) << "the smaller limit holds";
}

TEST(Compressor, LargeWindowsAreRefused) {
  std::string out;
  const std::string wide = bomb(30'000, false, 24);
  EXPECT_EQ(decompress(wide, {}, out), Expanded::kTooLarge);
  EXPECT_EQ(naive_expansion(wide), 30'000u);
  EXPECT_EQ(decompress(bomb(30'000, false, 23), {}, out), Expanded::kOk);
}

TEST(Compressor, AnyDamageIsSeenOrHarmless) {
  const std::string raw = json_text(3'000);
  const std::string frame = compressed(raw);
  std::string out;
  for (std::size_t size = 0; size < frame.size(); ++size) {
    // A copy of its own size, so that the address sanitizer sees a read behind it.
    const std::vector<char> cut(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(size));
    ASSERT_NE(decompress({cut.data(), cut.size()}, {}, out), Expanded::kOk) << size;
    ASSERT_TRUE(out.empty());
  }
  for (std::size_t i = 0; i < frame.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string flipped = frame;
      flipped[i] = static_cast<char>(flipped[i] ^ (1 << bit));
      decompress(flipped, {}, out);  // the checksum of the envelope is what notices
      ASSERT_LE(out.size(), DecodeLimits{}.largest);
    }
  }
  EXPECT_EQ(decompress(frame + "x", {}, out), Expanded::kDamaged);
  EXPECT_EQ(decompress(frame + frame, {}, out), Expanded::kDamaged) << "one frame, not two";
  EXPECT_EQ(decompress(std::string("\x50\x2A\x4D\x18\x04\0\0\0abcd", 12), {}, out), Expanded::kDamaged) << "skippable";
}

TEST(Compressor, ManyThreadsAtOnce) {
  std::vector<std::thread> threads;
  std::vector<int> wrong(8, 0);
  for (std::size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([t, &wrong] {
      for (std::size_t n = 0; n < 50; ++n) {
        const std::string raw = json_text(1'100 + 997 * t + n);
        std::string frame, back;
        if (!compress(raw, {}, frame) || decompress(frame, {}, back) != Expanded::kOk || back != raw) ++wrong[t];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(8, 0));
}

}  // namespace
}  // namespace stillwarm
