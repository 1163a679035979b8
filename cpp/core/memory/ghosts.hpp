// What left the window lately without being kept: enough to say "a larger window would have had this".
//
// Thread rule: single owner; nothing here locks.
// Refuses to know: entries and keys. It sees hashes, and a clock that is the caller's (how much has left the window).
//
// Invariants
//  G1  slots_.size() is a power of two (or 0 before the first `reserve`).
//  G2  `reserve` is the only member that can throw (std::bad_alloc), and then nothing has changed.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace stillwarm {

class Ghosts {
  // A direct-mapped table: who comes later takes the slot. Only the last few per cent of the departures matter to the
  // policy, so that half a byte to a byte per entry of the cache is enough, and what is lost to a collision is lost
  // on average as often for every key.
 public:
  explicit Ghosts(std::uint64_t seed) noexcept : seed_(seed) {}

  // Room for `count` departures.
  void reserve(std::uint64_t count) {
    if (count <= slots_.size()) return;
    std::vector<Slot>(std::bit_ceil(std::max<std::uint64_t>(count, kLeast))).swap(slots_);
  }

  // REQUIRES (both): reserve was called once.
  void remember(std::uint64_t hash, std::uint32_t clock) noexcept {
    const std::uint64_t mixed = mix(hash);
    slots_[mixed & (slots_.size() - 1)] = {fingerprint(mixed), clock};
  }

  // Was it remembered, and at most `reach` ago? A ghost answers once.
  bool take(std::uint64_t hash, std::uint32_t clock, std::uint32_t reach) noexcept {
    const std::uint64_t mixed = mix(hash);
    Slot& slot = slots_[mixed & (slots_.size() - 1)];
    if (slot.fingerprint != fingerprint(mixed)) return false;
    slot.fingerprint = 0;
    return clock - slot.clock <= reach;  // modulo 2^32, as the clock is
  }

  std::size_t allocated_bytes() const noexcept { return slots_.size() * sizeof(Slot); }

 private:
  static constexpr std::uint64_t kLeast = 64;

  struct Slot {
    std::uint32_t fingerprint = 0;  // 0: empty
    std::uint32_t clock = 0;
  };

  std::uint64_t mix(std::uint64_t hash) const noexcept {
    const std::uint64_t product = (hash ^ seed_) * 0xff51afd7ed558ccdULL;
    return product ^ product >> 32;
  }
  static std::uint32_t fingerprint(std::uint64_t mixed) noexcept { return static_cast<std::uint32_t>(mixed >> 32) | 1; }

  std::vector<Slot> slots_;
  std::uint64_t seed_;
};

}  // namespace stillwarm
