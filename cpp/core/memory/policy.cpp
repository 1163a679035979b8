// The decisions of the eviction policy. What it promises is in the header.
//
// Thread rule: single owner; nothing here locks.
// Refuses to know: keys, values, deadlines.
#include "core/memory/policy.hpp"

#include <algorithm>

namespace stillwarm {

Policy::Policy(Slab& slab, Limits limits, std::uint64_t seed) noexcept
    : slab_(slab), limits_(limits), sketch_(seed), random_(seed | 1) {}

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
  if (e.touched == 0) return;
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
  // While there is room, what the window cannot hold needs no contest. Two for one, so that the window shrinks.
  for (int n = 0; n < 2 && exceeds(window_.size(), window_.bytes(), window_share_) && window_.size() > 1; ++n) {
    if (exceeds(entries(), bytes(), 1.0)) break;
    move(settle_window(), Queue::kProbation);
  }
}

void Policy::on_reweigh(Index i, std::uint32_t old_weight) noexcept {
  Entry& e = slab_[i];
  list(e.queue).reweigh(old_weight, e.weight);
  on_hit(e);
  examined_ = 0;
  note_oversize(i);
}

// What can never fit must not push out everything else first.
void Policy::note_oversize(Index i) noexcept {
  if (limits_.max_bytes != 0 && slab_[i].weight > limits_.max_bytes) oversize_ = i;
}

void Policy::on_remove(Index i) noexcept {
  Entry& e = slab_[i];
  list(e.queue).remove(slab_, i);
  e.queue = Queue{};
  e.touched = 0;
  examined_ = 0;
  if (oversize_ == i) oversize_ = kNone;
}

void Policy::clear() noexcept {
  window_.clear();
  probation_.clear();
  protected_.clear();
  oversize_ = kNone;
}

// The window's oldest entry that was not wanted again since it was last looked at.
Index Policy::settle_window() noexcept {
  while (slab_[window_.oldest()].touched != 0 && ++examined_ < kMaxExamined) {
    credit(slab_[window_.oldest()]);
    window_.move_to_newest(slab_, window_.oldest());
  }
  return window_.oldest();
}

// The same in probation; who was wanted there is protected from now on.
Index Policy::settle_probation() noexcept {
  while (!probation_.empty() && slab_[probation_.oldest()].touched != 0 && ++examined_ < kMaxExamined) {
    credit(slab_[probation_.oldest()]);
    move(probation_.oldest(), Queue::kProtected);
    shrink_protected();
  }
  return probation_.oldest();
}

void Policy::shrink_protected() noexcept {
  const double share = kProtectedShare * (1.0 - window_share_);
  while (protected_.size() > 1 && exceeds(protected_.size(), protected_.bytes(), share)) {
    const Index i = protected_.oldest();
    if (slab_[i].touched == 0 || ++examined_ >= kMaxExamined) {
      move(i, Queue::kProbation);
    } else {
      credit(slab_[i]);
      protected_.move_to_newest(slab_, i);
    }
  }
}

bool Policy::admits(const Entry& candidate, const Entry& resident) noexcept {
  std::uint64_t gain = sketch_.estimate(candidate.hash);
  std::uint64_t loss = sketch_.estimate(resident.hash) + resident.touched;
  if (limits_.max_bytes != 0) {
    gain *= resident.weight;
    loss *= candidate.weight;
  }
  return gain > loss || (random() & 127) == 0;
}

Index Policy::victim() noexcept {
  if (!exceeds(entries(), bytes(), 1.0)) return kNone;
  if (oversize_ != kNone) return oversize_;
  const bool window_full = exceeds(window_.size(), window_.bytes(), window_share_);
  const Index resident = settle_probation();
  if (resident == kNone && window_.empty()) return protected_.oldest();
  if (!window_.empty() && (window_full || (resident == kNone && protected_.empty()))) {
    const Index candidate = settle_window();
    if (resident == kNone) return candidate;
    if (!admits(slab_[candidate], slab_[resident])) return candidate;
    move(candidate, Queue::kProbation);
  }
  return resident != kNone ? resident : protected_.oldest();
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
