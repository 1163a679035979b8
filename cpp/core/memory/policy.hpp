// Which entry has to go when the cache is full.
//
// Thread rule: single owner; nothing here locks.
// Refuses to know: keys, values, deadlines. Of an entry it reads `hash` and `weight`, and it owns `queue`, `touched`,
// `newer` and `older`.
//
// Invariants
//  P1  Every entry between on_insert and on_remove is in exactly the list that its `queue` names.
//  P2  Between two calls that insert, remove or replace, at most kMaxExamined entries are spared because they were
//      wanted, and at most kMostLooked are passed by the hand; `victim` returns an entry whenever a limit is exceeded.
//  P3  `reserve_for_insert` is the only member that can throw (std::bad_alloc), and then nothing has changed.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/base/entry.hpp"
#include "core/memory/frequency_sketch.hpp"
#include "core/memory/ghosts.hpp"
#include "core/memory/intrusive_list.hpp"

namespace stillwarm {

// 0 means no such limit; at least one is set.
struct Limits {
  std::uint64_t max_entries = 0;
  std::uint64_t max_bytes = 0;
};

class Policy {
  // W-TinyLFU with lazy promotion and a window that follows the traffic, after
  //   G. Einziger, O. Eytan, R. Friedman, B. Manes: Adaptive Software Cache Management. Middleware 2018.
  //   G. Einziger, R. Friedman, B. Manes: TinyLFU. ACM Trans. Storage 13(4), 2017.
  //   N. Megiddo, D. Modha: ARC. FAST 2003 (ghosts as a signal).
  //
  // A new entry starts in the *window*. Who is the oldest there becomes the *candidate* and must have been asked for
  // more often than the *resident* that would have to leave: the oldest of *probation*. Winners start in probation,
  // and who is wanted again there is *protected*. So a scan passes through the window and harms nobody; and what is
  // only new, not yet frequent, has the window to prove itself.
  //
  // Lazy promotion. A hit only raises `touched`. The lists learn of it when the entry is next the oldest of its list:
  // then its hits go into the sketch, and it moves to where an eager policy would have moved it before. That costs a
  // hit one byte and no lock-step with the lists, and in our replays loses nothing against moving at once.
  //
  // The window's share. Neither a fixed share nor hill climbing on the hit ratio stands all traffic: the climber sees
  // the traffic's own changes and takes them for its doing. Instead two marginal values are compared, both counted in
  // passing. *Gain*: how often a key is asked for that left the window so recently that a window larger by kStep of
  // the capacity would still have had it. *Loss*: how often an entry of probation turned out to be wanted, times the
  // part of probation that kStep of the capacity is: what would be hit no more if the main part were smaller by as
  // much. The share moves in small steps towards whoever is worth more. On a loop larger than the cache the gain is
  // nothing, since what left comes back too late for that: the window closes, and the main part keeps what it has.
  //
  // A draw is no win. The candidate's own request has been counted already, the resident's next one not yet; so, on a
  // loop, every candidate would win by one and nothing would stay. The candidate must win by two.
  //
  // Bytes. With a budget in bytes all shares are shares of bytes, the ghosts' clock counts bytes, and what is compared
  // is frequency per byte. The oldest resident is then not the best victim: size matters as much as age. So the
  // resident is the least worthy of kSample, and what counts is how many are seen for each one that leaves. They are
  // taken from probation in the order of the slab, by a hand that goes round: neighbours in memory, where neighbours
  // in the list would be a cache miss each (430 ns against 1.1 us with a million entries).
  //
  // Hash flooding. The sketch is seeded, and one candidate in 128 is let in whatever the sketch says, so that a
  // resident whose count was blown up by chosen keys does not stay for ever.
 public:
  Policy(Slab& slab, Limits limits, std::uint64_t seed) noexcept;

  // A hit. All that happens on the hot path.
  static void on_hit(Entry& e) noexcept { e.touched = static_cast<std::uint8_t>(e.touched + (e.touched != 255)); }

  // Call before an insert; `on_insert` cannot fail after it.
  void reserve_for_insert() {
    if (entries() < sketch_.capacity()) return;
    // The ghosts first: if the sketch then fails, the next insert comes here again. The sketch will have doubled.
    const double coming = 2.0 * static_cast<double>(sketch_.capacity());
    ghosts_.reserve(std::max<std::uint64_t>(1, static_cast<std::uint64_t>(coming * kMargin)));
    sketch_.reserve(entries() + 1);
  }

  // REQUIRES: e.hash and e.weight are set. Follow it with `victim` until that returns kNone.
  void on_insert(Index i) noexcept;

  // The value was replaced in place and e.weight is the new weight. Counts as an access.
  void on_reweigh(Index i, std::uint32_t old_weight) noexcept;

  // The entry leaves for whatever reason, eviction included.
  void on_remove(Index i) noexcept;

  // kNone while the limits are kept, else the entry that goes next: pass it to on_remove, free it, and ask again.
  // It may be the one just inserted.
  Index victim() noexcept;

  void set_limits(Limits limits) noexcept;

  const Limits& limits() const noexcept { return limits_; }
  std::uint64_t entries() const noexcept { return window_.size() + probation_.size() + protected_.size(); }
  std::uint64_t bytes() const noexcept { return window_.bytes() + probation_.bytes() + protected_.bytes(); }
  double window_share() const noexcept { return window_share_; }
  std::uint64_t window_entries() const noexcept { return window_.size(); }
  std::size_t allocated_bytes() const noexcept { return sketch_.allocated_bytes() + ghosts_.allocated_bytes(); }

  bool check_invariants() const noexcept;  // O(n), for tests

 private:
  static constexpr double kWindowShare = 0.20;  // at the start
  static constexpr double kLeastWindow = 0.01;
  static constexpr double kMostWindow = 0.90;
  static constexpr double kStep = 0.02;        // of the share, at most, at once
  static constexpr double kMargin = 1.0 / 16;  // of the capacity: the piece whose value is weighed
  static constexpr double kPeriod = 1.0 / 12;  // inserts between two steps, of the entries
  static constexpr std::uint32_t kMaxExamined = 32;
  static constexpr std::uint32_t kSample = 12;
  static constexpr std::uint32_t kMostLooked = 32;

  bool in_bytes() const noexcept { return limits_.max_bytes != 0; }
  bool exceeds(std::uint64_t entries, std::uint64_t bytes, double share) const noexcept;
  bool full() const noexcept { return exceeds(entries(), bytes(), 1.0); }
  IntrusiveList& list(Queue q) noexcept;
  void move(Index i, Queue to) noexcept;
  void credit(Entry& e) noexcept;
  void note_oversize(Index i) noexcept;

  Index settle_window() noexcept;
  Index settle_probation() noexcept;
  Index least_worthy() noexcept;
  void promote(Index i) noexcept;
  void trim_window(std::uint32_t arrived) noexcept;
  bool admits(const Entry& candidate, const Entry& resident) noexcept;

  void remember_rejected(const Entry& e) noexcept;
  void count_return(const Entry& e) noexcept;
  void move_share() noexcept;
  std::uint64_t random() noexcept;

  Slab& slab_;
  Limits limits_;
  FrequencySketch sketch_;
  Ghosts ghosts_;
  IntrusiveList window_;
  IntrusiveList probation_;
  IntrusiveList protected_;
  double window_share_ = kWindowShare;
  double gain_ = 0;
  double loss_ = 0;
  std::uint64_t inserts_ = 0;   // since the share was last looked at
  std::uint64_t rejected_ = 0;  // the ghosts' clock: entries, or bytes
  std::uint64_t random_;
  std::uint32_t clock_shift_ = 0;
  std::uint32_t examined_ = 0;
  Index hand_ = kNone;      // where the next sample begins
  Index oversize_ = kNone;  // an entry larger than the whole budget
};

}  // namespace stillwarm
