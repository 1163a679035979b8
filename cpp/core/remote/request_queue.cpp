#include "core/remote/request_queue.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "core/remote/request_queue_state.hpp"

namespace stillwarm {

namespace {

auto when(Nanos moment) { return std::chrono::steady_clock::time_point(std::chrono::nanoseconds(moment)); }

// Who waits in `run` is in the list of waiters for exactly so long, however it leaves.
class Listed {
 public:
  Listed(std::vector<QueueWaiter*>& waiters, QueueWaiter& me) : waiters_(waiters), me_(me) { waiters.push_back(&me); }
  Listed(const Listed&) = delete;
  Listed& operator=(const Listed&) = delete;
  ~Listed() { waiters_.erase(std::find(waiters_.begin(), waiters_.end(), &me_)); }

 private:
  std::vector<QueueWaiter*>& waiters_;
  QueueWaiter& me_;
};

}  // namespace

RequestQueue::RequestQueue(std::shared_ptr<Connector> connector, Options options)
    : state_(std::make_shared<State>(std::move(connector), options)) {}

// It may be the last request's sink that ends the queue, and then this runs under its lock: what was closed is not
// closed again.
RequestQueue::~RequestQueue() {
  if (!closed_) close(0);
}

std::optional<TierError> RequestQueue::run(const std::shared_ptr<Request>& request, Nanos until) {
  const std::shared_ptr<State> s = state_;
  State::Lock lock(s->mutex);
  Nanos now = steady_now();
  Request& r = *request;
  const Nanos timeout = s->timeout_of(r);
  QueueWaiter me;
  me.request = &r;
  me.serves = timeout <= s->options.longest_on_caller;
  std::optional<TierError> outcome;
  {
    const Listed listed(s->waiters, me);
    if (r.stage == Request::Stage::kNew && !s->enqueue(request, now)) return r.error;
    for (;;) {
      if (r.stage == Request::Stage::kDone) {
        outcome = r.error;
        break;
      }
      now = steady_now();
      bool patient = false;
      const Nanos deadline = add(r.deadline, r.stage == Request::Stage::kServed ? Watchdog::kTick : 0);
      if (now >= deadline) {
        if (r.stage == Request::Stage::kWaiting) {
          s->withdraw(r);
          s->fail(request, TierFault::kTimeout, "", "no connection within the timeout");
          s->report_unserved(now);
        }
        const bool doubtful = r.once && r.stage == Request::Stage::kServed;  // another thread waits for its answer
        outcome = TierError{doubtful ? TierFault::kInDoubt : TierFault::kTimeout, "", "no answer within the timeout"};
        break;
      }
      if (r.stage == Request::Stage::kWaiting) {
        patient = s->is_left(r, now);
        const auto first = me.serves && !patient ? s->first_for(timeout) : s->waiting.end();
        if (first != s->waiting.end()) {
          try {
            s->serve(lock, first, r.deadline);
          } catch (const std::bad_alloc&) {
            if (s->withdraw(r)) {
              s->fail(request, TierFault::kUnavailable, "", "no memory");
              s->breaker.abandoned();
            }
            if (!s->idle.empty()) s->wake_one();
            throw;
          }
          continue;
        }
        if (s->idle.empty() ? s->wants_connection(now) : !me.serves) s->need_worker();
      }
      if (now >= until) break;
      me.wake.wait_until(lock, when(std::min({until, deadline, patient ? s->patient_until(r) : kForever})));
    }
  }
  if (!s->idle.empty()) s->wake_one();  // I may have been the one that was woken for it
  return outcome;
}

void RequestQueue::post(const std::shared_ptr<Request>& request) {
  const std::shared_ptr<State> s = state_;
  const State::Lock lock(s->mutex);
  if (!s->enqueue(request, steady_now())) return;
  if (s->watching == 0 || State::alone(*request) || s->on_duty_for(*request) == 0) s->need_worker();
  if (s->workers == 0) s->give_up(request);
}

void RequestQueue::abandon(const std::shared_ptr<Request>& request, const std::shared_ptr<Sink>& heir) {
  const std::shared_ptr<State> s = state_;
  std::shared_ptr<Sink> sink;  // released without the lock
  const State::Lock lock(s->mutex);
  sink.swap(request->sink);
  if (heir != nullptr) {
    if (request->stage == Request::Stage::kDone) return heir->ended(request);
    request->sink = heir;
    if (request->stage == Request::Stage::kWaiting && !s->need_worker() && s->workers == 0) s->give_up(request);
    return;
  }
  if (!s->withdraw(*request)) return;
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
  health.recent_calls = s->breaker.calls_in_window(now);
  health.recent_failures = s->breaker.failures_in_window(now);
  return health;
}

void RequestQueue::close(Nanos wait) {
  const std::shared_ptr<State> s = state_;
  std::vector<std::unique_ptr<Link>> links;
  State::Lock lock(s->mutex);
  closed_ = true;
  s->closed = true;
  s->fail_waiting(TierFault::kClosed, "", "the cache is closed");
  s->work.notify_all();
  links.swap(s->idle);
  for (const auto& link : links) s->strike(link.get());
  s->open -= static_cast<unsigned>(links.size());
  s->figures.open = s->open;
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
  static auto* const inherited = new std::vector<std::shared_ptr<State>>;  // never destroyed
  const State& old = *inherited->emplace_back(state_);
  for (const auto& place : old.links) {
    if (Link* link = place.load()) link->forget();
  }
  state_ = std::make_shared<State>(old.connector, old.options);
}

}  // namespace stillwarm
