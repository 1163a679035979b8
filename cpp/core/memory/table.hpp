// The hash table of the memory tier: key -> index of the entry.
//
// Thread rule: guarded by the cache's owner. `find` may call Traits::match, which may run foreign code (a key's __eq__)
// that changes this very table; every other member runs no foreign code.
// Refuses to know: expiry, eviction, values.
//
// Open addressing with linear probing over 8-byte slots {tag, index}. The tag is the upper half of the hash and gives
// the home position too (tag * slots / 2^32, so that the number of slots need not be a power of two), and so growing
// and deleting never touch an entry. Deleting shifts back; there are no tombstones. The table grows by half, not by
// two: 10.7 to 16 bytes an entry instead of 10.7 to 21.
//
// Invariants
//  T1  A slot is empty if and only if its index is kNone, and at least a quarter of the slots is empty.
//  T2  Between a slot's home and its place there is no empty slot.
//  T3  `generation` changes whenever a slot changes. A find whose match ran foreign code starts anew if it moved, and
//      touches no entry after the match before it has looked.
#pragma once

#include <utility>
#include <vector>

#include "core/base/traits.hpp"

namespace stillwarm {

template <class Traits>
class Table {
 public:
  using Probe = typename Traits::Probe;

  explicit Table(Slab& slab) : slab_(slab), slots_(kSmallest) {}

  std::size_t size() const noexcept { return size_; }
  std::uint64_t generation() const noexcept { return generation_; }
  std::size_t allocated_bytes() const noexcept { return slots_.size() * sizeof(Slot); }

  // The entry's index, kNone, or kFindError.
  Index find(const Probe& probe) const {
    const std::uint32_t tag = tag_of(probe.hash);
    for (int tries = 0; tries < kFindRestarts; ++tries) {
      const std::uint64_t generation = generation_;
      for (std::size_t at = home(tag, slots_.size());; at = next(at)) {
        const Slot slot = slots_[at];
        if (slot.index == kNone) return kNone;
        if (slot.tag != tag) continue;
        const Entry& e = slab_[slot.index];
        if (e.hash != probe.hash) continue;
        const Match match = Traits::match(e.scope, e.key, probe);
        if (match == Match::kError) return kFindError;
        if (generation != generation_) [[unlikely]]
          break;
        if (match == Match::kYes) return slot.index;
      }
    }
    Traits::never_settles(probe);
    return kFindError;
  }

  // Makes room for one more. Throws std::bad_alloc, and then nothing has changed.
  void reserve_one() {
    if ((size_ + 1) * 4 <= slots_.size() * 3) return;
    std::vector<Slot> larger(slots_.size() + slots_.size() / 2);
    for (const Slot& slot : slots_)
      if (slot.index != kNone) place(larger, slot);
    slots_ = std::move(larger);
    ++generation_;
  }

  // Requires reserve_one(), and that the key is not in the table.
  void insert(Index index) noexcept {
    place(slots_, {tag_of(slab_[index].hash), index});
    ++size_;
    ++generation_;
  }

  void erase(Index index) noexcept {
    std::size_t hole = home(tag_of(slab_[index].hash), slots_.size());
    while (slots_[hole].index != index) hole = next(hole);
    for (std::size_t at = next(hole); slots_[at].index != kNone; at = next(at)) {
      // It may move to the hole unless its home lies behind the hole.
      if (distance(home(slots_[at].tag, slots_.size()), at) < distance(hole, at)) continue;
      slots_[hole] = slots_[at];
      hole = at;
    }
    slots_[hole] = Slot{};
    --size_;
    ++generation_;
  }

  bool check_invariants() const {
    std::size_t count = 0;
    for (const Slot& slot : slots_) {
      if (slot.index == kNone) continue;
      ++count;
      if (tag_of(slab_[slot.index].hash) != slot.tag) return false;
      std::size_t at = home(slot.tag, slots_.size());
      while (slots_[at].index != slot.index) {
        if (slots_[at].index == kNone) return false;
        at = next(at);
      }
    }
    return count == size_ && size_ * 4 <= slots_.size() * 3;
  }

 private:
  struct Slot {
    std::uint32_t tag = 0;
    Index index = kNone;
  };

  static constexpr std::size_t kSmallest = 16;

  static std::uint32_t tag_of(std::uint64_t hash) noexcept { return static_cast<std::uint32_t>(hash >> 32); }

  static std::size_t home(std::uint32_t tag, std::size_t slots) noexcept {
    return static_cast<std::size_t>(std::uint64_t{tag} * slots >> 32);
  }
  std::size_t next(std::size_t at) const noexcept { return at + 1 == slots_.size() ? 0 : at + 1; }
  std::size_t distance(std::size_t from, std::size_t to) const noexcept {
    return to >= from ? to - from : to + slots_.size() - from;
  }

  static void place(std::vector<Slot>& slots, Slot slot) noexcept {
    std::size_t at = home(slot.tag, slots.size());
    while (slots[at].index != kNone) at = at + 1 == slots.size() ? 0 : at + 1;
    slots[at] = slot;
  }

  Slab& slab_;
  std::vector<Slot> slots_;
  std::size_t size_ = 0;
  std::uint64_t generation_ = 0;
};

}  // namespace stillwarm
