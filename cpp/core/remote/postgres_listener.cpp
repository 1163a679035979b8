#include "core/remote/postgres_listener.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace stillwarm {

namespace {

constexpr Nanos kMillisecond = 1'000'000;
constexpr Nanos kFirstPause = 100 * kMillisecond;
constexpr Nanos kLongestPause = 1'000 * kMillisecond;
constexpr Nanos kBetweenNotices = 5 * kMillisecond;  // what is invalidated meanwhile is told by one

// The listener's connection, seen by the child of a fork for exactly as long as it is there.
class Shown {
 public:
  Shown(std::atomic<PostgresLink*>& place, PostgresLink* link) : place_(place) { place_.store(link); }
  Shown(const Shown&) = delete;
  Shown& operator=(const Shown&) = delete;
  ~Shown() { place_.store(nullptr); }

 private:
  std::atomic<PostgresLink*>& place_;
};

}  // namespace

struct PostgresListener::State {
  State(std::shared_ptr<PostgresTier> t, Nanos lag, Nanos limit, Nanos age)
      : tier(std::move(t)),
        max_lag(lag),
        timeout(limit),
        lease_age(age),
        wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (wake >= 0) ::close(wake);
  }

  const std::shared_ptr<PostgresTier> tier;
  const Nanos max_lag, timeout, lease_age;
  const int wake;
  Watchdog watchdog;

  mutable std::mutex mutex;
  bool running = false;
  bool closed = false;
  bool telling = false;
  Nanos used_until = 0;
  std::vector<std::string> leases;
  Figures figures;
  std::atomic<PostgresLink*> link{nullptr};

  std::string channel() const { return "stillwarm_" + tier->options().schema; }

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
  void guarded(PostgresLink& l, F&& f) {
    stillwarm::guarded(watchdog, l, timeout, std::forward<F>(f));
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

  // Whether there were notifications. Throws PostgresFailure.
  bool note(PostgresLink& l) {
    int heard = 0;
    guarded(l, [&] { heard = l.notifications(channel()); });
    const std::lock_guard lock(mutex);
    figures.heard += static_cast<std::uint64_t>(heard);
    return heard > 0;
  }

  // Serves one connection until it is lost or the listener is closed. Throws PostgresFailure.
  void attend(PostgresLink& l) {
    const bool listens = !tier->options().pooler;
    if (listens) guarded(l, [&] { l.notifications(channel()); });
    Nanos poll_at = 0, renew_at = 0, told_at = 0;
    for (;;) {
      bool tells = false, uses = false;
      std::vector<std::string> held;
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
        if (listens) guarded(l, [&] { l.run("NOTIFY " + quoted(channel())); });
      }
      if (!held.empty() && now >= renew_at) {
        renew_at = now + lease_age / 3;
        guarded(l, [&] {
          l.run(tier->sql()->renew_leases, {{tier->options().namespace_name},
                                            {array_of(std::span<const std::string>(held))},
                                            {std::to_string(lease_age / kMillisecond)}});
        });
      }
      if (uses && now >= poll_at) {
        poll_at = now + max_lag / 2;
        guarded(l, [&] { tier->poll(l, {}); });
        const std::lock_guard lock(mutex);
        ++figures.polls;
      }
      // A notification that came along with an answer makes no descriptor readable.
      if (listens && note(l)) {
        poll_at = 0;
        if (uses) continue;
      }
      now = steady_now();
      Nanos until = now + 60'000 * kMillisecond;
      if (uses) until = std::min(until, poll_at);
      if (!held.empty()) until = std::min(until, renew_at);
      if (tells) until = std::min(until, told_at + kBetweenNotices);
      if (wait(l.descriptor(), until)) {
        if (!listens) {  // nothing is expected: the connection was closed
          guarded(l, [&] { l.run(std::string("SELECT 1")); });
        } else if (note(l)) {
          poll_at = 0;
        }
      }
    }
  }
};

PostgresListener::PostgresListener(std::shared_ptr<PostgresTier> tier, Nanos max_lag, Nanos timeout, Nanos lease_age)
    : state_(std::make_shared<State>(std::move(tier), max_lag, timeout, lease_age)) {}

void PostgresListener::listen(const std::shared_ptr<State>& state) {
  State& s = *state;
  Nanos pause = kFirstPause;
  Nanos began = 0;  // when the connection was there; a short life is no reason to begin again with the shortest pause
  for (;;) {
    {
      const std::lock_guard lock(s.mutex);
      if (s.closed) break;
    }
    try {
      const std::unique_ptr<PostgresLink> link = s.tier->open();
      const Shown shown(s.link, link.get());
      began = steady_now();
      try {
        s.attend(*link);
      } catch (const PostgresFailure& failure) {
        if (failure.error.state == "42P01" || failure.error.state == "3F000") {
          if (!s.tier->set_up(began)) throw;
          s.attend(*link);
        } else {
          throw;
        }
      }
    } catch (const PostgresFailure& failure) {
      s.tier->inbox()->lost();
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
      s.tier->inbox()->lost();
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

void PostgresListener::used() {
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

void PostgresListener::tell() {
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->telling) return;
    state_->telling = true;
    state_->signal();
  }
  used();
}

void PostgresListener::hold_lease(const std::string& owner) {
  {
    const std::lock_guard lock(state_->mutex);
    state_->leases.push_back(owner);
    state_->signal();
  }
  used();
}

void PostgresListener::drop_lease(const std::string& owner) {
  const std::lock_guard lock(state_->mutex);
  std::erase(state_->leases, owner);
}

PostgresListener::Figures PostgresListener::figures() const {
  const std::lock_guard lock(state_->mutex);
  return state_->figures;
}

void PostgresListener::close() {
  const std::lock_guard lock(state_->mutex);
  state_->closed = true;
  state_->signal();
  state_->watchdog.cut_all();
}

void PostgresListener::after_fork_in_child() {
  // Leaked: it is never touched again, since its lock may be held by nobody.
  static_cast<void>(new std::shared_ptr<State>(state_));
  const State& old = *state_;
  if (PostgresLink* link = old.link.load()) link->forget();
  state_ = std::make_shared<State>(old.tier, old.max_lag, old.timeout, old.lease_age);
}

}  // namespace stillwarm
