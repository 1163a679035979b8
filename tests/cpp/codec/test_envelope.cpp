// Envelopes: what goes in comes out, and every cut, flip, other release and other key is a miss.
#include "core/codec/envelope.hpp"

#define XXH_INLINE_ALL
#include <gtest/gtest.h>
#include <xxhash.h>

#include <random>
#include <string>
#include <vector>

#include "core/base/duration.hpp"
#include "support.hpp"

namespace stillwarm {
namespace {

constexpr std::uint64_t kKeyHash = 0x0123456789ABCDEF;

Envelope envelope() { return {7, false, 3'600'000 * kMillisecond, 300 * kMillisecond, 0, kForever, kKeyHash}; }

std::string text(std::size_t size) {
  std::string out;
  for (int n = 0; out.size() < size; ++n) out += "row " + std::to_string(n * 31) + ", ";
  out.resize(size);
  return out;
}

Opened open_it(std::string_view stored, Envelope& out, std::string& payload, std::uint64_t key = kKeyHash,
               const DecodeLimits& limits = {}) {
  return open(stored, key, limits, out, payload);
}

Opened opened(std::string_view stored, std::uint64_t key = kKeyHash, const DecodeLimits& limits = {}) {
  Envelope out;
  std::string payload;
  const Opened answer = open_it(stored, out, payload, key, limits);
  EXPECT_TRUE(answer == Opened::kOk || payload.empty());
  return answer;
}

// With a checksum that is right, as somebody else's release would write it.
std::string resealed(std::string bytes) {
  bytes.resize(bytes.size() - 8);
  const std::uint64_t hash = XXH3_64bits(bytes.data(), bytes.size());
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(hash >> (8 * i));
  return bytes;
}

TEST(Envelope, GivesBackWhatWasSealed) {
  for (const std::size_t size : {0UL, 1UL, 127UL, 128UL, 1'024UL, 1'025UL, 100'000UL}) {
    for (const bool negative : {false, true}) {
      Envelope in = envelope();
      in.negative = negative;
      in.codec = 255;
      const std::string payload = text(size);
      const std::string stored = seal(in, payload, {});
      Envelope out;
      std::string back;
      ASSERT_EQ(open_it(stored, out, back), Opened::kOk) << size;
      EXPECT_EQ(back, payload);
      EXPECT_EQ(out.codec, 255);
      EXPECT_EQ(out.negative, negative);
      EXPECT_EQ(out.ttl, in.ttl);
      EXPECT_EQ(out.stale_while_revalidate, in.stale_while_revalidate);
      EXPECT_EQ(out.stale_if_error, 0);
      EXPECT_EQ(out.keep, kForever);
      EXPECT_EQ(out.key_hash, kKeyHash);
    }
  }
}

TEST(Envelope, TheBytesAreThoseOfTheGrammar) {
  const std::string stored = seal({7, true, 299 * kMillisecond, 0, 1, kForever, kKeyHash}, "abc", {});
  const std::string head(
      "\xC5\x57\x01\x02\x07\xEF\xCD\xAB\x89\x67\x45\x23\x01\xAC\x02\x01\x02\x00\x03"
      "abc",
      22);
  ASSERT_EQ(stored.size(), head.size() + 8);
  EXPECT_EQ(stored.substr(0, head.size()), head) << "stored values outlive a release: a change needs a new version";
  EXPECT_EQ(stored, resealed(stored));
}

TEST(Envelope, LongPayloadsAreCompressedAndShortOnesNot) {
  EXPECT_LT(seal(envelope(), text(20'000), {}).size(), 10'000u);
  EXPECT_GT(seal(envelope(), text(20'000), {0, 3}).size(), 20'000u);
  EXPECT_GT(seal(envelope(), text(1'000), {}).size(), 1'000u);
  EXPECT_LT(seal(envelope(), text(1'000), {500, 3}).size(), 900u);
}

TEST(Envelope, DurationsAreRoundedUpToMilliseconds) {
  const std::vector<std::pair<Nanos, Nanos>> cases{{0, 0},
                                                   {1, kMillisecond},
                                                   {kMillisecond, kMillisecond},
                                                   {kMillisecond + 1, 2 * kMillisecond},
                                                   {-5, 0},
                                                   {kForever, kForever},
                                                   {kForever - 1, kForever},
                                                   {kLongestDuration, kLongestDuration},
                                                   {126 * kMillisecond, 126 * kMillisecond},
                                                   {127 * kMillisecond, 127 * kMillisecond},
                                                   {kLongestDuration - 1, kLongestDuration}};
  for (const auto& [given, kept] : cases) {
    Envelope out;
    std::string payload;
    ASSERT_EQ(open_it(seal({1, false, given, given, given, given, kKeyHash}, "x", {}), out, payload), Opened::kOk);
    EXPECT_EQ(out.ttl, kept) << given;
    EXPECT_EQ(out.stale_while_revalidate, kept) << given;
    EXPECT_EQ(out.stale_if_error, kept) << given;
    EXPECT_EQ(out.keep, kept) << given;
  }
}

TEST(Envelope, AnotherKeyIsAMiss) {
  const std::string stored = seal(envelope(), "value", {});
  EXPECT_EQ(opened(stored, kKeyHash + 1), Opened::kWrongKey);
  EXPECT_EQ(opened(stored, 0), Opened::kWrongKey);
  EXPECT_EQ(opened(stored, kKeyHash), Opened::kOk);
}

TEST(Envelope, NamespaceAndKeyAreHashedApart) {
  EXPECT_NE(key_hash("ab", "c"), key_hash("a", "bc"));
  EXPECT_NE(key_hash("a", ""), key_hash("", "a"));
  EXPECT_EQ(key_hash("a", "b"), key_hash(std::string("a"), std::string("b")));
  EXPECT_EQ(key_hash("app", "score:'x'"), XXH3_64bits("app\0score:'x'", 13)) << "other processes compute the same";
}

TEST(Envelope, OtherReleasesAreUnknown) {
  const std::string stored = seal(envelope(), "value", {});
  for (const std::size_t i : {0UL, 1UL, 2UL}) {
    for (int byte = 0; byte < 256; ++byte) {
      std::string other = stored;
      other[i] = static_cast<char>(byte);
      if (other == stored) continue;
      ASSERT_EQ(opened(resealed(other)), Opened::kUnknown) << i << ' ' << byte;
      ASSERT_EQ(opened(other), Opened::kUnknown) << "whatever its checksum";
    }
  }
  for (int bit = 3; bit < 8; ++bit) {
    std::string other = stored;
    other[3] = static_cast<char>(1 << bit);
    EXPECT_EQ(opened(resealed(other)), Opened::kUnknown) << "flag " << bit;
  }
  EXPECT_EQ(opened("{\"some\": \"other program's row\"}"), Opened::kUnknown);
  EXPECT_EQ(opened(""), Opened::kUnknown);
}

// What the release before dictionaries wrote for namespace "app" and key "default\nscore:1", as hex.
std::string of_before(std::string_view hex) {
  std::string bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
  }
  return bytes;
}

TEST(Envelope, WhatTheReleaseBeforeDictionariesWroteIsRead) {
  const std::string plain = of_before("c557010001000718fe374347a9e1a712e1d403010007930102a3616263c4ad9bed309d9680");
  const std::string negative =
      of_before("c557010200000718fe374347a9e1a712e1d40301000f6e6f20737563682070726f64756374dd8fec330577f999");
  const std::string compressed = of_before(
      "c557010102000718fe374347a9e1a712e1d4030100e00e28b52ffd606006c50b00369b3914b06939a56594c6c24414226592"
      "49a6e4179ce1783a0031003000420cd7432a768a47addaeedca7e876caadd82465be985c2e92cd67dd76bf9453c97b6bf5c3"
      "42001808060a100e0c07430418000c060509020685c5c6a41fab3ceaa6a6c8c17abd881c51a68e34a2fcef4cc8a8d43847c2"
      "3315538a231c29cbf1a13d74a2f943b19114430233ee9838159295e910b163d8cf34c2201111218a909915315db4da85a9b8"
      "fde65843aed80d6d31a9655b8965db63f5048785d2c8cfc838d172c578eacc0769a4e2064bec525574ce4d6daf098bf5ed44"
      "3d35c2d45110cdbf05555fe3193f651c7aa83002665977c6803352a007101022cc3196077615207f606b3ebb38d324cfb9c5"
      "387fd44f6e07b687c581ec61610019b302d480dd3a44b7f2485da2e0916e89ba23a512dd8e14254a1d2de6233b7a50c5634b"
      "add24bbabcd3ce74d2007e2ad2df7008654e93d19a9c5645f5c5f2ab8bc2818e023d7a58f1d576cc9045854c09479c210079"
      "b59670050d50a41b646d71256505d7c7c3");
  const std::uint64_t key = key_hash("app", "default\nscore:1");
  Envelope out;
  std::string payload;
  ASSERT_EQ(open_it(plain, out, payload, key), Opened::kOk);
  EXPECT_EQ(payload,
            "\x93\x01\x02\xA3"
            "abc");
  EXPECT_EQ(out.codec, 1);
  EXPECT_EQ(out.ttl, 300'000 * kMillisecond);
  EXPECT_EQ(out.stale_while_revalidate, 60'000 * kMillisecond);
  EXPECT_EQ(out.keep, kForever);
  EXPECT_EQ(seal(out, payload, {}), plain) << "and without a dictionary the same is written";
  ASSERT_EQ(open_it(negative, out, payload, key), Opened::kOk);
  EXPECT_EQ(payload, "no such product");
  EXPECT_TRUE(out.negative);
  ASSERT_EQ(open_it(compressed, out, payload, key), Opened::kOk);
  std::string expected;
  for (int i = 0; i < 60; ++i) {
    std::string asin = std::to_string(i * 7919 % 99999);
    asin.insert(0, 5 - asin.size(), '0');
    expected += R"({"asin":"B0)" + asin + R"(","price":)" + std::to_string(i * 37 % 9973) + "},";
  }
  EXPECT_EQ(payload, expected);
  EXPECT_TRUE(out.compressed);
}

TEST(Envelope, AnUnknownDictionaryIsAMiss) {
  std::string stored = seal(envelope(), "value", {});
  stored[3] = 1 | 4;
  stored.insert(stored.size() - 8 - 5, "\x2A");  // its number, before the body
  EXPECT_EQ(opened(resealed(stored)), Opened::kNoDictionary);
  EXPECT_EQ(opened(stored), Opened::kDamaged);
}

TEST(Envelope, EveryTruncationIsAMiss) {
  for (const std::size_t size : {0UL, 40UL, 3'000UL}) {
    const std::string stored = seal(envelope(), text(size), {});
    for (std::size_t n = 0; n < stored.size(); ++n) {
      const std::vector<char> cut(stored.begin(), stored.begin() + static_cast<std::ptrdiff_t>(n));
      ASSERT_NE(opened({cut.data(), cut.size()}), Opened::kOk) << n << " of " << stored.size();
    }
    EXPECT_EQ(opened(stored + '\0'), Opened::kDamaged);
    EXPECT_EQ(opened(stored + stored), Opened::kDamaged);
  }
}

TEST(Envelope, EveryFlippedBitIsAMiss) {
  for (const std::size_t size : {0UL, 40UL, 3'000UL}) {
    std::string stored = seal(envelope(), text(size), {});
    for (std::size_t i = 0; i < stored.size(); ++i) {
      for (int bit = 0; bit < 8; ++bit) {
        const char whole = stored[i];
        stored[i] = static_cast<char>(whole ^ (1 << bit));
        const Opened answer = opened(stored);
        stored[i] = whole;
        ASSERT_TRUE(answer == Opened::kDamaged || answer == Opened::kUnknown) << "byte " << i << " bit " << bit;
      }
    }
    ASSERT_EQ(opened(stored), Opened::kOk);
  }
}

TEST(Envelope, HostileBytesWithARightChecksumStayInBounds) {
  std::mt19937_64 random(7);
  const std::string stored = seal(envelope(), text(3'000), {});
  int refused = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string hostile = stored.substr(0, 13 + random() % (stored.size() - 13));
    for (std::size_t n = 1 + random() % 8; n > 0; --n) {
      hostile[5 + random() % (hostile.size() - 5)] = static_cast<char>(random());
    }
    hostile[3] = static_cast<char>(random() % 8);
    hostile += "checksum";
    const std::string sealed = resealed(hostile);
    const std::vector<char> bytes(sealed.begin(), sealed.end());
    std::uint64_t key = 0;
    for (std::size_t i = 12; i >= 5; --i) key = key << 8 | static_cast<unsigned char>(bytes[i]);
    Envelope out;
    std::string payload;
    const Opened answer = open_it({bytes.data(), bytes.size()}, out, payload, key);
    if (answer != Opened::kOk) ++refused;
    ASSERT_LE(payload.size(), DecodeLimits{}.largest);
  }
  EXPECT_GT(refused, 15'000);
}

TEST(Envelope, LengthsThatDoNotFitAreDamaged) {
  const std::string stored = seal(envelope(), "value", {});
  const std::size_t size_at = stored.size() - 8 - 5 - 1;
  ASSERT_EQ(stored[size_at], 5);
  for (const char size : {'\0', '\4', '\6', '\x7F'}) {
    std::string other = stored;
    other[size_at] = size;
    EXPECT_EQ(opened(resealed(other)), Opened::kDamaged) << int{size};
  }
  // A varint that never ends, one beyond 64 bits, a duration beyond 100 years.
  const std::string head = stored.substr(0, 13);
  for (const std::string& tail : {std::string(30, '\xFF'), std::string(9, '\xFF') + '\2' + std::string(9, '\1'),
                                  std::string(8, '\xFF') + '\1' + std::string(9, '\1')}) {
    EXPECT_EQ(opened(resealed(head + tail + "checksum")), Opened::kDamaged);
  }
}

TEST(Envelope, TooLargeIsSaidBeforeAnythingIsExpanded) {
  for (const std::size_t size : {500UL, 50'000UL}) {
    const std::string stored = seal(envelope(), text(size), {});
    EXPECT_EQ(opened(stored, kKeyHash, {size, 0}), Opened::kOk);
    EXPECT_EQ(opened(stored, kKeyHash, {size - 1, 0}), Opened::kTooLarge);
  }
}

TEST(Envelope, ACompressedBodyMustBeAsLongAsTheHeaderSays) {
  std::string stored = seal(envelope(), text(3'000), {});
  const std::size_t size_at = stored.find(std::string("\xB8\x17", 2));  // 3,000 as a varint
  ASSERT_NE(size_at, std::string::npos);
  stored[size_at] = '\xB9';
  EXPECT_EQ(opened(resealed(stored)), Opened::kDamaged);
}

TEST(Envelope, FailedAllocationsLeaveNothingBehind) {
  const std::string payload = text(3'000);
  std::string stored;
  EXPECT_GT(test::with_failing_allocations([&] { stored = seal(envelope(), payload, {}); }, [] {}), 0);
  Envelope out;
  std::string back;
  EXPECT_GT(test::with_failing_allocations([&] { ASSERT_EQ(open_it(stored, out, back), Opened::kOk); }, [] {}), 0);
  EXPECT_EQ(back, payload);
}

TEST(Envelope, EveryAnswerHasAName) {
  EXPECT_STREQ(kOpenedNames[static_cast<std::size_t>(Opened::kOk)], "ok");
  EXPECT_STREQ(kOpenedNames[static_cast<std::size_t>(Opened::kNoDictionary)], "no_dictionary");
}

}  // namespace
}  // namespace stillwarm
