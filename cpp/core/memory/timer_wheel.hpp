// Finds the entries whose deadline has passed, without a search: schedule and cancel are O(1).
//
// Thread rule: single owner; nothing here locks.
// Refuses to know: what a deadline means, and what happens to a due entry. Deadlines are not stored: whoever owns
// them is asked again when it matters, so a deadline that moved *later* needs no call at all.
//
// Invariants
//  W1  An entry in bucket (level, slot) has the digits of `done_` above `level`, and at `level` a larger digit.
//  W2  Hence the next bucket to open is the lowest bit of the lowest non-empty level; nothing is ever searched.
//  W3  `occupied_` has a bit for each bucket that is not empty; the pending list has none.
//  W4  Entry::timer_state is kIdle (no links), kLinked (timer_prev is an entry) or kFirst (timer_prev is the bucket).
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

#include "core/base/entry.hpp"

namespace stillwarm {

class TimerWheel {
  // A hierarchical timing wheel, after
  //   G. Varghese, T. Lauck: Hashed and Hierarchical Timing Wheels. SOSP 1987 (scheme 7).
  //
  // Time is a number of ticks of 2^23 ns (8.4 ms), written in base 64: seven digits hold every 63-bit time. `done_` is
  // the tick up to which everything was handed over. An entry goes into the level of the highest digit in which its
  // tick differs from done_, into the slot named by that digit. When done_ arrives at the start of a slot of a higher
  // level, its entries are looked at again and move to lower levels: each at most six times in its life, and most of
  // them, being cancelled or replaced before, never.
  //
  // A deadline is rounded up to its tick and now is rounded down, so that an entry is never early and at most one
  // tick late.
  //
  // The work of one call is bounded. A slot that opens is moved as a whole, by its head, to the pending list; the
  // list is then worked off entry by entry, and what the budget leaves waits there for the next call. No slot opens
  // while something is pending, so that the list head is all the state that there is.
 public:
  static constexpr int kTickBits = 23;
  static constexpr Nanos kTick = Nanos{1} << kTickBits;

  TimerWheel(Slab& slab, Nanos start) noexcept;

  // Arranges that the entry is handed over when `deadline` has passed; in place of what was arranged before.
  // kForever: never. A deadline in the past is due on the next `advance`.
  void schedule(Index i, Nanos deadline) noexcept;

  // Nothing is arranged afterwards. Also for an entry that was not scheduled.
  void cancel(Index i) noexcept;

  // Hands over what is due at `now`, looking at no more than `budget` entries; what is left is continued by the next
  // call. `deadline_of(i)` is the present deadline (kForever: none). `expire(i)` gets the entry unlinked; it may free
  // it and may schedule or cancel any other. Returns the entries looked at: less than `budget` means all is done.
  template <class DeadlineOf, class Expire>
  std::uint32_t advance(Nanos now, std::uint32_t budget, DeadlineOf&& deadline_of, Expire&& expire) noexcept {
    if (scheduled_ == 0) done_ = tick_before(now);  // nothing depends on it: a clock that tests moved may come back
    const std::uint64_t target = std::max(done_, tick_before(now));
    std::uint32_t work = 0;
    while (work < budget) {
      const Index i = heads_[kPending];
      if (i == kNone) {
        if (!open_next(target)) break;
        continue;
      }
      ++work;
      unlink(i);
      const Nanos deadline = deadline_of(i);
      if (deadline == kForever) continue;
      const std::uint64_t tick = tick_after(deadline);
      if (tick <= target) {
        expire(i);
      } else {
        link(i, bucket_for(tick));
      }
    }
    return work;
  }

  std::uint64_t scheduled() const noexcept { return scheduled_; }

  bool check_invariants() const noexcept;  // O(n), for tests

 private:
  static constexpr std::uint32_t kDigitBits = 6;
  static constexpr std::uint32_t kSlots = 1u << kDigitBits;
  static constexpr std::uint32_t kLevels = 7;
  static constexpr std::uint32_t kPending = kLevels * kSlots;
  static constexpr std::uint8_t kIdle = 0;
  static constexpr std::uint8_t kLinked = 1;
  static constexpr std::uint8_t kFirst = 2;

  static std::uint64_t tick_before(Nanos t) noexcept { return t < 0 ? 0 : static_cast<std::uint64_t>(t) >> kTickBits; }
  static std::uint64_t tick_after(Nanos t) noexcept {
    return t < 0 ? 0 : (static_cast<std::uint64_t>(t) + (kTick - 1)) >> kTickBits;
  }

  std::uint32_t bucket_for(std::uint64_t tick) const noexcept {
    if (tick <= done_) return kPending;
    const auto level = static_cast<std::uint32_t>(63 - std::countl_zero(tick ^ done_)) / kDigitBits;
    return level * kSlots + (static_cast<std::uint32_t>(tick >> (level * kDigitBits)) & (kSlots - 1));
  }

  void link(Index i, std::uint32_t bucket) noexcept;
  void unlink(Index i) noexcept;
  bool open_next(std::uint64_t target) noexcept;

  Slab& slab_;
  std::uint64_t done_;
  std::uint64_t scheduled_ = 0;
  std::array<std::uint64_t, kLevels> occupied_{};
  std::array<Index, kPending + 1> heads_{};
};

}  // namespace stillwarm
