// zstd with a threshold before it and limits behind it, with and without a dictionary. Alone includes zstd.
//
// Thread rule: any thread; each has contexts of its own, which go when it ends. A Dictionary is immutable and shared.
// Refuses to know: what it compresses, where that is kept, and which dictionary is for what (dictionaries.hpp).
//
// What comes from a store is not trusted: 32 KB can expand to 1 GiB. So before a byte of output is allocated:
//   size      a frame says how much it holds, and that is within the limit; one that does not say it may hold little
//   ratio     what is large is at most kHighestRatio times its frame, so that a few bytes cannot ask for 64 MiB
//   window    at most 8 MiB, what RFC 8878 asks every decoder for; a frame in one segment needs no window of its own
// and then a frame that holds more than it said is refused where it says too much, not when it has all been read.
// compress() makes nothing that decompress() refuses.
//
// A dictionary from a store is not trusted either: it is at most kLargestDictionary, has a trained dictionary's header
// and tables that zstd accepts, and its number is the hash of its bytes, so that no other can stand in for it. The
// limits above hold with a dictionary as without. A frame says nothing of its dictionary (4 bytes less of each value);
// who keeps the frame keeps the number.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
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

inline constexpr std::size_t kLargestDictionary = std::size_t{112} << 10;
inline constexpr std::size_t kTrainedDictionary = std::size_t{16} << 10;
inline constexpr std::size_t kWithDictionaryFrom = 100;                     // bytes; below, headers are half of it
inline constexpr std::size_t kWithDictionaryUpTo = 2 * kTrainedDictionary;  // above, a value is its own dictionary
inline constexpr int kDictionaryIdBits = 49;                                // 7 bytes of a varint

class Dictionary {
 public:
  // Null: it is none. Throws std::bad_alloc.
  static std::shared_ptr<const Dictionary> make(std::string_view bytes);

  Dictionary(const Dictionary&) = delete;
  Dictionary& operator=(const Dictionary&) = delete;
  ~Dictionary();

  std::uint64_t id() const noexcept { return id_; }  // of its bytes; above 0
  const std::string& bytes() const noexcept { return bytes_; }
  std::size_t memory() const noexcept;  // with its tables: 60 KB for one of 16 KB, 480 KB once it has compressed

  struct Tables;  // the compressor's own
  Tables& tables() const noexcept { return *tables_; }

 private:
  Dictionary(std::string_view bytes, std::unique_ptr<Tables> tables);

  const std::uint64_t id_;
  const std::string bytes_;
  const std::unique_ptr<Tables> tables_;
};

// A dictionary for what the samples have in common, of at most `capacity` bytes; empty: zstd finds none. 60 to 200 ms
// for a MiB of samples. Throws std::bad_alloc.
std::string train_dictionary(std::span<const std::string> samples, std::size_t capacity);

enum class Expanded : std::uint8_t { kOk, kDamaged, kTooLarge };

// Appends one frame to `out`; false: it would not pay (10 % at least), and `out` is as it was. Throws std::bad_alloc.
bool compress(std::string_view raw, const CompressOptions& options, std::string& out);

// The same with a dictionary, from kWithDictionaryFrom on; `above` only says whether anything is compressed at all.
bool compress(std::string_view raw, const CompressOptions& options, const Dictionary& dictionary, std::string& out);

// What one frame holds, into `out`, which is empty if the answer is not kOk. `dictionary`: the one that it was made
// with, and then it has to say how much it holds. Throws std::bad_alloc.
Expanded decompress(std::string_view frame, const DecodeLimits& limits, std::string& out,
                    const Dictionary* dictionary = nullptr);

}  // namespace stillwarm
