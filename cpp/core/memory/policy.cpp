// The decisions of the eviction policy. Why they are so is in the header.
//
// Thread rule: single owner; nothing here locks.
// Refuses to know: keys, values, deadlines.
#include "core/memory/policy.hpp"

#include <algorithm>
#include <bit>
#include <utility>

namespace stillwarm {

namespace {

// By replay of real and synthetic traces; flat around these values. A byte saved in the main part is worth more than
// one in the window, because the main part chooses what it keeps by size.
constexpr double kLossFactor = 0.6;
constexpr double kLossFactorInBytes = 2.0;
constexpr double kProtected = 0.8;  // of what the window leaves
constexpr double kProtectedInBytes = 0.3;
constexpr double kDoubt = 4.0;  // events that a step has to be sure of
constexpr double kLeastPiece = 4.0;
constexpr std::uint64_t kLeastPeriod = 32;

}  // namespace

Policy::Policy(Slab& slab, Limits limits, std::uint64_t seed) noexcept
    : slab_(slab), sketch_(seed), ghosts_(seed), random_(seed | 1) {
  set_limits(limits);
}

void Policy::set_limits(Limits limits) noexcept {
  limits_ = limits;
  // The ghosts' clock has 32 bits, of which the capacity shall take 24.
  const auto bits = static_cast<std::uint32_t>(std::bit_width(in_bytes() ? limits.max_bytes : limits.max_entries));
  clock_shift_ = bits > 24 ? bits - 24 : 0;
}

// ---- the lists

bool Policy::exceeds(std::uint64_t entries, std::uint64_t bytes, double share) const noexcept {
  const auto part = [share](std::uint64_t limit) { return static_cast<double>(limit) * share; };
  return (limits_.max_entries != 0 && static_cast<double>(entries) > part(limits_.max_entries)) ||
         (limits_.max_bytes != 0 && static_cast<double>(bytes) > part(limits_.max_bytes));
}

IntrusiveList& Policy::list(Queue q) noexcept {
  return q == Queue::kWindow ? window_ : q == Queue::kProbation ? probation_ : protected_;
}

void Policy::move(Index i, Queue to) noexcept {
  Entry& e = slab_[i];
  list(e.queue).remove(slab_, i);
  e.queue = to;
  list(to).push_newest(slab_, i);
}

// The hits that were only noted so far become history.
void Policy::credit(Entry& e) noexcept {
  sketch_.add(e.hash, e.touched);
  e.touched = 0;
}

void Policy::on_insert(Index i) noexcept {
  Entry& e = slab_[i];
  sketch_.add(e.hash, 1);
  e.touched = 0;
  e.queue = Queue::kWindow;
  window_.push_newest(slab_, i);
  examined_ = 0;
  note_oversize(i);
  count_return(e);
  move_share();
  trim_window(e.weight);
}

void Policy::on_reweigh(Index i, std::uint32_t old_weight) noexcept {
  Entry& e = slab_[i];
  list(e.queue).reweigh(old_weight, e.weight);
  on_hit(e);
  examined_ = 0;
  note_oversize(i);
}

void Policy::on_remove(Index i) noexcept {
  Entry& e = slab_[i];
  list(e.queue).remove(slab_, i);
  e.queue = Queue::kNowhere;
  e.touched = 0;
  examined_ = 0;
  if (oversize_ == i) oversize_ = kNone;
}

// What can never fit must not push out everything else first.
void Policy::note_oversize(Index i) noexcept {
  if (in_bytes() && slab_[i].weight > limits_.max_bytes) oversize_ = i;
}

// ---- lazy promotion

// The window's oldest entry that was not wanted again since it was last looked at.
Index Policy::settle_window() noexcept {
  while (slab_[window_.oldest()].touched != 0 && ++examined_ < kMaxExamined) {
    credit(slab_[window_.oldest()]);
    window_.move_to_newest(slab_, window_.oldest());
  }
  return window_.oldest();
}

// The same in probation, or kNone; who was wanted there is protected from now on.
Index Policy::settle_probation() noexcept {
  if (in_bytes()) return least_worthy();
  while (!probation_.empty() && slab_[probation_.oldest()].touched != 0 && ++examined_ < kMaxExamined) {
    promote(probation_.oldest());
  }
  return probation_.oldest();
}

void Policy::promote(Index i) noexcept {
  const double piece = in_bytes() ? kMargin * static_cast<double>(bytes()) / static_cast<double>(probation_.bytes() + 1)
                                  : std::max(kLeastPiece, kMargin * static_cast<double>(entries())) /
                                        static_cast<double>(probation_.size());
  loss_ += std::min(1.0, piece);
  credit(slab_[i]);
  move(i, Queue::kProtected);
  const double share = (in_bytes() ? kProtectedInBytes : kProtected) * (1.0 - window_share_);
  while (protected_.size() > 1 && exceeds(protected_.size(), protected_.bytes(), share)) {
    const Index oldest = protected_.oldest();
    if (slab_[oldest].touched == 0 || ++examined_ >= kMaxExamined) {
      move(oldest, Queue::kProbation);
    } else {
      credit(slab_[oldest]);
      protected_.move_to_newest(slab_, oldest);
    }
  }
}

// Of the next kSample entries of probation in the order of the slab, the one with the fewest requests per byte; kNone
// when there is nothing in probation.
Index Policy::least_worthy() noexcept {
  Index least = kNone;
  std::uint64_t least_requests = 0;
  std::uint32_t compared = 0;
  for (std::uint32_t looked = 0; looked < kMostLooked && compared < kSample; ++looked) {
    if (++hand_ >= slab_.end()) hand_ = 1;
    const Entry& e = slab_[hand_];
    if (e.queue != Queue::kProbation) continue;
    ++compared;
    if (e.touched != 0) {
      if (++examined_ < kMaxExamined) promote(hand_);
      continue;
    }
    const std::uint64_t requests = sketch_.estimate(e.hash) + 1;
    if (least == kNone || requests * slab_[least].weight < least_requests * e.weight) {
      least = hand_;
      least_requests = requests;
    }
  }
  return least != kNone ? least : probation_.oldest();
}

// ---- the contest

bool Policy::admits(const Entry& candidate, const Entry& resident) noexcept {
  const std::uint64_t gain = sketch_.estimate(candidate.hash);
  const std::uint64_t loss = sketch_.estimate(resident.hash) + resident.touched;
  if ((random() & 127) == 0) return true;
  return in_bytes() ? gain * resident.weight > loss * candidate.weight : gain > loss + 1;
}

Index Policy::victim() noexcept {
  if (!full()) return kNone;
  if (oversize_ != kNone) return oversize_;
  const bool main_empty = probation_.empty() && protected_.empty();
  const bool contest = exceeds(window_.size(), window_.bytes(), window_share_) || main_empty;
  const Index resident = settle_probation();
  if (!window_.empty() && contest) {
    const Index candidate = settle_window();
    if (resident == kNone) return candidate;
    if (!admits(slab_[candidate], slab_[resident])) {
      remember_rejected(slab_[candidate]);
      return candidate;
    }
    move(candidate, Queue::kProbation);
  }
  if (resident != kNone) return resident;
  return protected_.empty() ? window_.oldest() : protected_.oldest();
}

// ---- the window's share

// While there is room, what the window cannot hold needs no contest. In a full cache the contests keep its length, and
// only a share that fell leaves more than a little to be moved. Two steps for one insert, so that it gets there.
void Policy::trim_window(std::uint32_t arrived) noexcept {
  const std::uint64_t slack = full() ? 2 : 0;
  for (int n = 0; n < 2 && window_.size() > slack + 1; ++n) {
    const std::uint64_t slack_bytes = std::min(window_.bytes(), slack * arrived);
    if (!exceeds(window_.size() - slack, window_.bytes() - slack_bytes, window_share_)) break;
    move(settle_window(), Queue::kProbation);
  }
}

void Policy::remember_rejected(const Entry& e) noexcept {
  rejected_ += in_bytes() ? e.weight : 1;
  ghosts_.remember(e.hash, static_cast<std::uint32_t>(rejected_ >> clock_shift_));
}

void Policy::count_return(const Entry& e) noexcept {
  const double piece = in_bytes() ? kMargin * static_cast<double>(bytes())
                                  : std::max(kLeastPiece, kMargin * static_cast<double>(entries()));
  const auto reach = static_cast<std::uint32_t>(static_cast<std::uint64_t>(piece) >> clock_shift_);
  gain_ += ghosts_.take(e.hash, static_cast<std::uint32_t>(rejected_ >> clock_shift_), reach);
}

void Policy::move_share() noexcept {
  if (++inserts_ < std::max(kLeastPeriod, static_cast<std::uint64_t>(static_cast<double>(entries()) * kPeriod))) return;
  const double loss = loss_ * (in_bytes() ? kLossFactorInBytes : kLossFactor);
  window_share_ += kStep * (gain_ - loss) / (gain_ + loss + kDoubt);
  window_share_ = std::clamp(window_share_, kLeastWindow, kMostWindow);
  inserts_ = 0;
  gain_ = loss_ = 0;
}

std::uint64_t Policy::random() noexcept {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  return random_;
}

bool Policy::check_invariants() const noexcept {
  return window_.check(slab_, Queue::kWindow) && probation_.check(slab_, Queue::kProbation) &&
         protected_.check(slab_, Queue::kProtected);
}

}  // namespace stillwarm
