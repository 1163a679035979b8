// The lists of the timing wheel. What it promises is in the header.
//
// Thread rule: single owner; nothing here locks.
// Refuses to know: deadlines other than the one it is being given.
#include "core/memory/timer_wheel.hpp"

namespace stillwarm {

TimerWheel::TimerWheel(Slab& slab, Nanos start) noexcept : slab_(slab), done_(tick_before(start)) {}

void TimerWheel::schedule(Index i, Nanos deadline) noexcept {
  cancel(i);
  if (deadline != kForever) link(i, bucket_for(tick_after(deadline)));
}

void TimerWheel::cancel(Index i) noexcept {
  if (slab_[i].timer_state != kIdle) unlink(i);
}

void TimerWheel::link(Index i, std::uint32_t bucket) noexcept {
  Entry& e = slab_[i];
  const Index second = heads_[bucket];
  e.timer_next = second;
  e.timer_prev = bucket;
  e.timer_state = kFirst;
  if (second != kNone) {
    slab_[second].timer_prev = i;
    slab_[second].timer_state = kLinked;
  } else if (bucket != kPending) {
    occupied_[bucket / kSlots] |= std::uint64_t{1} << bucket % kSlots;
  }
  heads_[bucket] = i;
  ++scheduled_;
}

void TimerWheel::unlink(Index i) noexcept {
  Entry& e = slab_[i];
  const Index next = e.timer_next;
  if (e.timer_state == kFirst) {
    const std::uint32_t bucket = e.timer_prev;
    heads_[bucket] = next;
    if (next == kNone && bucket != kPending) occupied_[bucket / kSlots] &= ~(std::uint64_t{1} << bucket % kSlots);
  } else {
    slab_[e.timer_prev].timer_next = next;
  }
  if (next != kNone) {
    slab_[next].timer_prev = e.timer_prev;
    slab_[next].timer_state = e.timer_state;
  }
  e.timer_next = kNone;
  e.timer_prev = kNone;
  e.timer_state = kIdle;
  --scheduled_;
}

// Moves done_ to the next bucket that has entries and makes them pending, or to `target` if that comes first.
bool TimerWheel::open_next(std::uint64_t target) noexcept {
  for (std::uint32_t level = 0; level < kLevels; ++level) {
    if (occupied_[level] == 0) continue;
    const auto slot = static_cast<std::uint32_t>(std::countr_zero(occupied_[level]));
    const std::uint32_t shift = level * kDigitBits;
    const std::uint64_t above = done_ >> shift >> kDigitBits;
    const std::uint64_t start = (above << kDigitBits | slot) << shift;
    if (start > target) break;
    const std::uint32_t bucket = level * kSlots + slot;
    done_ = start;
    heads_[kPending] = heads_[bucket];
    slab_[heads_[bucket]].timer_prev = kPending;
    heads_[bucket] = kNone;
    occupied_[level] &= occupied_[level] - 1;
    return true;
  }
  done_ = target;
  return false;
}

bool TimerWheel::check_invariants() const noexcept {
  std::uint64_t seen = 0;
  for (std::uint32_t bucket = 0; bucket <= kPending; ++bucket) {
    const std::uint32_t level = bucket / kSlots;
    const std::uint32_t slot = bucket % kSlots;
    if (bucket != kPending) {
      if ((occupied_[level] >> slot & 1) != (heads_[bucket] != kNone)) return false;                        // W3
      if (heads_[bucket] != kNone && slot <= (done_ >> (level * kDigitBits) & (kSlots - 1))) return false;  // W1
    }
    Index before = kNone;
    for (Index i = heads_[bucket]; i != kNone; i = slab_[i].timer_next) {
      const Entry& e = slab_[i];
      if (e.timer_state != (before == kNone ? kFirst : kLinked)) return false;  // W4
      if (e.timer_prev != (before == kNone ? bucket : before)) return false;
      if (++seen > scheduled_) return false;
      before = i;
    }
  }
  return seen == scheduled_;
}

}  // namespace stillwarm
