// A bounded sample of the payloads of one type, to train a dictionary from.
//
// Thread rule: one thread at a time (the GIL in the extension).
// Refuses to know: what it is for, and which payloads may not be in it.
//
// Reservoir sampling (Vitter, Random Sampling with a Reservoir, ACM TOMS 11(1), 1985): of `seen` payloads each had the
// same chance to be here. The same payload twice is one sample, or what is held out for the test would have been
// trained with. Bounded by count and by bytes; both bounds hold after every offer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

namespace stillwarm {

class Sample {
 public:
  static constexpr std::size_t kMost = 1'000;
  static constexpr std::size_t kMostBytes = std::size_t{1} << 20;

  // False: it is here already, or too large. Throws std::bad_alloc, and is whole then.
  bool offer(std::string_view payload);

  std::size_t size() const noexcept { return payloads_.size(); }
  std::size_t bytes() const noexcept { return bytes_; }
  std::uint64_t offered() const noexcept { return offered_; }
  std::uint64_t seen() const noexcept { return seen_; }  // different ones, as far as it can tell
  bool full() const noexcept { return full_; }           // it has met one of its bounds

  const std::vector<std::string>& payloads() const noexcept { return payloads_; }
  void clear() noexcept;

 private:
  void drop(std::size_t i) noexcept;
  std::uint64_t draw(std::uint64_t below) noexcept;

  std::vector<std::string> payloads_;
  std::vector<std::uint64_t> hashes_;  // of the payload at the same place
  std::unordered_set<std::uint64_t> there_;
  std::size_t bytes_ = 0;
  std::uint64_t offered_ = 0;
  std::uint64_t seen_ = 0;
  std::uint64_t random_ = 0x9E3779B97F4A7C15;
  bool full_ = false;
};

}  // namespace stillwarm
