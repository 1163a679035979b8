// The round that looks at every entry after a mark: whatever was invalidated leaves a few at a time, and until then it
// is only not served.
//
// Thread rule: guarded by the cache's owner (the GIL in the extension).
// Refuses to know: entries and marks. It says which index comes next, and when a round is over.
//
// A new mark makes the round longer and does not move the hand back: under a rain of marks, too, it gets round. What is
// stored behind the hand was confirmed when it was stored.
#pragma once

#include "core/base/entry.hpp"

namespace stillwarm {

class Sweep {
 public:
  // Every index below `end` is to be looked at, because of marks before `epoch`.
  void start(Index end, std::uint64_t epoch) noexcept {
    left_ = end_ = end;
    epoch_ = epoch;
  }

  // Calls look(index) for a few; true when the round has just ended.
  template <class Look>
  bool step(Look&& look) {
    if (left_ == 0) return false;
    for (Index n = 0; n < kStep && left_ > 0; ++n, --left_) {
      if (++at_ >= end_) at_ = 1;
      look(at_);
    }
    return left_ == 0;
  }

  std::uint64_t epoch() const noexcept { return epoch_; }

 private:
  static constexpr Index kStep = 32;

  Index at_ = 0;
  Index end_ = 0;
  Index left_ = 0;
  std::uint64_t epoch_ = 0;
};

}  // namespace stillwarm
