// How an envelope is written and read. Thread rule, grammar and what this refuses to know: see the header.
#include "core/codec/envelope.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <bit>
#include <cstring>

#include "core/base/duration.hpp"

namespace stillwarm {
namespace {

constexpr std::size_t kHead = 5;  // magic, version, flags, codec
constexpr std::size_t kHash = 8;
constexpr std::size_t kLongestVarint = 10;
constexpr char kMagic0 = '\xC5';
constexpr char kMagic1 = '\x57';
constexpr char kVersion = 1;
constexpr std::uint8_t kCompressed = 1;
constexpr std::uint8_t kNegative = 2;
constexpr std::uint8_t kDictionary = 4;
constexpr std::uint8_t kKnownFlags = kCompressed | kNegative | kDictionary;

std::uint64_t hash_of(std::string_view bytes) noexcept { return XXH3_64bits(bytes.data(), bytes.size()); }

void put_hash(std::string& out, std::uint64_t hash) {
  static_assert(std::endian::native == std::endian::little);
  std::array<char, kHash> bytes;
  std::memcpy(bytes.data(), &hash, kHash);
  out.append(bytes.data(), kHash);
}

void put_varint(std::string& out, std::uint64_t n) {
  for (; n >= 0x80; n >>= 7) out += static_cast<char>(n | 0x80);
  out += static_cast<char>(n);
}

void put_duration(std::string& out, Nanos d) {
  constexpr Nanos kMs = 1'000'000;
  if (d > kLongestDuration) {
    put_varint(out, 0);
  } else {
    put_varint(out, d <= 0 ? 1 : static_cast<std::uint64_t>((d + kMs - 1) / kMs) + 1);
  }
}

// Takes from the front of a text, and remembers that it could not.
class Reader {
 public:
  explicit Reader(std::string_view rest) noexcept : rest_(rest) {}

  bool failed() const noexcept { return failed_; }
  std::string_view rest() const noexcept { return rest_; }

  std::uint64_t hash() noexcept {
    std::uint64_t hash = 0;
    if (rest_.size() < kHash) {
      failed_ = true;
    } else {
      std::memcpy(&hash, rest_.data(), kHash);
      rest_.remove_prefix(kHash);
    }
    return hash;
  }

  std::uint64_t varint() noexcept {
    std::uint64_t n = 0;
    for (std::size_t i = 0; i < kLongestVarint && i < rest_.size(); ++i) {
      const auto byte = static_cast<unsigned char>(rest_[i]);
      if (i + 1 == kLongestVarint && byte > 1) break;  // beyond 64 bits
      n |= std::uint64_t{byte & 0x7FU} << (7 * i);
      if (byte < 0x80) {
        rest_.remove_prefix(i + 1);
        return n;
      }
    }
    failed_ = true;
    return 0;
  }

  Nanos duration() noexcept {
    constexpr Nanos kMs = 1'000'000;
    const std::uint64_t n = varint();
    if (n == 0) return kForever;
    if (n - 1 > static_cast<std::uint64_t>(kLongestDuration / kMs)) failed_ = true;
    return failed_ ? 0 : static_cast<Nanos>(n - 1) * kMs;
  }

 private:
  std::string_view rest_;
  bool failed_ = false;
};

}  // namespace

std::uint64_t key_hash(std::string_view key_space, std::string_view key) {
  std::string whole;
  whole.reserve(key_space.size() + 1 + key.size());
  whole.append(key_space).append(1, '\0').append(key);
  return hash_of(whole);
}

std::string seal(const Envelope& envelope, std::string_view payload, const CompressOptions& options,
                 const Dictionary* dictionary, Sealed* how) {
  std::string out;
  out.reserve(kHead + kHash + 5 * kLongestVarint + payload.size() + kHash);
  out += {kMagic0, kMagic1, kVersion, static_cast<char>(envelope.negative ? kNegative : 0),
          static_cast<char>(envelope.codec)};
  put_hash(out, envelope.key_hash);
  put_duration(out, envelope.ttl);
  put_duration(out, envelope.stale_while_revalidate);
  put_duration(out, envelope.stale_if_error);
  put_duration(out, envelope.keep);
  put_varint(out, payload.size());
  const std::size_t head = out.size();
  const auto with = [&] {
    if (dictionary == nullptr || payload.size() > kWithDictionaryUpTo) return false;
    put_varint(out, dictionary->id());
    if (compress(payload, options, *dictionary, out)) return true;
    out.resize(head);
    return false;
  };
  std::uint8_t flags = 0;
  if (with()) {
    flags = kCompressed | kDictionary;
  } else if (compress(payload, options, out)) {
    flags = kCompressed;
  } else {
    out.append(payload);
  }
  out[3] = static_cast<char>(out[3] | flags);
  if (how != nullptr) *how = {out.size() - head, flags != 0, (flags & kDictionary) != 0};
  put_hash(out, hash_of(out));
  return out;
}

std::uint64_t dictionary_of(std::string_view stored) noexcept {
  constexpr std::uint8_t kBoth = kCompressed | kDictionary;
  if (stored.size() < kHead + 2 * kHash || stored[0] != kMagic0 || stored[1] != kMagic1 || stored[2] != kVersion)
    return 0;
  if ((static_cast<std::uint8_t>(stored[3]) & kBoth) != kBoth) return 0;
  Reader reader(stored.substr(kHead, stored.size() - kHead - kHash));
  reader.hash();
  for (int skipped = 0; skipped < 5; ++skipped) reader.varint();
  const std::uint64_t id = reader.varint();
  return reader.failed() ? 0 : id;
}

bool is_whole(std::string_view stored) noexcept {
  if (stored.size() < kHead + kHash || stored[0] != kMagic0 || stored[1] != kMagic1 || stored[2] != kVersion)
    return false;
  const std::string_view checked = stored.substr(0, stored.size() - kHash);
  return Reader(stored.substr(checked.size())).hash() == hash_of(checked);
}

Opened open(std::string_view stored, std::uint64_t expected_key_hash, const DecodeLimits& limits, Envelope& out,
            std::string& payload, const Dictionary* dictionary) {
  payload.clear();
  if (stored.size() < kHead + kHash) {
    // What is too short to tell is damaged only if it begins like ours.
    return stored.size() >= 2 && stored[0] == kMagic0 && stored[1] == kMagic1 ? Opened::kDamaged : Opened::kUnknown;
  }
  const auto flags = static_cast<std::uint8_t>(stored[3]);
  if (stored[0] != kMagic0 || stored[1] != kMagic1 || stored[2] != kVersion || (flags & ~kKnownFlags) != 0) {
    return Opened::kUnknown;
  }
  const std::string_view checked = stored.substr(0, stored.size() - kHash);
  if (Reader(stored.substr(checked.size())).hash() != hash_of(checked)) return Opened::kDamaged;

  Reader reader(checked.substr(kHead));
  out.codec = static_cast<std::uint8_t>(stored[4]);
  out.negative = (flags & kNegative) != 0;
  out.compressed = (flags & kCompressed) != 0;
  out.key_hash = reader.hash();
  out.ttl = reader.duration();
  out.stale_while_revalidate = reader.duration();
  out.stale_if_error = reader.duration();
  out.keep = reader.duration();
  const std::uint64_t raw_size = reader.varint();
  const std::uint64_t asked = flags & kDictionary ? reader.varint() : 0;
  if (reader.failed()) return Opened::kDamaged;
  if (out.key_hash != expected_key_hash) return Opened::kWrongKey;
  if (raw_size > limits.largest) return Opened::kTooLarge;
  if (flags & kDictionary) {
    if (dictionary == nullptr || dictionary->id() != asked) return Opened::kNoDictionary;
    if (!(flags & kCompressed)) return Opened::kDamaged;
  } else {
    dictionary = nullptr;
  }
  if (!(flags & kCompressed)) {
    if (reader.rest().size() != raw_size) return Opened::kDamaged;
    payload.assign(reader.rest());
    return Opened::kOk;
  }
  const Expanded expanded = decompress(reader.rest(), limits, payload, dictionary);
  if (expanded == Expanded::kOk && payload.size() == raw_size) return Opened::kOk;
  payload.clear();
  return expanded == Expanded::kTooLarge ? Opened::kTooLarge : Opened::kDamaged;
}

}  // namespace stillwarm
