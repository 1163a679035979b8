// The hash table of the memory tier: key -> index of the entry.
//
// Thread rule: guarded by the cache's owner. `find` and `find_first` may call Traits::match, which may run foreign code
// (a key's __eq__) that changes this very table; every other member runs no foreign code.
// Refuses to know: expiry, eviction, values.
//
// Open addressing with linear probing over 8-byte slots {tag, index}. The tag is the upper half of the hash, and the
// home of a slot is tag * homes / 2^32: it grows with the tag. So the slots can be kept sorted by tag, all of them, and
// a search that meets a larger tag knows that there is nothing, an insertion shifts to the right, an erasure to the
// left until a slot is at home, and growing is one pass from left to right. None of them touches an entry that does not
// have the same tag; none jumps about (compared with unsorted slots: 4 mispredicted branches less for a miss and its
// eviction).
//
// The table grows by half, not by two: 10.7 to 16 bytes an entry instead of 10.7 to 21. It does not wrap around: a
// tail behind the last home takes what is pushed there, 64 slots unless hashes collide by the dozen.
//
// Invariants
//  T1  A slot is empty if and only if its index is kNone; then its tag is the largest there is.
//  T2  Slots that are not empty are sorted by tag, each at its home or right of it, without an empty slot in between.
//  T3  `generation` changes whenever a slot changes. A find whose match ran foreign code starts anew if it moved, and
//      touches no entry after the match before it has looked.
//  T4  The last slot is empty: every search ends there.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "core/base/traits.hpp"

namespace stillwarm {

template <class Traits>
class Table {
 public:
  using Probe = typename Traits::Probe;

  explicit Table(Slab& slab) : slab_(slab), slots_(kSmallest + kTail) {}

  std::size_t size() const noexcept { return size_; }
  std::uint64_t generation() const noexcept { return generation_; }

  // The entry's index, kNone, or kFindError.
  [[gnu::noinline]] Index find(const Probe& probe) const {
    const std::uint32_t tag = tag_of(probe.hash);
    for (int tries = 0; tries < kFindRestarts; ++tries) {
      const std::uint64_t generation = generation_;
      std::size_t at = first_not_below(tag);
      for (;; ++at) {
        const Slot slot = slots_[at];
        if (slot.tag != tag || slot.index == kNone) return kNone;
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

  // The same for the hot path, in its caller: the first entry with the key's tag is nearly always the one, or there is
  // none. What is not decided so is looked for anew.
  [[gnu::always_inline]] Index find_first(const Probe& probe) const {
    const std::uint32_t tag = tag_of(probe.hash);
    const Slot slot = slots_[first_not_below(tag)];
    if (slot.tag != tag || slot.index == kNone) return kNone;
    const Entry& e = slab_[slot.index];
    if (e.hash == probe.hash) [[likely]] {
      const std::uint64_t generation = generation_;
      const Match match = Traits::match(e.scope, e.key, probe);
      if (match == Match::kYes && generation == generation_) [[likely]]
        return slot.index;
      if (match == Match::kError) return kFindError;
    }
    return find(probe);
  }

  // Makes room for one more. Throws std::bad_alloc, and then nothing has changed.
  void reserve_one() {
    const bool crowded = (size_ + 1) * 4 > homes_ * 3;
    if (!crowded && slots_[slots_.size() - 2].index == kNone) return;
    std::size_t tail = slots_.size() - homes_;
    while (!grow(crowded ? homes_ + homes_ / 2 : homes_, tail)) tail *= 2;
  }

  // Requires reserve_one(), and that the key is not in the table.
  void insert(Index index) noexcept {
    Slot carried{tag_of(slab_[index].hash), index};
    for (std::size_t at = first_not_below(carried.tag); carried.index != kNone; ++at) std::swap(carried, slots_[at]);
    ++size_;
    ++generation_;
  }

  void erase(Index index) noexcept {
    std::size_t hole = first_not_below(tag_of(slab_[index].hash));
    while (slots_[hole].index != index) ++hole;
    for (; slots_[hole + 1].index != kNone && home(slots_[hole + 1].tag, homes_) <= hole; ++hole) {
      slots_[hole] = slots_[hole + 1];
    }
    slots_[hole] = Slot{};
    --size_;
    ++generation_;
  }

  bool check_invariants() const {
    std::size_t count = 0;
    for (std::size_t at = 0; at < slots_.size(); ++at) {
      const Slot& slot = slots_[at];
      if (slot.index == kNone) {
        if (slot.tag != kLargest) return false;
        continue;
      }
      ++count;
      const std::size_t own = home(slot.tag, homes_);
      if (tag_of(slab_[slot.index].hash) != slot.tag || own > at) return false;
      if (own < at && (slots_[at - 1].index == kNone || slots_[at - 1].tag > slot.tag)) return false;
    }
    return count == size_ && size_ * 4 <= homes_ * 3 && slots_.back().index == kNone;
  }

 private:
  static constexpr std::uint32_t kLargest = ~std::uint32_t{0};

  struct Slot {
    std::uint32_t tag = kLargest;
    Index index = kNone;
  };

  static constexpr std::size_t kSmallest = 16;
  static constexpr std::size_t kTail = 64;

  static std::uint32_t tag_of(std::uint64_t hash) noexcept { return static_cast<std::uint32_t>(hash >> 32); }
  static std::size_t home(std::uint32_t tag, std::size_t homes) noexcept {
    return static_cast<std::size_t>(std::uint64_t{tag} * homes >> 32);
  }

  std::size_t first_not_below(std::uint32_t tag) const noexcept {
    std::size_t at = home(tag, homes_);
    while (slots_[at].tag < tag) ++at;
    return at;
  }

  // False: the tail does not hold what is pushed behind the last home, and one more.
  bool grow(std::size_t homes, std::size_t tail) {
    std::vector<Slot> larger(homes + tail);
    std::size_t next = 0;  // the first slot that is free
    for (const Slot& slot : slots_) {
      if (slot.index == kNone) continue;
      next = std::max(next, home(slot.tag, homes));
      if (next >= larger.size()) return false;
      larger[next++] = slot;
    }
    if (next + 2 > larger.size()) return false;  // the last but one is free, so that the last stays so
    slots_ = std::move(larger);
    homes_ = homes;
    ++generation_;
    return true;
  }

  Slab& slab_;
  std::size_t homes_ = kSmallest;
  std::vector<Slot> slots_;
  std::size_t size_ = 0;
  std::uint64_t generation_ = 0;
};

}  // namespace stillwarm
