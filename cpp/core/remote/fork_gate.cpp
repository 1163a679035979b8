#include "core/remote/fork_gate.hpp"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <new>
#include <thread>

#include "core/remote/watchdog.hpp"

namespace stillwarm {

namespace {

struct Gate {
  std::mutex mutex;  // held by whoever enters, for an instant, and across a fork
  std::atomic<int> within = 0;
  std::atomic<int> process = 0;  // counts the forks that led here
  bool prepared = false;
};

// Never destroyed: a fork may be the last thing that a process does.
Gate& gate() {
  static auto* const the_gate = new Gate;
  return *the_gate;
}

void before_fork() {
  Gate& g = gate();
  g.mutex.lock();
  const Nanos until = steady_now() + WithinLibrary::kPatience;
  // No condition variable: the child could not use one that another fork of the parent waited on.
  while (g.within.load() > 0 && steady_now() < until) std::this_thread::sleep_for(std::chrono::microseconds(200));
}

void in_parent() { gate().mutex.unlock(); }

void in_child() {
  gate().within = 0;  // those threads are the parent's
  ++gate().process;
  gate().mutex.unlock();
}

}  // namespace

void WithinLibrary::prepare() {
  Gate& g = gate();
  if (g.prepared) return;
  if (pthread_atfork(before_fork, in_parent, in_child) != 0) throw std::bad_alloc();
  g.prepared = true;
}

WithinLibrary::WithinLibrary() : process_(gate().process.load()) {
  const std::lock_guard lock(gate().mutex);
  ++gate().within;
}

WithinLibrary::~WithinLibrary() {
  if (process_ == gate().process.load()) --gate().within;
}

}  // namespace stillwarm
