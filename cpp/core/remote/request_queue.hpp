// Requests of all callers on a few connections: whoever holds a connection takes along what others wait for.
//
// Thread rule: every member from any thread; none may hold the GIL while it calls `run`. One lock guards everything, is
// never held while a server is waited for, and no foreign code runs under it. It is the last lock but the watchdog's.
// Refuses to know: SQL, keys, Python; who a connection belongs to.
//
// A caller that finds a free connection does the round trip itself: handing it to another thread and back costs as much
// as the round trip (48 us of 60). One that finds none waits; when a connection becomes free it is taken by the waiting
// caller, with everything in the queue that the same statement can serve (at most `most_merged`, no lingering). Where
// several wait a worker thread takes it, and goes on as long as there is more of that kind: it needs no waking between
// two batches, and callers leave it what they bring meanwhile (for `patience` at most), so that batches are large.
// A caller never serves what may take longer than its own request; it leaves a connection for that.
// Worker threads, as many as connections, also open connections, serve what nobody waits for (asynchronous requests,
// writes behind), and look every second whether a tier that failed is back.
//
// Invariants
//  Q1  A request is done exactly once, and its sink hears of it exactly once.
//  Q2  `run` returns by the request's deadline (+ 50 ms), whatever the server does.
//  Q3  A connection that timed out, broke or was cut is never used again.
//  Q4  A free connection and a request that it may serve are never left together: somebody was woken for them, or a
//      worker is on duty for that kind and looks at the line when its batch is done; after `patience` others help it.
//  Q5  A request that was served once is not repeated, unless it is idempotent and the connection broke at once.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "core/base/breaker.hpp"
#include "core/remote/remote_tier.hpp"
#include "core/remote/watchdog.hpp"

namespace stillwarm {

class RequestQueue {
 public:
  // Longer operations are not performed on a caller's thread, so that Ctrl-C is answered within 0.3 s.
  static constexpr Nanos kLongestOnCaller = 250'000'000;

  static constexpr unsigned kMostLinks = 64;

  struct Options {
    unsigned links = 2;  // 1 to kMostLinks
    std::size_t most_waiting = 10'000;
    std::size_t most_merged = 128;
    Nanos timeout = 250'000'000;
    Nanos longest_on_caller = kLongestOnCaller;
    Nanos probe_every = 1'000'000'000;  // while the circuit is open
    // So long a request is left to a worker on duty, whose next batch it joins, before a free connection is taken for
    // it.
    Nanos patience = 2'000'000;
  };

  struct Health {
    Circuit circuit = Circuit::kClosed;
    unsigned open = 0;  // connections
    std::size_t waiting = 0;
    std::uint64_t served = 0;        // requests
    std::uint64_t round_trips = 0;   // statements: below `served` by what was merged
    std::uint64_t failures = 0;      // requests that ended with an error
    std::uint64_t recent_calls = 0;  // of the breaker's window
    std::uint64_t recent_failures = 0;
    TierError last_error;  // of a connection or an operation
  };

  RequestQueue(std::shared_ptr<Connector> connector, Options options);
  RequestQueue(const RequestQueue&) = delete;
  RequestQueue& operator=(const RequestQueue&) = delete;
  ~RequestQueue();

  // Performs the request, or waits until somebody has. Nothing: it is not over at `until`, and `run` is to be called
  // again with the same request; else how it ended. After an error that came in time the request may still be in use:
  // its results are then nobody's to read.
  std::optional<TierError> run(const std::shared_ptr<Request>& request, Nanos until);

  // Lets a worker thread perform it; its sink, if it has one, is told.
  void post(const std::shared_ptr<Request>& request);

  // Nobody waits for it any more. With `heir`, who hears of its end in place of its sink, it goes on wherever it is, as
  // a write has to: it may be done already. Without, it is not begun.
  void abandon(const std::shared_ptr<Request>& request, const std::shared_ptr<Sink>& heir = nullptr);

  Health health() const;

  // Takes nothing more, fails what waits, cuts what runs, and waits at most so long for its threads.
  void close(Nanos wait);

  // In the child of a fork: everything is the parent's, whose connections are closed here without a word.
  void after_fork_in_child();

 private:
  struct State;
  std::shared_ptr<State> state_;
  std::atomic<bool> closed_{false};
};

}  // namespace stillwarm
