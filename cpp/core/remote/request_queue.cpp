#include "core/remote/request_queue.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <deque>
#include <set>
#include <string_view>
#include <utility>

namespace stillwarm {

namespace {

constexpr Nanos kMillisecond = 1'000'000;
constexpr Nanos kSecond = 1'000'000'000;
constexpr Nanos kFirstPause = 50'000'000;  // before the second attempt to connect; doubles to a second
constexpr std::size_t kMostLinks = 64;

auto when(Nanos moment) { return std::chrono::steady_clock::time_point(std::chrono::nanoseconds(moment)); }

bool is_outage(const TierError& error) {
  return error.fault == TierFault::kUnavailable || error.fault == TierFault::kTimeout ||
         error.fault == TierFault::kInDoubt;
}

// A caller that waits in `run`.
struct Waiter {
  std::condition_variable wake;
  const Request* request = nullptr;
  bool serves = false;  // it may take a connection itself
};

}  // namespace

struct RequestQueue::State : std::enable_shared_from_this<RequestQueue::State> {
  using Requests = std::vector<std::shared_ptr<Request>>;

  State(std::shared_ptr<Connector> c, Options o) : connector(std::move(c)), options(o) {}

  const std::shared_ptr<Connector> connector;
  const Options options;
  Watchdog watchdog;

  mutable std::mutex mutex;
  std::condition_variable work;  // of the worker threads
  std::condition_variable gone;  // a worker ended
  std::deque<std::shared_ptr<Request>> waiting;
  std::vector<std::unique_ptr<Link>> idle;
  std::vector<Waiter*> waiters;
  std::array<std::atomic<Link*>, kMostLinks> links{};  // every one that is open, for the child of a fork
  CircuitBreaker breaker;
  Health figures;
  unsigned open = 0, opening = 0, workers = 0;
  Nanos connect_at = 0;  // not before this moment
  Nanos pause = kFirstPause;
  bool polling = false;  // polls go one after the other
  bool closed = false;

  using Lock = std::unique_lock<std::mutex>;

  // ---------------------------------------------------------------------------------------------- who does what next

  bool may_serve(const Request& r) const noexcept { return r.kind != Request::Kind::kPoll || !polling; }

  bool something_to_serve() const noexcept {
    return std::any_of(waiting.begin(), waiting.end(), [this](const auto& r) { return may_serve(*r); });
  }

  bool wants_connection(Nanos now) const noexcept {
    return !closed && idle.empty() && !waiting.empty() && open + opening < options.links && now >= connect_at;
  }

  // Somebody for what can go on now: the caller that is first in line, or a worker.
  void wake_one() {
    if (closed) return;
    if (!idle.empty()) {
      for (const auto& r : waiting) {
        if (!may_serve(*r)) continue;
        const auto it = std::find_if(waiters.begin(), waiters.end(),
                                     [&](const Waiter* w) { return w->request == r.get() && w->serves; });
        if (it != waiters.end()) {
          (*it)->wake.notify_one();
          return;
        }
        break;
      }
      if (!something_to_serve()) return;
    } else if (waiting.empty()) {
      return;
    }
    need_worker();
  }

  void need_worker() {
    if (workers < options.links + 1 && workers < kMostLinks) {  // one more: it may have to connect while others serve
      auto* share = new std::shared_ptr<State>(shared_from_this());
      const bool started = start_thread(
          [](void* given) {
            const std::unique_ptr<std::shared_ptr<State>> mine(static_cast<std::shared_ptr<State>*>(given));
            (*mine)->labour();
          },
          share);
      if (started) {
        ++workers;
      } else {
        delete share;
      }
    }
    work.notify_one();
  }

  // ------------------------------------------------------------------------------------------------------- requests

  // False: it ended at once.
  bool enqueue(const std::shared_ptr<Request>& r, Nanos now) {
    TierError refused;
    if (closed) {
      refused = {TierFault::kClosed, "", "the cache is closed"};
    } else if (waiting.size() >= options.most_waiting && !r->background) {
      refused = {TierFault::kFull, "", "too many requests wait for the tier"};
    } else if (open == 0 && opening == 0 && now < connect_at) {
      refused = {TierFault::kUnavailable, figures.last_error.state, figures.last_error.message};
    } else if (!breaker.allow(now)) {
      refused = {TierFault::kUnavailable, figures.last_error.state, "the circuit breaker of the tier is open"};
    }
    if (refused) {
      r->error = refused;
      finish(r);
      return false;
    }
    r->stage = Request::Stage::kWaiting;
    r->deadline = now + (r->timeout > 0 ? r->timeout : options.timeout);
    waiting.push_back(r);
    return true;
  }

  void finish(const std::shared_ptr<Request>& r) {
    r->stage = Request::Stage::kDone;
    ++figures.served;
    if (r->error) ++figures.failures;
    if (const auto sink = std::exchange(r->sink, nullptr)) sink->ended(r);
    for (Waiter* w : waiters) {
      if (w->request == r.get()) w->wake.notify_one();
    }
  }

  void fail_waiting(const TierError& error) {
    auto failed = std::exchange(waiting, {});
    for (const auto& r : failed) {
      r->error = error;
      finish(r);
    }
  }

  // The first in line and whatever the same statement can serve. Requires that something can be served.
  Requests take_batch() {
    Requests batch;
    const auto first = std::find_if(waiting.begin(), waiting.end(), [this](const auto& r) { return may_serve(*r); });
    if (first == waiting.end()) return batch;
    batch.reserve(16);
    batch.push_back(*first);
    const Request& head = *batch.front();
    waiting.erase(first);
    const auto kind = head.kind;
    if (kind == Request::Kind::kQuery || kind == Request::Kind::kFlush || kind == Request::Kind::kLease) return batch;
    // One statement must not write a row twice.
    std::set<std::pair<std::string_view, std::string_view>> keys;
    const auto key_of = [](const Request& r) {
      const auto& s = static_cast<const Store&>(r);
      return std::pair<std::string_view, std::string_view>(s.key, s.type);
    };
    if (kind == Request::Kind::kStore) keys.insert(key_of(head));
    std::size_t merged = kind == Request::Kind::kLookUp ? static_cast<const LookUp&>(head).keys.size() : 1;
    for (auto it = waiting.begin(); it != waiting.end() && merged < options.most_merged;) {
      const Request& r = **it;
      bool joins = r.kind == kind && r.slot == head.slot && r.variant == head.variant;
      if (joins && kind == Request::Kind::kStore) joins = keys.insert(key_of(r)).second;
      if (!joins) {
        ++it;
        continue;
      }
      merged += kind == Request::Kind::kLookUp ? static_cast<const LookUp&>(r).keys.size() : 1;
      batch.push_back(*it);
      it = waiting.erase(it);
    }
    return batch;
  }

  // Serves one batch. The lock is open while the server is waited for.
  void serve(Lock& lock) {
    std::unique_ptr<Link> link = std::move(idle.back());
    idle.pop_back();
    const Requests batch = take_batch();
    if (batch.empty()) {
      idle.push_back(std::move(link));
      return;
    }
    std::vector<Request*> requests;
    requests.reserve(batch.size());
    Nanos timeout = options.timeout;
    for (const auto& r : batch) {
      r->stage = Request::Stage::kServed;
      r->error = {};
      timeout = std::max(timeout, r->timeout);
      requests.push_back(r.get());
    }
    const bool polls = batch.front()->kind == Request::Kind::kPoll;
    polling |= polls;
    lock.unlock();
    watchdog.begin(*link, steady_now() + timeout);
    bool usable = false;
    try {
      usable = link->serve(requests);
    } catch (const std::exception& e) {  // no memory: what was asked is unanswered, and so the connection unusable
      for (Request* r : requests) r->error = {TierFault::kUnavailable, "", e.what()};
    }
    const bool cut = watchdog.end(*link);
    if (cut) usable = false;
    if (!usable) {
      strike(link.get());
      link.reset();
    }
    lock.lock();
    if (polls) polling = false;
    ++figures.round_trips;
    const Nanos now = steady_now();
    bool outage = false;
    for (const auto& r : batch) {
      if (cut && is_outage(r->error) && r->error.fault != TierFault::kInDoubt) {
        r->error = {TierFault::kTimeout, "", "no answer within the timeout"};
      }
      outage = outage || is_outage(r->error);
      if (r->error) figures.last_error = r->error;
      if (!closed && !usable && !cut && r->error.fault == TierFault::kUnavailable && r->idempotent && !r->tried &&
          now < r->deadline) {
        r->tried = true;
        r->stage = Request::Stage::kWaiting;
        waiting.push_front(r);
        continue;
      }
      finish(r);
    }
    if (outage) {
      breaker.failed(now);
    } else {
      breaker.succeeded(now);
    }
    if (usable && !closed) {
      idle.push_back(std::move(link));
    } else {
      --open;
      figures.open = open;
      if (link != nullptr) {  // closed meanwhile
        strike(link.get());
        lock.unlock();
        link.reset();
        lock.lock();
      }
    }
    if (!waiting.empty()) wake_one();
  }

  // -------------------------------------------------------------------------------------------------- worker threads

  void enter(Link* link) {
    for (auto& place : links) {
      Link* none = nullptr;
      if (place.compare_exchange_strong(none, link)) return;
    }
  }
  void strike(Link* link) {
    for (auto& place : links) {
      Link* it = link;
      if (place.compare_exchange_strong(it, nullptr)) return;
    }
  }

  // Opens one connection.
  void connect(Lock& lock) {
    ++opening;
    lock.unlock();
    TierError error;
    std::unique_ptr<Link> link;
    try {
      link = connector->connect(error);
    } catch (const std::exception& e) {
      error = {TierFault::kUnavailable, "", e.what()};
    }
    if (link != nullptr) enter(link.get());
    lock.lock();
    --opening;
    const Nanos now = steady_now();
    if (link != nullptr) {
      if (closed) {
        strike(link.get());
        return;
      }
      ++open;
      figures.open = open;
      idle.push_back(std::move(link));
      pause = kFirstPause;
      connect_at = 0;
      breaker.probe_succeeded();
      wake_one();
      return;
    }
    figures.last_error = error;
    breaker.failed(now);
    connect_at = now + pause;
    pause = std::min(pause * 2, kSecond);
    if (open == 0 && opening == 0) fail_waiting(error);  // nobody waits for a server that is not there
  }

  // While the circuit is open: is the server back?
  void probe(Lock& lock) {
    if (idle.empty()) {
      if (open + opening < options.links) connect(lock);
      return;
    }
    std::unique_ptr<Link> link = std::move(idle.back());
    idle.pop_back();
    lock.unlock();
    watchdog.begin(*link, steady_now() + options.timeout);
    bool answers = false;
    try {
      answers = link->ping();
    } catch (const std::exception&) {
    }
    answers = !watchdog.end(*link) && answers;
    if (!answers) {
      strike(link.get());
      link.reset();
    }
    lock.lock();
    if (answers) {
      breaker.probe_succeeded();
      idle.push_back(std::move(link));
      wake_one();
    } else {
      --open;
      figures.open = open;
    }
  }

  void labour() {
    Lock lock(mutex);
    Nanos probe_at = 0;
    while (!closed) {
      const Nanos now = steady_now();
      if (!idle.empty() && something_to_serve()) {
        serve(lock);
        continue;
      }
      if (wants_connection(now)) {
        connect(lock);
        continue;
      }
      const bool troubled = breaker.state(now) != Circuit::kClosed;
      if (!troubled) probe_at = 0;
      if (troubled && probe_at == 0) probe_at = now + kSecond;
      if (troubled && now >= probe_at) {
        probe_at = now + kSecond;
        probe(lock);
        continue;
      }
      Nanos until = kForever;
      if (troubled) until = probe_at;
      if (!waiting.empty() && idle.empty() && open + opening < options.links) until = std::min(until, connect_at);
      for (const auto& r : waiting) {
        if (!r->background) until = std::min(until, r->deadline);
      }
      if (until == kForever) {
        work.wait(lock);
      } else {
        work.wait_until(lock, when(std::max(until, now + kMillisecond)));
      }
      drop_late();
    }
    --workers;
    gone.notify_all();
  }

  // What waited too long and nobody waits for.
  void drop_late() {
    const Nanos now = steady_now();
    for (auto it = waiting.begin(); it != waiting.end();) {
      const auto r = *it;
      if (now < r->deadline || r->background) {
        ++it;
        continue;
      }
      it = waiting.erase(it);
      r->error = {TierFault::kTimeout, "", "no connection within the timeout"};
      finish(r);
      breaker.abandoned();
    }
  }
};

RequestQueue::RequestQueue(std::shared_ptr<Connector> connector, Options options)
    : state_(std::make_shared<State>(std::move(connector), options)) {}

RequestQueue::~RequestQueue() { close(0); }

std::optional<TierError> RequestQueue::run(const std::shared_ptr<Request>& request, Nanos until) {
  const std::shared_ptr<State> s = state_;
  State::Lock lock(s->mutex);
  Nanos now = steady_now();
  Request& r = *request;
  if (r.stage == Request::Stage::kNew && !s->enqueue(request, now)) return r.error;
  Waiter me;
  me.request = &r;
  me.serves = (r.timeout > 0 ? r.timeout : s->options.timeout) <= kLongestOnCaller;
  s->waiters.push_back(&me);
  std::optional<TierError> outcome;
  for (;;) {
    if (r.stage == Request::Stage::kDone) {
      outcome = r.error;
      break;
    }
    now = steady_now();
    if (r.stage == Request::Stage::kWaiting) {
      if (me.serves && !s->idle.empty() && s->something_to_serve()) {
        s->serve(lock);
        continue;
      }
      if (s->idle.empty() ? s->wants_connection(now) : !me.serves) s->need_worker();
    }
    if (now >= r.deadline + (r.stage == Request::Stage::kServed ? Watchdog::kTick : 0)) {
      if (r.stage == Request::Stage::kWaiting) {
        const auto it = std::find(s->waiting.begin(), s->waiting.end(), request);
        if (it != s->waiting.end()) s->waiting.erase(it);
        r.stage = Request::Stage::kDone;
        ++s->figures.failures;
        s->breaker.abandoned();
      }
      outcome = TierError{TierFault::kTimeout, "", "no answer within the timeout"};
      break;
    }
    if (now >= until) break;
    const Nanos served = r.stage == Request::Stage::kServed ? Watchdog::kTick : 0;
    me.wake.wait_until(lock, when(std::min(until, r.deadline + served)));
  }
  s->waiters.erase(std::find(s->waiters.begin(), s->waiters.end(), &me));
  if (!s->waiting.empty() && !s->idle.empty()) s->wake_one();  // I may have been the one that was woken for it
  return outcome;
}

void RequestQueue::post(const std::shared_ptr<Request>& request) {
  const std::shared_ptr<State> s = state_;
  const State::Lock lock(s->mutex);
  if (!s->enqueue(request, steady_now())) return;
  s->need_worker();
}

void RequestQueue::abandon(const std::shared_ptr<Request>& request) {
  const std::shared_ptr<State> s = state_;
  const State::Lock lock(s->mutex);
  request->sink = nullptr;
  const auto it = std::find(s->waiting.begin(), s->waiting.end(), request);
  if (it == s->waiting.end()) return;
  s->waiting.erase(it);
  request->stage = Request::Stage::kDone;
  s->breaker.abandoned();
}

RequestQueue::Health RequestQueue::health() const {
  const std::shared_ptr<State> s = state_;
  const State::Lock lock(s->mutex);
  Health health = s->figures;
  const Nanos now = steady_now();
  health.circuit = s->breaker.state(now);
  health.waiting = s->waiting.size();
  return health;
}

void RequestQueue::close(Nanos wait) {
  const std::shared_ptr<State> s = state_;
  std::vector<std::unique_ptr<Link>> links;
  State::Lock lock(s->mutex);
  s->closed = true;
  s->fail_waiting({TierFault::kClosed, "", "the cache is closed"});
  s->work.notify_all();
  links.swap(s->idle);
  for (const auto& link : links) s->strike(link.get());
  s->open -= static_cast<unsigned>(links.size());
  lock.unlock();
  if (wait > 0) {
    lock.lock();
    s->gone.wait_until(lock, when(steady_now() + wait / 2), [&] { return s->workers == 0; });
    lock.unlock();
    s->watchdog.cut_all();
    lock.lock();
    s->gone.wait_until(lock, when(steady_now() + wait / 2), [&] { return s->workers == 0; });
  } else {
    s->watchdog.cut_all();
  }
}

void RequestQueue::after_fork_in_child() {
  // Nothing of the old state is touched but the descriptors: its lock may be held by a thread that does not exist here.
  auto* const inherited = new std::shared_ptr<State>(state_);
  for (auto& place : (*inherited)->links) {
    if (Link* link = place.load()) link->forget();
  }
  state_ = std::make_shared<State>((*inherited)->connector, (*inherited)->options);
}

}  // namespace stillwarm
