// A Redis server's clock between two TIME commands: told once, counted on from there for a second.
//
// Thread rule: as the connection that it belongs to.
// Refuses to know: connections, what the time is needed for.
//
// It is never behind the server's clock, so that nothing is fresh for longer than it may be, and at most `kExact`
// ahead: what took longer to be told is good for one answer.
#pragma once

#include <ctime>

#include "core/base/entry.hpp"

namespace stillwarm {

class RedisClock {
 public:
  static constexpr Nanos kExact = 5'000'000;
  static constexpr Nanos kGood = 1'000'000'000;  // the server's clock may be set, and drifts

  // Of a clock that goes on while the machine sleeps.
  static Nanos own_now() noexcept {
    timespec t{};
    ::clock_gettime(CLOCK_BOOTTIME, &t);
    return static_cast<Nanos>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
  }

  // Whether `at(own)` is right.
  bool knows(Nanos own) const noexcept { return own < good_until_; }

  // The server said so to what was asked at `asked` and answered before `own`, both own_now().
  void told(long long microseconds, Nanos asked, Nanos own) noexcept {
    ahead_ = microseconds * 1'000 - asked;
    good_until_ = own - asked <= kExact ? asked + kGood : 0;
  }

  // ms since 1970; after `told`.
  long long at(Nanos own) const noexcept { return (own + ahead_) / 1'000'000; }

 private:
  Nanos ahead_ = 0;  // ns since 1970 at zero of our own clock
  Nanos good_until_ = 0;
};

}  // namespace stillwarm
