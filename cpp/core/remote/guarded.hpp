// An operation on a bare connection, under a watchdog: for those that are in no queue.
//
// Thread rule: the caller's thread; the watchdog's cuts.
// Refuses to know: which database it is.
#pragma once

#include <utility>

#include "core/remote/remote_tier.hpp"
#include "core/remote/watchdog.hpp"

namespace stillwarm {

// What a watchdog cuts: a PostgresLink, a RedisLink.
template <class L>
class Cuttable : public Link {
 public:
  explicit Cuttable(L& link) : link_(link) {}
  bool serve(std::span<Request* const> /*batch*/) override { return false; }
  bool ping() override { return false; }
  void cut() noexcept override { link_.cut(); }
  void forget() noexcept override { link_.forget(); }

 private:
  L& link_;
};

// Runs `f` on the connection, at most so long. Throws what `f` throws, and TierFailure if it took longer.
template <class L, class F>
void guarded(Watchdog& watchdog, L& link, Nanos timeout, F&& f) {
  Cuttable<L> cuttable(link);
  if (!watchdog.begin(cuttable, steady_now() + timeout)) {
    throw TierFailure({TierFault::kUnavailable, "", "no more threads"});
  }
  try {
    std::forward<F>(f)();
  } catch (...) {
    watchdog.end(cuttable);
    throw;
  }
  if (watchdog.end(cuttable)) throw TierFailure({TierFault::kTimeout, "", "no answer within the timeout"});
}

}  // namespace stillwarm
