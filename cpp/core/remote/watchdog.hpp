// The watchdog: cuts a connection whose operation takes longer than it may.
//
// Thread rule: every member from any thread. One thread of its own, started by the first operation and asleep when
// there was none for a second. Its lock is never held while a database is waited for.
// Refuses to know: databases. It calls Link::cut.
//
// A client library that blocks cannot be given a deadline from outside, but its socket can be shut down: what waits on
// it then fails at once (libpq: the connection is bad; hiredis: end of file). Deadlines are looked at every kTick, so
// an operation overruns by at most that.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "core/base/entry.hpp"

namespace stillwarm {

class Link;

// Nanoseconds of CLOCK_MONOTONIC: the clock of everything that waits for a server. Tests do not move it.
Nanos steady_now() noexcept;

class Watchdog {
 public:
  static constexpr Nanos kTick = 10'000'000;

  Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;
  ~Watchdog();

  // An operation on `link` begins; it is cut at `deadline`. False: there is no memory or no thread, and nobody would.
  [[nodiscard]] bool begin(Link& link, Nanos deadline) noexcept;
  // It ended. True: it was cut, so the connection is dead. The link may be destroyed afterwards.
  bool end(Link& link) noexcept;
  // Cuts everything that runs.
  void cut_all() noexcept;

 private:
  struct Watched {
    Link* link;
    Nanos deadline;
    bool cut;
  };
  struct State {
    std::mutex mutex;
    std::condition_variable wake;
    std::vector<Watched> watched;
    bool running = false;
    bool asleep = false;
    bool closed = false;
  };
  static void watch(const std::shared_ptr<State>& state);

  std::shared_ptr<State> state_;  // the thread has its share: it is not waited for
};

// Starts a thread that no signal interrupts, so that Ctrl-C finds the interpreter's own. False: there are no more.
bool start_thread(void (*body)(void*), void* argument) noexcept;

}  // namespace stillwarm
