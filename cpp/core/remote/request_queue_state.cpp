// Who serves which requests, and how they end. Thread rule and invariants: see the headers.
#include <algorithm>
#include <set>
#include <utility>

#include "core/remote/request_queue_state.hpp"

namespace stillwarm {

namespace {

bool is_outage(const TierError& error) {
  if (error.part) return false;
  return error.fault == TierFault::kUnavailable || error.fault == TierFault::kTimeout ||
         error.fault == TierFault::kInDoubt;
}

// A lock that somebody holds for too long in a table of the app's own says nothing of the tier: the server answers.
bool is_outage(const Request& r) {
  const bool own = r.kind == Request::Kind::kQuery && r.once;
  return is_outage(r.error) && !(own && r.error.fault == TierFault::kTimeout && !r.error.state.empty());
}

// Without memory for the text the fault is told alone.
void put(TierError& error, TierFault fault, std::string_view state, std::string_view text) noexcept {
  error.fault = fault;
  try {
    error.state.assign(state);
    error.message.assign(text);
  } catch (const std::bad_alloc&) {
    error.message.clear();
  }
}

RequestQueue::Options sensible(RequestQueue::Options o) {
  o.links = std::clamp<unsigned>(o.links, 1, RequestQueue::kMostLinks);
  o.most_merged = std::max<std::size_t>(o.most_merged, 1);
  return o;
}

// Can one statement serve both?
bool alike(const Request& head, const Request& r) {
  if (r.kind != head.kind || r.slot != head.slot || r.variant != head.variant) return false;
  if (head.kind != Request::Kind::kStore) return true;
  return static_cast<const Store&>(r).columns.size() == static_cast<const Store&>(head).columns.size();
}

}  // namespace

RequestQueue::State::State(std::shared_ptr<Connector> c, const Options& o)
    : connector(std::move(c)), options(sensible(o)) {
  idle.reserve(options.links);
}

QueueWaiter::Call QueueWaiter::wait(Nanos until) {
  std::unique_lock lock(mutex_);
  const auto told = [this] { return call_ != Call::kNothing; };
  if (until == kForever) {
    changed_.wait(lock, told);
  } else {
    changed_.wait_until(lock, when(until), told);
  }
  if (call_ != Call::kServe) return call_;  // that it is done stays said
  asked_ = false;
  return std::exchange(call_, Call::kNothing);
}

// ------------------------------------------------------------------------------------------------ who does what next

bool RequestQueue::State::alone(const Request& r) noexcept {
  switch (r.kind) {
    case Request::Kind::kQuery:
    case Request::Kind::kFlush:
    case Request::Kind::kLease:
      return true;
    case Request::Kind::kStore:  // each swap expects a version of its own, each add has a name of its own
      return r.once;
    default:
      return false;
  }
}

bool RequestQueue::State::something_to_serve() const noexcept {
  return std::any_of(waiting.begin(), waiting.end(), [this](const auto& r) { return may_serve(*r); });
}

bool RequestQueue::State::wants_connection(Nanos now) const noexcept {
  return !closed && idle.empty() && opening < waiting.size() && open + opening < options.links && now >= connect_at;
}

RequestQueue::State::Waiting::iterator RequestQueue::State::first_for(Nanos most) noexcept {
  std::size_t left = idle.size();
  for (auto it = waiting.begin(); it != waiting.end() && left > 0; ++it) {
    if (!may_serve(**it)) continue;
    if (timeout_of(**it) <= most) return it;
    if (workers > 0) --left;
  }
  return waiting.end();
}

void RequestQueue::State::wake_one() noexcept {
  if (closed || waiting.empty()) return;
  if (watching > 0 && !alone(*waiting.front()) && on_duty_for(*waiting.front()) > 0) return;
  if (waiting.size() > 1 && need_worker()) return;  // of many it makes large batches
  if (!idle.empty()) {
    const auto first = std::find_if(waiting.begin(), waiting.end(), [this](const auto& r) { return may_serve(*r); });
    if (first == waiting.end()) return;
    QueueWaiter* const waiter = (*first)->waiter;
    if (waiter != nullptr && waiter->serves) return waiter->tell(QueueWaiter::Call::kServe);
  }
  need_worker();
}

// ---------------------------------------------------------------------------------------------------------- requests

bool RequestQueue::State::enqueue(const std::shared_ptr<Request>& r, Nanos now) {
  waiting.push_back(r);  // first: it may throw
  r->stage = Request::Stage::kWaiting;
  r->asked = now;
  r->deadline = add(now, timeout_of(*r));
  const auto refuse = [&](TierFault fault, std::string_view state, std::string_view text) {
    waiting.pop_back();
    fail(r, fault, state, text);
    return false;
  };
  if (closed) return refuse(TierFault::kClosed, "", "the cache is closed");
  if (waiting.size() > options.most_waiting && !r->background) {
    return refuse(TierFault::kFull, "", "too many requests wait for the tier");
  }
  if (open == 0 && opening == 0 && now < connect_at) {
    return refuse(TierFault::kUnavailable, figures.last_error.state, figures.last_error.message);
  }
  if (!breaker.allow(now)) {
    return refuse(TierFault::kUnavailable, figures.last_error.state, "the circuit breaker of the tier is open");
  }
  return true;
}

bool RequestQueue::State::withdraw(const Request& r) noexcept {
  const auto it = std::find_if(waiting.begin(), waiting.end(), [&](const auto& w) { return w.get() == &r; });
  if (it == waiting.end()) return false;
  waiting.erase(it);
  return true;
}

QueueWaiter* RequestQueue::State::finish(const std::shared_ptr<Request>& r) noexcept {
  r->stage = Request::Stage::kDone;
  ++figures.served;
  if (r->error) ++figures.failures;
  if (const auto sink = std::exchange(r->sink, nullptr)) sink->ended(r);
  return std::exchange(r->waiter, nullptr);
}

void RequestQueue::State::fail(const std::shared_ptr<Request>& r, TierFault fault, std::string_view state,
                               std::string_view text) noexcept {
  put(r->error, fault, state, text);
  if (QueueWaiter* const waiter = finish(r)) waiter->tell(QueueWaiter::Call::kDone);
}

void RequestQueue::State::give_up(const std::shared_ptr<Request>& r) noexcept {
  withdraw(*r);
  fail(r, TierFault::kUnavailable, "", "no more threads");
  breaker.abandoned();
}

void RequestQueue::State::fail_waiting(TierFault fault, std::string_view state, std::string_view text) noexcept {
  while (!waiting.empty()) {
    const auto r = std::move(waiting.front());
    waiting.pop_front();
    fail(r, fault, state, text);
  }
}

void RequestQueue::State::report_failure(Nanos now) noexcept {
  breaker.failed(now);
  if (breaker.state(now) == Circuit::kClosed) return;
  fail_waiting(TierFault::kUnavailable, figures.last_error.state, "the circuit breaker of the tier is open");
  need_worker();  // to look whether the tier is back, though nobody asks for anything
}

void RequestQueue::State::report_unserved(Nanos now) noexcept {
  if (open > 0) {
    breaker.abandoned();
  } else {
    report_failure(now);
  }
}

std::optional<TierError> RequestQueue::State::wait(Lock& lock, const std::shared_ptr<Request>& request, QueueWaiter& me,
                                                   Nanos until) {
  Request& r = *request;
  const Nanos timeout = timeout_of(r);
  for (;;) {
    if (r.stage == Request::Stage::kDone) return r.error;
    const Nanos now = steady_now();
    bool patient = false;
    const Nanos deadline = add(r.deadline, r.stage == Request::Stage::kServed ? Watchdog::kTick : 0);
    if (now >= deadline) {
      if (r.stage == Request::Stage::kWaiting) {
        withdraw(r);
        fail(request, TierFault::kTimeout, "", "no connection within the timeout");
        report_unserved(now);
      }
      const bool doubtful = r.once && r.stage == Request::Stage::kServed;  // another thread waits for its answer
      return TierError{doubtful ? TierFault::kInDoubt : TierFault::kTimeout, "", "no answer within the timeout"};
    }
    if (r.stage == Request::Stage::kWaiting) {
      patient = is_left(r, now);
      const auto first = me.serves && !patient ? first_for(timeout) : waiting.end();
      if (first != waiting.end()) {
        try {
          serve(lock, first, r.deadline);
        } catch (const std::bad_alloc&) {
          if (withdraw(r)) {
            fail(request, TierFault::kUnavailable, "", "no memory");
            breaker.abandoned();
          }
          if (!idle.empty()) wake_one();
          throw;
        }
        continue;
      }
      if (idle.empty() ? wants_connection(now) : !me.serves) need_worker();
    }
    if (now >= until) return std::nullopt;
    const Nanos till = std::min({until, deadline, patient ? patient_until(r) : kForever});
    lock.unlock();
    if (me.wait(till) == QueueWaiter::Call::kDone) return r.error;
    lock.lock();
  }
}

void RequestQueue::State::leave(Lock& lock, Request& r, QueueWaiter& me) noexcept {
  if (r.waiter == &me) {
    r.waiter = nullptr;
    return;
  }
  lock.unlock();  // somebody is about to
  while (me.wait(kForever) != QueueWaiter::Call::kDone) {
  }
}

void RequestQueue::State::take_batch(const Waiting::iterator& first, Requests& batch) noexcept {
  batch.push_back(std::move(*first));
  waiting.erase(first);
  const Request& head = *batch.front();
  if (alone(head)) return;
  try {
    // One statement must not write a row twice.
    std::set<std::pair<std::string_view, std::string_view>> keys;
    const auto is_new = [&keys](const Request& r) {
      const auto& s = static_cast<const Store&>(r);
      return keys.emplace(s.key, s.type).second;
    };
    const bool stores = head.kind == Request::Kind::kStore;
    const auto weight = [](const Request& r) {
      return r.kind == Request::Kind::kLookUp ? std::max<std::size_t>(1, static_cast<const LookUp&>(r).keys.size()) : 1;
    };
    if (stores) is_new(head);
    std::size_t merged = weight(head);
    for (auto it = waiting.begin(); it != waiting.end() && merged < options.most_merged;) {
      if (!alike(head, **it) || (stores && !is_new(**it))) {
        ++it;
        continue;
      }
      merged += weight(**it);
      batch.push_back(std::move(*it));
      it = waiting.erase(it);
    }
  } catch (const std::bad_alloc&) {  // no more than these, then
  }
}

void RequestQueue::State::serve(Lock& lock, const Waiting::iterator& first, Nanos limit) {
  Requests batch;
  std::vector<Request*> requests;
  std::vector<QueueWaiter*> ended;
  const std::size_t most = std::min(waiting.size(), options.most_merged);
  batch.reserve(most);
  requests.reserve(most);
  ended.reserve(most);
  std::unique_ptr<Link> link = std::move(idle.back());
  idle.pop_back();
  take_batch(first, batch);
  Nanos now = steady_now();
  Nanos until = now + kLeastService;
  for (const auto& r : batch) {
    r->stage = Request::Stage::kServed;
    r->error = {};
    until = std::max(until, r->background ? add(now, timeout_of(*r)) : r->deadline);
    requests.push_back(r.get());
  }
  if (limit != 0) until = std::max(limit, now + kLeastService);
  const bool polls = batch.front()->kind == Request::Kind::kPoll;
  polling |= polls;
  if (!idle.empty()) wake_one();  // I may have been the only one that was woken, for more than this
  lock.unlock();
  bool usable = true;
  bool cut = false;
  if (!watchdog.begin(*link, until)) {  // without it the server may take for ever
    for (Request* r : requests) put(r->error, TierFault::kUnavailable, "", "no more threads");
  } else {
    try {
      usable = link->serve(requests);
    } catch (const std::exception& e) {  // no memory: what was asked is unanswered, and so the connection unusable
      usable = false;
      for (Request* r : requests) put(r->error, r->once ? TierFault::kInDoubt : TierFault::kUnavailable, "", e.what());
    }
    cut = watchdog.end(*link);
    if (cut) usable = false;
  }
  if (!usable) {
    strike(link.get());
    link.reset();
  }
  lock.lock();
  if (polls) polling = false;
  ++figures.round_trips;
  now = steady_now();
  bool outage = false;
  for (const auto& r : batch) {
    if (cut && is_outage(r->error) && r->error.fault != TierFault::kInDoubt) {
      put(r->error, TierFault::kTimeout, "", "no answer within the timeout");
    }
    outage = outage || is_outage(*r);
    if (r->error) put(figures.last_error, r->error.fault, r->error.state, r->error.message);
  }
  if (link != nullptr && !closed) {
    idle.push_back(std::move(link));
  } else if (link != nullptr) {
    discard(lock, std::move(link));
  } else {
    --open;
    figures.open = open;
  }
  if (outage) {
    report_failure(now);
    if (!usable && !cut) discard_idle(lock);  // it broke: the others lead to the same server
  } else {
    breaker.succeeded(now);
  }
  for (const auto& r : batch) {
    if (!closed && !usable && !cut && r->error.fault == TierFault::kUnavailable && r->idempotent && !r->tried &&
        now < r->deadline) {
      try {
        waiting.push_front(r);
        r->tried = true;
        r->stage = Request::Stage::kWaiting;
        continue;
      } catch (const std::bad_alloc&) {  // then not
      }
    }
    if (QueueWaiter* const waiter = finish(r)) ended.push_back(waiter);
  }
  if (!waiting.empty()) wake_one();
  if (ended.empty()) return;
  lock.unlock();
  for (QueueWaiter* const waiter : ended) waiter->tell(QueueWaiter::Call::kDone);
  lock.lock();
}

}  // namespace stillwarm
