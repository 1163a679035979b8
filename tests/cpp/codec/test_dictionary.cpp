// Dictionaries of zstd: what they gain, what stands in for one, bombs with one; and whether one pays.
#define XXH_INLINE_ALL
#include <gtest/gtest.h>
#include <xxhash.h>
#include <zstd.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <thread>

#include "codec/values.hpp"
#include "core/codec/compressor.hpp"
#include "core/codec/envelope.hpp"
#include "core/codec/sample.hpp"
#include "core/codec/study.hpp"

namespace stillwarm {
namespace {

using test::FreeContext;
using test::kMiB;
using test::noise;
using test::peak_memory;
using test::row;
using test::rows;

std::shared_ptr<const Dictionary> dictionary(int kind = 0) {
  static const auto first = Dictionary::make(train_dictionary(rows(600, 0), 4'096));
  static const auto second = Dictionary::make(train_dictionary(rows(600, 1), 4'096));
  return kind == 0 ? first : second;
}

std::string compressed(std::string_view raw, const Dictionary& with) {
  std::string out;
  EXPECT_TRUE(compress(raw, {}, with, out));
  return out;
}

// A frame of `size` zeros that says so.
std::string bomb(std::size_t size) {
  const std::unique_ptr<ZSTD_CCtx, FreeContext> context(ZSTD_createCCtx());
  ZSTD_CCtx_setPledgedSrcSize(context.get(), size);
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

TEST(Dictionary, SmallValuesShrinkToLessThanHalf) {
  ASSERT_NE(dictionary(), nullptr);
  std::size_t raw = 0, with = 0;
  for (std::uint64_t n = 10'000; n < 10'200; ++n) {
    const std::string value = row(n);
    ASSERT_LT(value.size(), 250u);
    std::string none, out = "head", back;
    EXPECT_FALSE(compress(value, {}, none)) << "the control: without one it is too small";
    ASSERT_TRUE(compress(value, {}, *dictionary(), out));
    EXPECT_EQ(out.substr(0, 4), "head");
    ASSERT_EQ(decompress(std::string_view(out).substr(4), {}, back, dictionary().get()), Expanded::kOk);
    EXPECT_EQ(back, value);
    raw += value.size();
    with += out.size() - 4;
  }
  EXPECT_LT(with * 2, raw);
}

TEST(Dictionary, BelowAHundredBytesAndWithoutGainValuesStayAsTheyAre) {
  std::string out = "head";
  EXPECT_FALSE(compress(row(1).substr(0, 99), {}, *dictionary(), out));
  EXPECT_FALSE(compress(noise(1, 500), {}, *dictionary(), out));
  EXPECT_FALSE(compress(row(1), {0, 3}, *dictionary(), out)) << "compression is switched off";
  EXPECT_EQ(out, "head");
  EXPECT_TRUE(compress(row(1).substr(0, 100), {}, *dictionary(), out));
}

TEST(Dictionary, ItsNumberIsThatOfItsBytes) {
  const auto again = Dictionary::make(dictionary()->bytes());
  EXPECT_EQ(again->id(), dictionary()->id());
  EXPECT_NE(dictionary()->id(), dictionary(1)->id());
  EXPECT_GT(dictionary()->id(), 0u);
  EXPECT_LT(dictionary()->id(), std::uint64_t{1} << kDictionaryIdBits);
  EXPECT_LT(dictionary()->memory(), std::size_t{1} << 20);
}

TEST(Dictionary, WhatIsNoneIsRefused) {
  const std::string good = dictionary()->bytes();
  EXPECT_EQ(Dictionary::make(""), nullptr);
  EXPECT_EQ(Dictionary::make("garbage that is longer than a header"), nullptr);
  EXPECT_EQ(Dictionary::make(noise(1, 5'000)), nullptr);
  EXPECT_EQ(Dictionary::make(good.substr(0, 8)), nullptr);
  EXPECT_EQ(Dictionary::make(good.substr(0, 8) + noise(2, 4'000)), nullptr) << "the tables have to be tables";
  EXPECT_EQ(Dictionary::make(good + noise(3, kLargestDictionary)), nullptr) << "too large";
  EXPECT_NE(Dictionary::make(good + noise(3, kLargestDictionary - good.size())), nullptr);
  for (std::size_t size = 0; size < good.size(); size += 7) {
    const std::vector<char> cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size));
    const auto made = Dictionary::make({cut.data(), cut.size()});
    EXPECT_TRUE(made == nullptr || made->id() != dictionary()->id()) << size;
  }
}

TEST(Dictionary, DamagedOnesHurtNobody) {
  const std::string frame = compressed(row(5), *dictionary());
  std::string out;
  for (std::size_t i = 0; i < 600; ++i) {
    std::string bytes = dictionary()->bytes();
    bytes[i] = static_cast<char>(bytes[i] ^ (1 << (i % 8)));
    const auto made = Dictionary::make(bytes);
    if (made == nullptr) continue;
    ASSERT_NE(made->id(), dictionary()->id());
    decompress(frame, {}, out, made.get());  // its number is another: no envelope would come to it
    ASSERT_LE(out.size(), row(5).size());
    std::string back;
    if (compress(row(6), {}, *made, back)) {
      ASSERT_EQ(decompress(back, {}, out, made.get()), Expanded::kOk);
      ASSERT_EQ(out, row(6));
    }
  }
}

TEST(Dictionary, AGigabyteIsRefusedBeforeItIsAllocated) {
  const std::string frame = bomb(std::size_t{1} << 30);
  ASSERT_FALSE(frame.empty());
  ASSERT_LT(frame.size(), 100'000u);
  std::string out;
  ASSERT_NE(dictionary(), nullptr);  // trained before the memory is looked at
  const std::size_t before = peak_memory();
  EXPECT_EQ(decompress(frame, {}, out, dictionary().get()), Expanded::kTooLarge);
  EXPECT_LT(out.capacity(), 256u << 10);
  EXPECT_LT(peak_memory() - before, 32 * kMiB);
  std::string lies = frame;
  const std::size_t at = static_cast<unsigned char>(lies[4]) & 0x20 ? 5 : 6;
  lies.replace(at, 4, std::string("\0\0\x08\0", 4));  // 512 KB
  ASSERT_EQ(ZSTD_getFrameContentSize(lies.data(), lies.size()), 512u << 10);
  EXPECT_EQ(decompress(lies, {}, out, dictionary().get()), Expanded::kDamaged);
  EXPECT_TRUE(out.empty());
}

TEST(Dictionary, AnEnvelopeWithABombIsRefusedWithinBoundedMemory) {
  const std::string good = seal({1, false, kForever, 0, 0, 0, 42}, row(3), {}, dictionary().get());
  const std::size_t head = 5 + 8 + 4, number = 7;  // four durations of a byte each, then two bytes of size
  ASSERT_EQ(dictionary_of(good), dictionary()->id());
  const std::string frame = bomb(std::size_t{1} << 30);
  const auto with = [&](std::string_view size) {
    std::string stored = good.substr(0, head) + std::string(size) + good.substr(head + 2, number) + frame;
    const std::uint64_t hash = XXH3_64bits(stored.data(), stored.size());
    for (int i = 0; i < 8; ++i) stored += static_cast<char>(hash >> (8 * i));
    return stored;
  };
  const std::string honest = with("\x80\x80\x80\x80\x04"), lies = with("\xC8\x01");
  ASSERT_TRUE(is_whole(honest) && is_whole(lies));
  ASSERT_EQ(dictionary_of(lies), dictionary()->id());
  Envelope out;
  std::string payload;
  const std::size_t before = peak_memory();
  EXPECT_EQ(open(honest, 42, {}, out, payload, dictionary().get()), Opened::kTooLarge);
  EXPECT_EQ(open(lies, 42, {}, out, payload, dictionary().get()), Opened::kTooLarge);
  EXPECT_TRUE(payload.empty());
  EXPECT_LT(peak_memory() - before, 32 * kMiB);
}

TEST(Dictionary, AFrameWithoutASizeIsRefused) {
  const std::unique_ptr<ZSTD_CCtx, FreeContext> context(ZSTD_createCCtx());
  ZSTD_CCtx_setParameter(context.get(), ZSTD_c_contentSizeFlag, 0);
  ZSTD_CCtx_loadDictionary(context.get(), dictionary()->bytes().data(), dictionary()->bytes().size());
  std::string frame(4'096, '\0'), out;
  const std::string value = row(8);
  frame.resize(ZSTD_compress2(context.get(), frame.data(), frame.size(), value.data(), value.size()));
  ASSERT_EQ(ZSTD_getFrameContentSize(frame.data(), frame.size()), ZSTD_CONTENTSIZE_UNKNOWN);
  EXPECT_EQ(decompress(frame, {}, out, dictionary().get()), Expanded::kDamaged);
}

TEST(Dictionary, ManyThreadsShareOne) {
  const auto fresh = Dictionary::make(dictionary()->bytes());  // its tables are not made yet
  std::vector<std::thread> threads;
  std::vector<int> wrong(8, 0);
  for (std::size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (std::uint64_t n = 0; n < 200; ++n) {
        const std::string value = row(1'000 * t + n);
        std::string frame, back;
        if (!compress(value, {}, *fresh, frame) || decompress(frame, {}, back, fresh.get()) != Expanded::kOk ||
            back != value) {
          ++wrong[t];
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(std::accumulate(wrong.begin(), wrong.end(), 0), 0);
}

TEST(Dictionary, NothingComesOfTooLittle) {
  EXPECT_EQ(train_dictionary({}, 4'096), "");
  EXPECT_EQ(train_dictionary(rows(2), 4'096), "");
  EXPECT_EQ(train_dictionary(rows(200), 10), "");
}

// ---- in envelopes

TEST(Dictionary, AnEnvelopeAsksForItsOwn) {
  const Envelope in{7, false, kForever, 0, 0, 0, 42};
  Sealed how;
  const std::string stored = seal(in, row(9), {}, dictionary().get(), &how);
  EXPECT_TRUE(how.compressed && how.with_dictionary);
  EXPECT_LT(how.body, row(9).size() / 2 + 7);
  EXPECT_EQ(dictionary_of(stored), dictionary()->id());
  EXPECT_TRUE(is_whole(stored));
  Envelope out;
  std::string back;
  ASSERT_EQ(open(stored, 42, {}, out, back, dictionary().get()), Opened::kOk);
  EXPECT_EQ(back, row(9));
  EXPECT_TRUE(out.compressed);
  EXPECT_EQ(open(stored, 42, {}, out, back), Opened::kNoDictionary);
  EXPECT_EQ(open(stored, 42, {}, out, back, dictionary(1).get()), Opened::kNoDictionary) << "another's is not tried";
  EXPECT_TRUE(back.empty());
  EXPECT_EQ(open(stored, 43, {}, out, back, dictionary().get()), Opened::kWrongKey);
  for (std::size_t i = 0; i < stored.size(); ++i) {
    std::string flipped = stored;
    flipped[i] = static_cast<char>(flipped[i] ^ 1);
    EXPECT_NE(open(flipped, 42, {}, out, back, dictionary().get()), Opened::kOk) << i;
    EXPECT_FALSE(is_whole(flipped)) << i;
    dictionary_of(flipped);
    const std::vector<char> cut(stored.begin(), stored.begin() + static_cast<std::ptrdiff_t>(i));
    EXPECT_NE(open({cut.data(), cut.size()}, 42, {}, out, back, dictionary().get()), Opened::kOk) << i;
    dictionary_of({cut.data(), cut.size()});
  }
}

TEST(Dictionary, WhatItDoesNotHelpIsSealedWithoutIt) {
  Sealed how;
  const std::string plain = seal({}, noise(4, 300), {}, dictionary().get(), &how);
  EXPECT_FALSE(how.compressed);
  EXPECT_EQ(how.body, 300u);
  EXPECT_EQ(plain, seal({}, noise(4, 300), {}));
  const std::string large(kWithDictionaryUpTo + 1, 'x');
  EXPECT_EQ(seal({}, large, {}, dictionary().get(), &how), seal({}, large, {}));
  EXPECT_TRUE(how.compressed);
  EXPECT_EQ(dictionary_of(plain), 0u);
  EXPECT_EQ(dictionary_of(""), 0u);
}

// ---- samples

TEST(Sample, KeepsWithinItsBounds) {
  Sample sample;
  for (std::uint64_t n = 0; n < 5'000; ++n) {
    EXPECT_TRUE(sample.offer(row(n)));
    EXPECT_FALSE(sample.offer(sample.payloads()[n % sample.size()])) << "the same payload twice is one sample";
    ASSERT_LE(sample.size(), Sample::kMost);
  }
  EXPECT_EQ(sample.size(), Sample::kMost);
  EXPECT_EQ(sample.seen(), 5'000u);
  EXPECT_EQ(sample.offered(), 10'000u);
  EXPECT_TRUE(sample.full());
  // Of 5,000 each had the same chance: of the last 1,000 some 200 are here, and of the first as well.
  const auto of = [&](std::uint64_t from) {
    const auto some = rows(1'000, 0, from);
    return std::ranges::count_if(sample.payloads(), [&](const auto& one) { return std::ranges::count(some, one) > 0; });
  };
  EXPECT_NEAR(static_cast<double>(of(0)), 200, 60);
  EXPECT_NEAR(static_cast<double>(of(4'000)), 200, 60);
  for (std::uint64_t n = 0; n < 200; ++n) {
    sample.offer(noise(n, 16'000));
    ASSERT_LE(sample.bytes(), Sample::kMostBytes);
  }
  std::size_t bytes = 0;
  for (const auto& one : sample.payloads()) bytes += one.size();
  EXPECT_EQ(bytes, sample.bytes());
  sample.clear();
  EXPECT_EQ(sample.bytes() + sample.size() + sample.seen(), 0u);
  EXPECT_FALSE(sample.offer(noise(0, Sample::kMostBytes + 1)));
}

// ---- studies

Study study(std::vector<std::string> samples, bool trains = true) {
  Study s;
  s.seen = samples.size();
  s.samples = std::move(samples);
  s.trains = trains;
  return s;
}

TEST(Study, AdoptsWhatPaysOnWhatItHasNotSeen) {
  Study s = study(rows(600));
  s.run();
  EXPECT_EQ(s.verdict, Study::Verdict::kAdopt);
  EXPECT_TRUE(s.made);
  EXPECT_LT(s.with_best * 2, s.without);
  EXPECT_EQ(s.with_present, s.without);
  EXPECT_LE(s.best->bytes().size(), kTrainedDictionary);
}

TEST(Study, KeepsWhatDoesNot) {
  std::vector<std::string> random;
  for (std::uint64_t n = 0; n < 300; ++n) random.push_back(noise(n, 400));
  Study s = study(random);
  s.run();
  EXPECT_EQ(s.verdict, Study::Verdict::kKeep);
  EXPECT_EQ(s.best, nullptr);
  EXPECT_EQ(s.with_best, s.without);
}

TEST(Study, PrefersTheOneThatOthersHave) {
  Study s = study(rows(600, 0, 50'000));
  s.others = {dictionary(1), dictionary()};
  s.run();
  EXPECT_EQ(s.verdict, Study::Verdict::kAdopt);
  EXPECT_EQ(s.best, dictionary());
  EXPECT_FALSE(s.made);
  Study few = study(rows(32, 0, 50'000), false);
  few.others = {dictionary()};
  few.run();
  EXPECT_EQ(few.best, dictionary());
}

TEST(Study, ReplacesOneThatFitsNoMore) {
  Study s = study(rows(600, 1));
  s.present = dictionary();
  s.run();
  EXPECT_EQ(s.verdict, Study::Verdict::kAdopt);
  EXPECT_LT(static_cast<double>(s.with_best), 0.9 * static_cast<double>(s.with_present));
  Study same = study(rows(600, 0, 70'000));
  same.present = dictionary();
  same.run();
  EXPECT_EQ(same.verdict, Study::Verdict::kKeep) << "one that is hardly better is not worth its place";
}

TEST(Study, DropsOneThatGainsNothing) {
  std::vector<std::string> random;
  for (std::uint64_t n = 0; n < 300; ++n) random.push_back(noise(n, 400));
  Study s = study(random);
  s.present = dictionary();
  s.run();
  EXPECT_EQ(s.verdict, Study::Verdict::kDrop);
}

}  // namespace
}  // namespace stillwarm
