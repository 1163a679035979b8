#include "core/remote/watchdog.hpp"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <ctime>
#include <new>

#include "core/remote/remote_tier.hpp"

namespace stillwarm {

Nanos steady_now() noexcept {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<Nanos>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

bool start_thread(void (*body)(void*), void* argument) noexcept {
  struct Start {
    void (*body)(void*);
    void* argument;
  };
  auto* start = new (std::nothrow) Start{body, argument};
  if (start == nullptr) return false;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, 512 * 1024);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const int failed = pthread_create(
      &thread, &attributes,
      [](void* given) -> void* {
        const Start begun = *static_cast<Start*>(given);
        delete static_cast<Start*>(given);
        begun.body(begun.argument);
        return nullptr;
      },
      start);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  if (failed != 0) delete start;
  return failed == 0;
}

Watchdog::Watchdog() : state_(std::make_shared<State>()) {}

Watchdog::~Watchdog() {
  const std::lock_guard lock(state_->mutex);
  state_->closed = true;
  state_->wake.notify_all();
}

bool Watchdog::begin(Link& link, Nanos deadline) noexcept {
  const std::lock_guard lock(state_->mutex);
  if (!state_->running) {
    auto* share = new (std::nothrow) std::shared_ptr<State>(state_);
    state_->running = share != nullptr && start_thread(
                                              [](void* given) {
                                                const std::unique_ptr<std::shared_ptr<State>> mine(
                                                    static_cast<std::shared_ptr<State>*>(given));
                                                watch(*mine);
                                              },
                                              share);
    if (!state_->running) {  // no more threads: tried again with the next operation
      delete share;
      return false;
    }
  }
  try {
    state_->watched.push_back({&link, deadline, false});
  } catch (const std::bad_alloc&) {
    return false;
  }
  if (state_->asleep) state_->wake.notify_one();
  return true;
}

bool Watchdog::end(Link& link) noexcept {
  const std::lock_guard lock(state_->mutex);
  auto& watched = state_->watched;
  const auto it = std::find_if(watched.begin(), watched.end(), [&](const Watched& w) { return w.link == &link; });
  if (it == watched.end()) return false;
  const bool cut = it->cut;
  *it = watched.back();
  watched.pop_back();
  return cut;
}

void Watchdog::cut_all() noexcept {
  const std::lock_guard lock(state_->mutex);
  for (Watched& w : state_->watched) {
    w.cut = true;
    w.link->cut();
  }
}

void Watchdog::watch(const std::shared_ptr<State>& state) {
  std::unique_lock lock(state->mutex);
  int idle = 0;
  while (!state->closed) {
    if (idle >= 1'000'000'000 / kTick) {
      state->asleep = true;
      state->wake.wait(lock);
      state->asleep = false;
      idle = 0;
      continue;
    }
    state->wake.wait_for(lock, std::chrono::nanoseconds(kTick));
    idle = state->watched.empty() ? idle + 1 : 0;
    const Nanos now = steady_now();
    for (Watched& w : state->watched) {
      if (now < w.deadline) continue;
      w.cut = true;
      w.link->cut();  // again at each tick, until the operation has noticed
    }
  }
}

}  // namespace stillwarm
