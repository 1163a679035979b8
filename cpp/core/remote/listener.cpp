#include "core/remote/listener.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "core/remote/guarded.hpp"

namespace stillwarm {

namespace {

constexpr Nanos kFirstPause = 100 * kMillisecond;
constexpr Nanos kLongestPause = 1'000 * kMillisecond;
constexpr Nanos kBetweenNotices = 5 * kMillisecond;  // what is invalidated meanwhile is told by one
constexpr Nanos kBetweenLooks = kMillisecond;        // after one that brought nothing new: this process's own writes

// The listener's ear, seen by the child of a fork for exactly as long as it is there.
class Shown {
 public:
  Shown(std::atomic<Ear*>& place, Ear* ear) : place_(place) { place_.store(ear); }
  Shown(const Shown&) = delete;
  Shown& operator=(const Shown&) = delete;
  ~Shown() { place_.store(nullptr); }

 private:
  std::atomic<Ear*>& place_;
};

}  // namespace

struct Listener::State {
  State(std::shared_ptr<Ears> e, Nanos lag, Nanos limit, Nanos age)
      : ears(std::move(e)),
        max_lag(lag),
        timeout(limit),
        lease_age(age),
        wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (wake >= 0) ::close(wake);
  }

  const std::shared_ptr<Ears> ears;
  const Nanos max_lag, timeout, lease_age;
  const int wake;
  Watchdog watchdog;

  mutable std::mutex mutex;
  bool running = false;
  bool closed = false;
  bool telling = false;
  Nanos used_until = 0;
  std::vector<HeldLease> leases;
  Figures figures;
  std::atomic<Ear*> ear{nullptr};

  void signal() const {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(wake, &one, sizeof one);
  }

  // Until something happens, at most until then. True: the descriptor of the connection is readable.
  bool wait(int fd, Nanos until) const {
    pollfd fds[2] = {{wake, POLLIN, 0}, {fd, POLLIN, 0}};
    const Nanos left = std::max<Nanos>(0, until - steady_now());
    ::poll(fds, fd >= 0 ? 2 : 1, static_cast<int>(std::min<Nanos>(left / kMillisecond + 1, 60'000)));
    std::uint64_t count = 0;
    if (fds[0].revents != 0) {
      [[maybe_unused]] const auto read = ::read(wake, &count, sizeof count);
    }
    return fd >= 0 && fds[1].revents != 0;
  }

  template <class F>
  void guarded(Ear& e, F&& f) {
    stillwarm::guarded(watchdog, e, timeout, std::forward<F>(f));
  }

  // What was signalled meanwhile does not shorten a pause: only the end does.
  void rest(Nanos pause) const {
    const Nanos until = steady_now() + pause;
    while (steady_now() < until) {
      {
        const std::lock_guard lock(mutex);
        if (closed) return;
      }
      wait(-1, until);
    }
  }

  // Whether there were notifications. Throws TierFailure.
  bool note(Ear& e) {
    int heard = 0;
    guarded(e, [&] { heard = e.heard(); });
    const std::lock_guard lock(mutex);
    figures.heard += static_cast<std::uint64_t>(heard);
    return heard > 0;
  }

  // Serves one connection until it is lost or the listener is closed. Throws TierFailure.
  void attend(Ear& e) {
    const bool listens = e.listens();
    if (listens) note(e);
    Nanos poll_at = 0, renew_at = 0, told_at = 0;
    for (;;) {
      bool tells = false, uses = false;
      std::vector<HeldLease> held;
      {
        const std::lock_guard lock(mutex);
        if (closed) return;
        figures.linked = true;
        tells = telling;
        held = leases;
        uses = steady_now() < used_until;
      }
      Nanos now = steady_now();
      if (tells && now >= told_at + kBetweenNotices) {
        {
          const std::lock_guard lock(mutex);
          telling = false;
          ++figures.told;
        }
        told_at = now;
        tells = false;
        guarded(e, [&] { e.tell(); });
      }
      if (!held.empty() && now >= renew_at) {
        renew_at = now + lease_age / 3;
        guarded(e, [&] { e.renew(held, lease_age); });
      }
      if (uses && now >= poll_at) {
        poll_at = now + max_lag / 2;
        guarded(e, [&] { e.poll(); });
        const std::lock_guard lock(mutex);
        ++figures.polls;
      }
      // A notification that came along with an answer makes no descriptor readable.
      if (listens && note(e)) {
        poll_at = 0;
        if (uses) continue;
      }
      now = steady_now();
      Nanos until = now + 60'000 * kMillisecond;
      if (uses) until = std::min(until, poll_at);
      if (!held.empty()) until = std::min(until, renew_at);
      if (tells) until = std::min(until, told_at + kBetweenNotices);
      if (wait(e.descriptor(), until)) {
        if (!listens) {  // nothing is expected: the connection was closed
          guarded(e, [&] { e.check(); });
        } else if (note(e)) {
          poll_at = 0;
        } else {
          wait(-1, steady_now() + kBetweenLooks);
        }
      }
    }
  }
};

Listener::Listener(std::shared_ptr<Ears> ears, Nanos max_lag, Nanos timeout, Nanos lease_age)
    : state_(std::make_shared<State>(std::move(ears), max_lag, timeout, lease_age)) {}

void Listener::listen(const std::shared_ptr<State>& state) {
  State& s = *state;
  Nanos pause = kFirstPause;
  Nanos began = 0;  // when the connection was there; a short life is no reason to begin again with the shortest pause
  for (;;) {
    {
      const std::lock_guard lock(s.mutex);
      if (s.closed) break;
    }
    try {
      const std::unique_ptr<Ear> ear = s.ears->open_ear();
      const Shown shown(s.ear, ear.get());
      began = steady_now();
      try {
        s.attend(*ear);
      } catch (const TierFailure& failure) {
        if (!s.ears->mended(failure.error, began)) throw;
        s.attend(*ear);
      }
    } catch (const TierFailure& failure) {
      s.ears->lost();
      {
        const std::lock_guard lock(s.mutex);
        s.figures.linked = false;
        s.figures.last_error = failure.error;
        ++s.figures.reconnects;
      }
      if (began != 0 && steady_now() - began > kLongestPause) pause = kFirstPause;
      began = 0;
      s.rest(pause);
      pause = std::min(pause * 2, kLongestPause);
    } catch (const std::exception&) {  // no memory
      s.ears->lost();
      {
        const std::lock_guard lock(s.mutex);
        s.figures.linked = false;
        ++s.figures.reconnects;
      }
      s.rest(kLongestPause);
    }
  }
  const std::lock_guard lock(s.mutex);
  s.running = false;
}

void Listener::used() {
  const std::lock_guard lock(state_->mutex);
  const Nanos now = steady_now();
  const bool rested = now >= state_->used_until;
  state_->used_until = now + kIdle;
  if (state_->closed) return;
  if (!state_->running) {
    auto* share = new std::shared_ptr<State>(state_);
    state_->running = start_thread(
        [](void* given) {
          const std::unique_ptr<std::shared_ptr<State>> mine(static_cast<std::shared_ptr<State>*>(given));
          listen(*mine);
        },
        share);
    if (!state_->running) delete share;
  } else if (rested) {
    state_->signal();
  }
}

void Listener::tell() {
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->telling) return;
    state_->telling = true;
    state_->signal();
  }
  used();
}

void Listener::hold_lease(HeldLease lease) {
  {
    const std::lock_guard lock(state_->mutex);
    state_->leases.push_back(std::move(lease));
    state_->signal();
  }
  used();
}

void Listener::drop_lease(const HeldLease& lease) {
  const std::lock_guard lock(state_->mutex);
  std::erase(state_->leases, lease);
}

Listener::Figures Listener::figures() const {
  const std::lock_guard lock(state_->mutex);
  return state_->figures;
}

void Listener::close() {
  const std::lock_guard lock(state_->mutex);
  state_->closed = true;
  state_->signal();
  state_->watchdog.cut_all();
}

void Listener::after_fork_in_child() {
  // Leaked: it is never touched again, since its lock may be held by nobody.
  static_cast<void>(new std::shared_ptr<State>(state_));
  const State& old = *state_;
  if (Ear* ear = old.ear.load()) ear->forget();
  state_ = std::make_shared<State>(old.ears, old.max_lag, old.timeout, old.lease_age);
}

}  // namespace stillwarm
