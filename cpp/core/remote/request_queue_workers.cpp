// The worker threads of a RequestQueue, and how connections come and go. Thread rule and invariants: see the headers.
#include <algorithm>
#include <new>
#include <utility>

#include "core/remote/request_queue_state.hpp"

namespace stillwarm {

bool RequestQueue::State::need_worker() noexcept {
  if (closed) return false;
  bool comes = resting > 0;
  if (workers < options.links + 1) {  // one more: it may have to connect while others serve
    auto* share = new (std::nothrow) std::shared_ptr<State>(shared_from_this());
    const bool started = share != nullptr && start_thread(
                                                 [](void* given) {
                                                   const std::unique_ptr<std::shared_ptr<State>> mine(
                                                       static_cast<std::shared_ptr<State>*>(given));
                                                   (*mine)->labour();
                                                 },
                                                 share);
    if (started) {
      ++workers;
      comes = true;
    } else {
      delete share;
    }
  }
  work.notify_one();
  return comes;
}

void RequestQueue::State::enter(Link* link) noexcept {
  for (auto& place : links) {
    Link* none = nullptr;
    if (place.compare_exchange_strong(none, link)) return;
  }
}

void RequestQueue::State::strike(Link* link) noexcept {
  for (auto& place : links) {
    Link* it = link;
    if (place.compare_exchange_strong(it, nullptr)) return;
  }
}

void RequestQueue::State::discard(Lock& lock, std::unique_ptr<Link> link) noexcept {
  --open;
  figures.open = open;
  strike(link.get());
  lock.unlock();
  link.reset();
  lock.lock();
}

void RequestQueue::State::discard_idle(Lock& lock) noexcept {
  while (!idle.empty()) {
    auto link = std::move(idle.back());
    idle.pop_back();
    discard(lock, std::move(link));
  }
}

void RequestQueue::State::connect(Lock& lock) {
  ++opening;
  lock.unlock();
  TierError error;
  std::unique_ptr<Link> link;
  try {
    link = connector->connect(error);
  } catch (const std::exception&) {  // no memory
    error.fault = TierFault::kUnavailable;
  }
  if (link != nullptr) enter(link.get());
  lock.lock();
  --opening;
  const Nanos now = steady_now();
  if (link != nullptr) {
    ++open;
    figures.open = open;
    if (closed) return discard(lock, std::move(link));
    idle.push_back(std::move(link));
    pause = kFirstPause;
    connect_at = 0;
    breaker.probe_succeeded();
    return wake_one();
  }
  if (!error) error.fault = TierFault::kUnavailable;
  figures.last_error = std::move(error);
  connect_at = now + pause;
  pause = std::min(pause * 2, kSecond);
  report_failure(now);
  if (open == 0 && opening == 0) {  // nobody waits for a server that is not there
    fail_waiting(figures.last_error.fault, figures.last_error.state, figures.last_error.message);
  }
}

void RequestQueue::State::probe(Lock& lock) {
  while (!idle.empty()) {
    std::unique_ptr<Link> link = std::move(idle.back());
    idle.pop_back();
    lock.unlock();
    bool answers = false;
    bool cut = false;
    if (watchdog.begin(*link, steady_now() + options.timeout)) {
      try {
        answers = link->ping();
      } catch (const std::exception&) {
        answers = false;
      }
      cut = watchdog.end(*link);
    }
    lock.lock();
    if (answers && !cut && !closed) {
      breaker.probe_succeeded();
      idle.push_back(std::move(link));
      return wake_one();
    }
    discard(lock, std::move(link));
    if (cut || closed) return;
  }
  if (!closed && open + opening < options.links) connect(lock);  // one that was broken says nothing about a new one
}

void RequestQueue::State::labour() {
  Lock lock(mutex);
  std::optional<Request::Kind> duty;
  while (!closed) {
    try {
      step(lock, duty);
    } catch (const std::bad_alloc&) {
      work.wait_until(lock, when(steady_now() + kMillisecond));
    }
  }
  take_duty(duty, nullptr);
  --workers;
  gone.notify_all();
}

// What takes long is nothing that a caller should wait behind.
void RequestQueue::State::take_duty(std::optional<Request::Kind>& duty, const Request* first) noexcept {
  if (duty) --on_duty[static_cast<std::size_t>(*duty)];
  duty.reset();
  if (first == nullptr || timeout_of(*first) > options.longest_on_caller) return;
  duty = first->kind;
  ++on_duty_for(*first);
}

void RequestQueue::State::step(Lock& lock, std::optional<Request::Kind>& duty) {
  const Nanos now = steady_now();
  const auto first = first_for(kForever);
  const Request* const next = first != waiting.end() ? first->get() : nullptr;
  const bool leaves = next != nullptr && duty != next->kind && is_left(*next, now);
  take_duty(duty, leaves ? nullptr : next);
  if (next != nullptr && !leaves) return serve(lock, first, 0);
  if (wants_connection(now)) return connect(lock);
  const bool troubled = breaker.state(now) != Circuit::kClosed;
  if (!troubled) {
    probe_at = 0;
  } else if (probe_at == 0) {
    probe_at = now + options.probe_every;
  }
  if (troubled && now >= probe_at) {
    probe_at = now + options.probe_every;
    return probe(lock);
  }
  Nanos until = troubled ? probe_at : kForever;
  if (!waiting.empty() && idle.empty() && open + opening < options.links) until = std::min(until, connect_at);
  if (leaves) until = std::min(until, patient_until(*next));
  for (const auto& r : waiting) {
    if (!r->background) until = std::min(until, r->deadline);
  }
  ++resting;
  if (leaves) ++watching;
  if (until == kForever) {
    work.wait(lock);
  } else {
    work.wait_until(lock, when(std::max(until, now + kMillisecond)));
  }
  --resting;
  if (leaves) --watching;
  drop_late();
}

void RequestQueue::State::drop_late() noexcept {
  const Nanos now = steady_now();
  const auto late = [now](const auto& r) { return !r->background && now >= r->deadline; };
  for (auto it = std::find_if(waiting.begin(), waiting.end(), late); it != waiting.end();
       it = std::find_if(waiting.begin(), waiting.end(), late)) {
    const auto r = std::move(*it);
    waiting.erase(it);
    fail(r, TierFault::kTimeout, "", "no connection within the timeout");
    report_unserved(now);
  }
}

}  // namespace stillwarm
