// What a remote tier stores for one value: a header, the payload, a checksum.
//
// Thread rule: pure functions, any thread.
// Refuses to know: what the payload means (Python's codecs do), which tier keeps it, and when it was stored.
//
//   stored     = magic version flags codec key_hash ttl stale_while_revalidate stale_if_error keep raw_size
//                [dictionary] body checksum
//   magic      = 0xC5 0x57
//   version    = 0x01
//   flags      = OCTET            bit 0: the body is compressed (one zstd frame)   bit 1: a remembered absence
//                                 bit 2: compressed with the dictionary that follows the size
//   codec      = OCTET            which codec of Python made the payload; 128 and more are the users'
//   key_hash   = 8 OCTET          xxh3_64 of namespace NUL key, little endian
//   ttl, stale_while_revalidate, stale_if_error, keep
//              = varint           0: for ever; n: n - 1 milliseconds
//   raw_size   = varint           bytes of the payload before compression
//   dictionary = varint           its number, which is not 0: the hash of its bytes (compressor.hpp)
//   body       = *OCTET           the payload, compressed or not
//   checksum   = 8 OCTET          xxh3_64 of everything before it, little endian
//   varint     = *(1:1 7:bits) (1:0 7:bits)     unsigned, 64 bits at most, the low bits first (LEB128)
//
// Whatever does not read as this is a miss, which its caller counts; it is never an error and never a value. Two
// releases that share a tier miss on what only the other one writes: a version or a flag that is not in this grammar is
// kUnknown, and nothing behind it is read. The hash of the key stands in the header so that a row that got under
// another key, or a reply that went to another request, is not taken for this key's value.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/base/entry.hpp"
#include "core/codec/compressor.hpp"

namespace stillwarm {

struct Envelope {
  std::uint8_t codec = 0;
  bool negative = false;
  Nanos ttl = kForever;
  Nanos stale_while_revalidate = 0;
  Nanos stale_if_error = 0;
  Nanos keep = 0;
  std::uint64_t key_hash = 0;
  bool compressed = false;  // the body; told by open(), for seal() to say
};

enum class Opened : std::uint8_t {
  kOk,
  kUnknown,       // magic, version or flags: another release's, or not ours
  kDamaged,       // checksum or a length
  kWrongKey,      // whole, and of another key
  kTooLarge,      // its value is beyond the limits
  kNoDictionary,  // whole, and compressed with a dictionary that this process has not got
};
inline constexpr std::size_t kOpened = 6;
inline constexpr std::array<const char*, kOpened> kOpenedNames = {"ok",        "unknown",   "damaged",
                                                                  "wrong_key", "too_large", "no_dictionary"};

// Injective up to the hash: a namespace has no NUL in it.
std::uint64_t key_hash(std::string_view key_space, std::string_view key);

// How the payload went into an envelope.
struct Sealed {
  std::size_t body = 0;     // bytes that it has there, with the number of its dictionary
  bool compressed = false;  // with or without
  bool with_dictionary = false;
};

// Durations are rounded up to a millisecond, what is below 0 counts as 0, what is beyond kLongestDuration is for ever.
// With a dictionary the payload is compressed with it where it pays, else as without. Throws std::bad_alloc.
std::string seal(const Envelope& envelope, std::string_view payload, const CompressOptions& options,
                 const Dictionary* dictionary = nullptr, Sealed* how = nullptr);

// The number of the dictionary that the envelope asks for; 0: none, or it is not whole.
std::uint64_t dictionary_of(std::string_view stored) noexcept;

bool is_whole(std::string_view stored) noexcept;  // of this format, and with the checksum of its bytes

// `out` and `payload` mean something only after kOk. Reads nothing outside `stored`. Without the dictionary that it
// asks for it is kNoDictionary. Throws std::bad_alloc.
Opened open(std::string_view stored, std::uint64_t expected_key_hash, const DecodeLimits& limits, Envelope& out,
            std::string& payload, const Dictionary* dictionary = nullptr);

}  // namespace stillwarm
