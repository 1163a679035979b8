// One list of the eviction policy, threaded through the entries themselves, with its length and its bytes.
//
// Thread rule: single owner; nothing here locks.
// Refuses to know: why an entry is in this list, and which list it is (the policy keeps `Entry::queue`).
//
// Invariants
//  L1  newest_ == kNone exactly when oldest_ == kNone exactly when size_ == 0.
//  L2  size_ and bytes_ are the count and the sum of `weight` of what is linked; who changes a weight calls `reweigh`.
#pragma once

#include <cstdint>

#include "core/base/entry.hpp"

namespace stillwarm {

class IntrusiveList {
 public:
  bool empty() const noexcept { return size_ == 0; }
  std::uint64_t size() const noexcept { return size_; }
  std::uint64_t bytes() const noexcept { return bytes_; }
  Index newest() const noexcept { return newest_; }
  Index oldest() const noexcept { return oldest_; }

  // REQUIRES: i is in no list.
  void push_newest(Slab& slab, Index i) noexcept {
    Entry& e = slab[i];
    e.newer = kNone;
    e.older = newest_;
    if (newest_ == kNone) {
      oldest_ = i;
    } else {
      slab[newest_].newer = i;
    }
    newest_ = i;
    ++size_;
    bytes_ += e.weight;
  }

  // REQUIRES: i is in this list.
  void remove(Slab& slab, Index i) noexcept {
    Entry& e = slab[i];
    (e.newer == kNone ? newest_ : slab[e.newer].older) = e.older;
    (e.older == kNone ? oldest_ : slab[e.older].newer) = e.newer;
    e.newer = kNone;
    e.older = kNone;
    --size_;
    bytes_ -= e.weight;
  }

  // REQUIRES: i is in this list. The counts do not change, so neither does anything that depends on them.
  void move_to_newest(Slab& slab, Index i) noexcept {
    if (i == newest_) return;
    remove(slab, i);
    push_newest(slab, i);
  }

  // An entry of this list had `before` as its weight and has `after` now.
  void reweigh(std::uint32_t before, std::uint32_t after) noexcept { bytes_ = bytes_ - before + after; }

  // O(n), for tests: links in both directions, L1 and L2, and every entry says that it is in `queue`.
  bool check(const Slab& slab, Queue queue) const noexcept {
    std::uint64_t size = 0;
    std::uint64_t bytes = 0;
    Index newer = kNone;
    for (Index i = newest_; i != kNone; i = slab[i].older) {
      if (slab[i].newer != newer || slab[i].queue != queue || size == size_) return false;
      ++size;
      bytes += slab[i].weight;
      newer = i;
    }
    return newer == oldest_ && size == size_ && bytes == bytes_;
  }

 private:
  Index newest_ = kNone;
  Index oldest_ = kNone;
  std::uint64_t size_ = 0;
  std::uint64_t bytes_ = 0;
};

}  // namespace stillwarm
