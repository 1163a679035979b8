// The circuit breaker: keeps calls away from something that fails, and finds out when it is back.
//
// Thread rule: the owner's lock. No mutex and no atomics inside; every call is a few instructions, allocates nothing
// and cannot throw. Refuses to know: what is called, errors, clocks. Time is an argument; a time-out is a failure
// because whoever met it reports one.
//
//   closed --- too many failures ---> open --- its wait is over ---> half-open --- the probe succeeded ---> closed
//                                      ^                                  |
//                                      +---- the probe failed: twice the wait, at most open_most
//
// Who asked allow() and was told true reports exactly once: succeeded, failed or abandoned. The circuit begins to be
// half-open by time alone; nobody has to be told. One who probes by himself, beside the traffic, never asks: he reports
// probe_succeeded, and his failures lengthen nothing.
//
// Invariants
//  B1  While it is open, nothing goes through; while half-open, one call at a time (but see B6).
//  B2  Calls carry no token, so results are judged by the state they arrive in. While open, and while half-open with no
//      probe under way, they are late: they neither close the circuit nor lengthen its wait, and are not counted. While
//      a probe is under way, the first result that arrives counts as the probe's. A wrong guess costs one early closing
//      or one wait more, never a circuit that hangs. Whom that costs too much asks through a BreakerCall.
//  B3  Closing forgets: failures, window, and the length of the next wait.
//  B4  A clock that goes back delays what it delays by one wait at most, counted from the first allow() after it: the
//      window keeps its counts and goes on from there, a wait begins anew.
//  B5  The share is looked at after each call, also after one that succeeded: the twentieth call may open the circuit
//      whichever way it went.
//  B6  With probe_most, a probe that has been silent for so long holds nobody up any longer: it hangs, or nobody is
//      left to report it. The next call is a probe beside it, and the first result of the two counts.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/base/entry.hpp"

namespace stillwarm {

enum class Circuit : std::uint8_t { kClosed, kOpen, kHalfOpen };

std::string_view text_of(Circuit state) noexcept;  // "closed", "open", "half-open"

struct BreakerOptions {
  std::uint32_t consecutive = 5;     // failures in a row that open it; 0: they never do
  double share = 0.5;                // of the calls in the window that failed, this or more opens it
  std::uint32_t least_calls = 20;    // in the window, before the share counts; 0: it never does
  Nanos window = 10'000'000'000;     // in ten buckets: what is counted is 9 to 10 tenths of it old at most
  Nanos open_for = 2'000'000'000;    // the first wait; each failed probe doubles it
  Nanos open_most = 30'000'000'000;  // the longest wait; one below open_for counts as open_for
  Nanos probe_most = kForever;       // how long a probe may be silent; for callers whose calls have no deadline
};

class CircuitBreaker {
 public:
  explicit CircuitBreaker(const BreakerOptions& options = {}) noexcept;

  // May a call go? In half-open, true makes it the probe.
  bool allow(Nanos now) noexcept;

  void succeeded(Nanos now) noexcept;
  void failed(Nanos now) noexcept;
  void abandoned() noexcept;  // the call came to no end (cancelled): if it was the probe, the next call is

  // Beside the traffic somebody got an answer: closes it, whatever its state. Closed, it changes nothing: that a ping
  // gets through says nothing about calls that fail.
  void probe_succeeded() noexcept;

  void reset() noexcept;  // as new, totals apart: after a fork, whose calls are not in the child

  Circuit state(Nanos now) const noexcept;

  // The wait until a call may go; 0: now, or (half-open) as soon as the probe has ended.
  Nanos retry_in(Nanos now) const noexcept;

  std::uint64_t opened() const noexcept { return opened_; }    // times, from closed; a failed probe does not count anew
  std::uint64_t refused() const noexcept { return refused_; }  // calls, in all
  std::uint32_t failures_in_a_row() const noexcept { return in_a_row_; }
  std::uint64_t calls_in_window(Nanos now) const noexcept { return counted(now).calls; }
  std::uint64_t failures_in_window(Nanos now) const noexcept { return counted(now).failures; }

 private:
  static constexpr std::int64_t kBuckets = 10;

  struct Bucket {
    std::uint64_t calls = 0;
    std::uint64_t failures = 0;
  };

  std::int64_t slot_of(Nanos now) const noexcept;
  Bucket counted(Nanos now) const noexcept;
  void count(Nanos now, bool failure) noexcept;
  void judge(Nanos now) noexcept;
  void open(Nanos now, Nanos wait) noexcept;
  void close() noexcept;

  BreakerOptions options_;
  Circuit state_ = Circuit::kClosed;  // kOpen stays until allow() lets the probe through: see state()
  bool probing_ = false;
  std::uint32_t in_a_row_ = 0;
  Nanos opened_at_ = 0;
  Nanos wait_ = 0;
  Nanos probed_at_ = 0;    // when the last probe began
  std::int64_t slot_ = 0;  // the bucket of this number is the newest; the others lie behind it in the ring
  std::array<Bucket, kBuckets> ring_;
  std::size_t newest_ = 0;
  std::uint64_t opened_ = 0;
  std::uint64_t refused_ = 0;
};

}  // namespace stillwarm
