// zstd with a threshold before it and limits behind it. Alone includes zstd.
//
// Thread rule: any thread; each has contexts of its own, which go when it ends.
// Refuses to know: what it compresses, and where that is kept.
//
// What comes from a store is not trusted: 32 KB can expand to 1 GiB. So before a byte of output is allocated:
//   size      a frame says how much it holds, and that is within the limit; one that does not say it may hold little
//   ratio     what is large is at most kHighestRatio times its frame, so that a few bytes cannot ask for 64 MiB
//   window    at most 8 MiB, what RFC 8878 asks every decoder for; a frame in one segment needs no window of its own
// and then a frame that holds more than it said is refused where it says too much, not when it has all been read.
// compress() makes nothing that decompress() refuses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace stillwarm {

struct CompressOptions {
  std::size_t above = 1024;  // bytes; what is not longer stays as it is; 0: everything does
  int level = 3;             // 6 and more cost 4 to 7 times the time for less than 5 %
};

struct DecodeLimits {
  std::size_t largest = std::size_t{64} << 20;         // bytes of a value, compressed or not
  std::size_t largest_untold = std::size_t{64} << 10;  // of a frame that does not say how much it holds
};

inline constexpr std::size_t kHighestRatio = 1024;
inline constexpr std::size_t kAnyRatioBelow = std::size_t{1} << 20;  // up to here the ratio does not matter
inline constexpr unsigned kLargestWindowLog = 23;

enum class Expanded : std::uint8_t { kOk, kDamaged, kTooLarge };

// Appends one frame to `out`; false: it would not pay (10 % at least), and `out` is as it was. Throws std::bad_alloc.
bool compress(std::string_view raw, const CompressOptions& options, std::string& out);

// What one frame holds, into `out`, which is empty if the answer is not kOk. Throws std::bad_alloc.
Expanded decompress(std::string_view frame, const DecodeLimits& limits, std::string& out);

}  // namespace stillwarm
