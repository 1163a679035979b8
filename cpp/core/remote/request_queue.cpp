#include "core/remote/request_queue.hpp"

#include <algorithm>
#include <utility>

#include "core/remote/request_queue_state.hpp"

namespace stillwarm {

RequestQueue::RequestQueue(std::shared_ptr<Connector> connector, Options options)
    : state_(std::make_shared<State>(std::move(connector), options)) {}

// It may be the last request's sink that ends the queue, and then this runs under its lock: what was closed is not
// closed again.
RequestQueue::~RequestQueue() {
  if (!closed_) close(0);
}

std::optional<TierError> RequestQueue::run(const std::shared_ptr<Request>& request, Nanos until) {
  const std::shared_ptr<State> s = state_;
  Request& r = *request;
  QueueWaiter me(s->timeout_of(r) <= s->options.longest_on_caller);
  State::Lock lock(s->mutex);
  if (r.stage == Request::Stage::kNew && !s->enqueue(request, steady_now())) return r.error;
  if (r.stage == Request::Stage::kDone) return r.error;
  r.waiter = &me;
  std::optional<TierError> outcome;
  try {
    outcome = s->wait(lock, request, me, until);
  } catch (const std::bad_alloc&) {
    if (lock.owns_lock()) s->leave(lock, r, me);  // else it is done, and I was told
    throw;
  }
  const bool told = !lock.owns_lock();  // by another thread, that it is done
  if (told && !me.owes_service()) return outcome;
  if (told) lock.lock();
  if (!s->idle.empty()) s->wake_one();  // I may have been the one that was woken for it
  if (told) return outcome;
  s->leave(lock, r, me);
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
