// Which entry has to go when the cache is full.
//
// Thread rule: single owner; nothing here locks.
// Refuses to know: keys, values, deadlines. Of an entry it reads `hash` and `weight`, and it owns `queue`, `touched`,
// `newer` and `older`.
//
// Invariants
//  P1  Every entry between on_insert and on_remove is in exactly the list that its `queue` names.
//  P2  `victim` looks at no more than kMaxExamined entries and returns an entry whenever a limit is exceeded.
//  P3  `reserve_for_insert` is the only member that can throw (std::bad_alloc), and then nothing has changed.
#pragma once

#include <cstdint>

#include "core/base/entry.hpp"
#include "core/memory/frequency_sketch.hpp"
#include "core/memory/intrusive_list.hpp"

namespace stillwarm {

// 0 means no such limit; at least one is set.
struct Limits {
  std::uint64_t max_entries = 0;
  std::uint64_t max_bytes = 0;
};

class Policy {
 public:
  Policy(Slab& slab, Limits limits, std::uint64_t seed) noexcept;

  // A hit. All that happens on the hot path: the entry remembers that it was wanted.
  static void on_hit(Entry& e) noexcept { e.touched = static_cast<std::uint8_t>(e.touched + (e.touched != 255)); }

  // Call before an insert; `on_insert` cannot fail after it.
  void reserve_for_insert() { sketch_.reserve(entries() + 1); }

  // REQUIRES: e.hash and e.weight are set. Follow it with `victim` until that returns kNone.
  void on_insert(Index i) noexcept;

  // The value was replaced in place and e.weight is the new weight. Counts as an access.
  void on_reweigh(Index i, std::uint32_t old_weight) noexcept;

  // The entry leaves for whatever reason, eviction included.
  void on_remove(Index i) noexcept;

  // A demand for a key that is not there, whether or not an insert follows.
  void on_miss(std::uint64_t hash) noexcept { static_cast<void>(hash); }

  // kNone while the limits are kept, else the entry that goes next: pass it to on_remove, free it, and ask again.
  // It may be the one just inserted.
  Index victim() noexcept;

  void set_limits(Limits limits) noexcept { limits_ = limits; }

  // Forgets all entries; they are being freed wholesale. The history of frequencies stays.
  void clear() noexcept;

  const Limits& limits() const noexcept { return limits_; }
  std::uint64_t entries() const noexcept { return window_.size() + probation_.size() + protected_.size(); }
  std::uint64_t bytes() const noexcept { return window_.bytes() + probation_.bytes() + protected_.bytes(); }
  double window_share() const noexcept { return window_share_; }
  std::size_t allocated_bytes() const noexcept { return sketch_.allocated_bytes(); }

  bool check_invariants() const noexcept;  // O(n), for tests

 private:
  static constexpr double kWindowShare = 0.20;     // at the start
  static constexpr double kProtectedShare = 0.80;  // of what the window leaves
  static constexpr std::uint32_t kMaxExamined = 32;

  bool exceeds(std::uint64_t entries, std::uint64_t bytes, double share) const noexcept;
  IntrusiveList& list(Queue q) noexcept;
  void move(Index i, Queue to) noexcept;
  void credit(Entry& e) noexcept;
  void note_oversize(Index i) noexcept;
  bool admits(const Entry& candidate, const Entry& resident) noexcept;
  Index settle_window() noexcept;
  Index settle_probation() noexcept;
  void shrink_protected() noexcept;
  std::uint64_t random() noexcept;

  Slab& slab_;
  Limits limits_;
  FrequencySketch sketch_;
  IntrusiveList window_;
  IntrusiveList probation_;
  IntrusiveList protected_;
  double window_share_ = kWindowShare;
  std::uint64_t random_;
  Index oversize_ = kNone;  // an entry larger than the whole budget
  std::uint32_t examined_ = 0;
};

}  // namespace stillwarm
