// The listener: one thread with a connection of its own that hears of other processes' invalidations, tells them of
// this one's, keeps leases alive, and says when the link is lost.
//
// Thread rule: every member from any thread; one short lock. The thread never holds it while it waits for the server.
// Refuses to know: which database it is (ear.hpp), memory, Python, what an invalidation means.
//
// A notification carries nothing: it says "poll now". What happened is asked for by number (I7, I8), so a notification
// that is lost, doubled or early costs nothing but time, at most the pause between two polls.
//
// While the cache is used the thread polls every max_lag / 2. It stops kIdle after the last sign of use, and trust runs
// out; whoever finds memory untrusted polls itself and wakes this thread. So an idle process asks the database nothing.
//
// Behind a pooler in transaction mode there is no LISTEN: then it polls only, over the ordinary connections.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/remote/ear.hpp"
#include "core/remote/watchdog.hpp"

namespace stillwarm {

class Listener {
 public:
  static constexpr Nanos kIdle = 10'000'000'000;

  struct Figures {
    bool linked = false;
    std::uint64_t polls = 0;
    std::uint64_t told = 0;   // notifications sent
    std::uint64_t heard = 0;  // notifications received
    std::uint64_t reconnects = 0;
    TierError last_error;
  };

  Listener(std::shared_ptr<Ears> ears, Nanos max_lag, Nanos timeout, Nanos lease_age);
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  ~Listener() { close(); }

  // The cache is used: starts the thread, and the polls again.
  void used();
  // Something was invalidated here: tells the others soon.
  void tell();
  void hold_lease(HeldLease lease);
  void drop_lease(const HeldLease& lease);
  Figures figures() const;
  void close();
  // In the child of a fork: the thread is the parent's; its connection is closed without a word.
  void after_fork_in_child();

 private:
  struct State;
  static void listen(const std::shared_ptr<State>& state);

  std::shared_ptr<State> state_;
};

}  // namespace stillwarm
