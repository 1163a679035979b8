// One circuit breaker for each master of a cluster: the one that does not answer is left alone, and the others go on.
//
// Thread rule: every member from any thread; one short lock, a leaf, held across a fork by whoever forks.
// Refuses to know: connections, buckets, what is asked.
//
// It is the breaker of the whole tier (E7), once for each place. Who asked `allow` and was told true reports exactly
// once. The ear asks every master at each of its polls whatever its circuit says: it never asks `allow`, and reports
// with `probed`, so that a master that is back has its keys again within a poll, without a caller that waits for it.
#pragma once

#include <map>
#include <mutex>
#include <span>

#include "core/base/breaker.hpp"
#include "core/remote/redis_link.hpp"

namespace stillwarm {

class RedisMasters {
 public:
  static constexpr Nanos kMoment = 100'000'000;  // so long after a failure nobody waits for it twice

  bool allow(const RedisPlace& place, Nanos now);
  enum class Outcome : std::uint8_t { kUnasked, kAnswered, kFailed };
  void report(const RedisPlace& place, Outcome outcome, Nanos now);
  // Beside the traffic.
  void probed(const RedisPlace& place, bool answers, Nanos now);

  // Its circuit is not closed.
  bool is_away(const RedisPlace& place, Nanos now) const;
  // The same, or it failed a moment ago and has not answered since.
  bool failed_lately(const RedisPlace& place, Nanos now) const;
  // The last that one of these said was an answer.
  bool some_answer(std::span<const RedisPlace> places) const;

  // In the child of a fork: whose calls are not here.
  void reset();
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  struct Master {
    CircuitBreaker breaker;
    bool answered = false;  // the last time
    Nanos failed_at = 0;
  };
  Master& master(const RedisPlace& place);
  const Master* known(const RedisPlace& place) const;

  mutable std::mutex mutex_;
  std::map<RedisPlace, Master> masters_;
};

}  // namespace stillwarm
