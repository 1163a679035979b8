// How often a key was asked for lately, resident or not, in four bits.
//
// Thread rule: single owner; nothing here locks.
// Refuses to know: keys and entries. It sees hashes, and mixes them with a seed of its own.
//
// Invariants
//  S1  blocks_.size() is a power of two (or 0 before the first `reserve`).
//  S2  `reserve` is the only member that can throw (std::bad_alloc), and then nothing has changed.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace stillwarm {

class FrequencySketch {
  // A count-min sketch with ageing, after
  //   G. Einziger, R. Friedman, B. Manes: TinyLFU: A Highly Efficient Cache Admission Policy. ACM Trans. Storage 13(4).
  //
  // One key lives in one cache line. A block is 64 bytes: four rows of 32 counters of 4 bits. The hash chooses the
  // block and one counter in each row; the estimate is the smallest of the four, and an access raises only counters
  // that are at the minimum (conservative update: a counter never exceeds what its heaviest key deserves by more
  // than its collisions forced). So a read or a write is one cache miss, where a classic sketch has four.
  //
  // Old popularity fades: after `10 x capacity` accesses all counters are halved. To halve a large table at once would
  // be a pause of milliseconds on somebody's write, so the sweep does kSweep blocks per access. It needs
  // capacity / 64 accesses of the 10 x capacity between sweeps, during which a few comparisons are off by a factor of
  // two: noise that admission tolerates.
  //
  // The number of entries may be unknown (a byte budget), so the table doubles with the entries. The block number is
  // the low bits of the hash; a doubled table therefore starts as two copies of the old one, and no history is lost.
  // What a copy overstates, ageing removes.
  //
  // The seed is random per cache: without it, keys could be chosen to collide with one victim's counters.
 public:
  explicit FrequencySketch(std::uint64_t seed) noexcept : seed_(seed) {}

  static constexpr std::uint32_t kMax = 15;

  // Makes room for the history of `entries` keys: 4 to 8 bytes for each.
  void reserve(std::uint64_t entries) {
    if (entries <= capacity_) return;
    std::uint64_t blocks = std::max<std::uint64_t>(blocks_.size() * 2, kMinBlocks);
    while (blocks * kKeysPerBlock < entries) blocks *= 2;
    std::vector<Block> grown(blocks);
    for (std::size_t i = 0; i < grown.size() && !blocks_.empty(); ++i) grown[i] = blocks_[i & (blocks_.size() - 1)];
    blocks_ = std::move(grown);
    capacity_ = blocks * kKeysPerBlock;
    sweep_ = blocks;  // an unfinished sweep is dropped; the next one comes
  }

  // REQUIRES (both): reserve was called once.
  std::uint32_t estimate(std::uint64_t hash) const noexcept {
    const Place p = place(hash);
    std::uint32_t least = kMax;
    for (std::uint32_t row = 0; row < kRows; ++row) least = std::min(least, p.get(blocks_[p.block], row));
    return least;
  }

  void add(std::uint64_t hash, std::uint32_t times) noexcept {
    const Place p = place(hash);
    Block& block = blocks_[p.block];
    std::uint32_t least = kMax;
    for (std::uint32_t row = 0; row < kRows; ++row) least = std::min(least, p.get(block, row));
    const std::uint32_t raised = std::min(kMax, least + times);
    for (std::uint32_t row = 0; row < kRows; ++row) p.raise(block, row, raised);
    age(times);
  }

  std::size_t allocated_bytes() const noexcept { return blocks_.size() * sizeof(Block); }
  std::uint64_t capacity() const noexcept { return capacity_; }

 private:
  static constexpr std::uint32_t kRows = 4;
  static constexpr std::uint64_t kKeysPerBlock = 16;
  static constexpr std::uint64_t kMinBlocks = 4;
  static constexpr std::uint64_t kPeriod = 10;  // accesses per key of capacity between two halvings
  static constexpr std::uint64_t kSweep = 4;    // blocks halved per access while a sweep is under way

  struct alignas(64) Block {
    std::array<std::uint64_t, 8> words{};
  };

  struct Place {
    std::uint64_t block;
    std::uint32_t counters;  // 5 bits for each row

    // Row r is words 2r and 2r + 1; 16 counters in each.
    std::uint32_t word(std::uint32_t row) const noexcept { return row * 2 + (counters >> (row * 5 + 4) & 1); }
    std::uint32_t shift(std::uint32_t row) const noexcept { return (counters >> (row * 5) & 15) * 4; }
    std::uint32_t get(const Block& b, std::uint32_t row) const noexcept {
      return static_cast<std::uint32_t>(b.words[word(row)] >> shift(row)) & 15;
    }
    // To `value` if that is more. Without a branch: which counters are below is what no predictor knows.
    void raise(Block& b, std::uint32_t row, std::uint32_t value) const noexcept {
      const std::uint32_t now = get(b, row);
      b.words[word(row)] += std::uint64_t{std::max(now, value) - now} << shift(row);
    }
  };

  Place place(std::uint64_t hash) const noexcept {
    __extension__ using Wide = unsigned __int128;
    const Wide product = static_cast<Wide>(hash ^ seed_) * 0x9e3779b97f4a7c15ULL;
    const auto low = static_cast<std::uint64_t>(product);
    const auto high = static_cast<std::uint64_t>(product >> 64);
    const std::uint64_t mixed = (low ^ high) * 0xd6e8feb86659fd93ULL;
    return {(mixed >> 24) & (blocks_.size() - 1), static_cast<std::uint32_t>((mixed ^ mixed >> 43) & 0xfffff)};
  }

  void age(std::uint64_t times) noexcept {
    added_ += times;
    if (added_ >= capacity_ * kPeriod) {
      added_ = 0;
      sweep_ = 0;
    }
    for (std::uint64_t n = 0; n < kSweep && sweep_ < blocks_.size(); ++n, ++sweep_) {
      for (std::uint64_t& w : blocks_[sweep_].words) w = w >> 1 & 0x7777777777777777ULL;
    }
  }

  std::vector<Block> blocks_;
  std::uint64_t seed_;
  std::uint64_t capacity_ = 0;
  std::uint64_t added_ = 0;
  std::uint64_t sweep_ = 0;
};

}  // namespace stillwarm
