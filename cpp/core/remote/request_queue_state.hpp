// The inside of a RequestQueue: what waits, what is open, and who goes on next.
//
// Thread rule: everything under `mutex`, `links` excepted; members that take the lock may open it while a server is
// waited for. Members that are noexcept keep every promise without memory.
// Refuses to know: who includes it but the three request_queue*.cpp.
//
// A link is in one place at a time: `idle`, or the frame that uses it. `open` counts both; `links` names both, for the
// child of a fork. No member leaves with a link or a request that is in none of its places.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <optional>
#include <string_view>

#include "core/base/life.hpp"
#include "core/remote/request_queue.hpp"

namespace stillwarm {

// A caller that waits in `run`, on a lock of its own: of many whose requests end at once none waits for the queue's.
// Whose request is done leaves without it. That it is done is the last that anybody tells it.
class QueueWaiter {
 public:
  enum class Call : std::uint8_t { kNothing, kServe, kDone };

  explicit QueueWaiter(bool serves_) : serves(serves_) {}
  QueueWaiter(const QueueWaiter&) = delete;
  QueueWaiter& operator=(const QueueWaiter&) = delete;
  ~QueueWaiter() = default;

  const bool serves;  // it may take a connection itself

  void tell(Call call) noexcept {
    const std::lock_guard lock(mutex_);
    call_ = std::max(call_, call);
    asked_ |= call == Call::kServe;
    changed_.notify_one();  // with the lock: it may be gone as soon as that is free
  }
  // What it was told, if that comes by then.
  Call wait(Nanos until);
  // It was asked to serve, and heard of its own end instead: somebody else has to. For its thread, after the end.
  bool owes_service() const noexcept { return asked_; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  Call call_ = Call::kNothing;
  bool asked_ = false;
};

inline auto when(Nanos moment) { return std::chrono::steady_clock::time_point(std::chrono::nanoseconds(moment)); }

struct RequestQueue::State : std::enable_shared_from_this<RequestQueue::State> {
  static constexpr Nanos kFirstPause = 50'000'000;  // before the second attempt to connect; doubles to a second
  // What comes late to a connection gets so much time there, though its deadline is sooner: a connection is not given
  // up because the queue was long.
  static constexpr Nanos kLeastService = 40'000'000;

  using Requests = std::vector<std::shared_ptr<Request>>;
  using Waiting = std::deque<std::shared_ptr<Request>>;
  using Lock = std::unique_lock<std::mutex>;

  State(std::shared_ptr<Connector> c, const Options& o);

  const std::shared_ptr<Connector> connector;
  const Options options;
  Watchdog watchdog;

  mutable std::mutex mutex;
  std::condition_variable work;  // of the worker threads
  std::condition_variable gone;  // a worker ended
  Waiting waiting;
  std::vector<std::unique_ptr<Link>> idle;
  std::array<std::atomic<Link*>, kMostLinks> links{};  // every one that is open, for the child of a fork
  CircuitBreaker breaker;
  Health figures;
  unsigned open = 0, opening = 0, workers = 0;
  std::array<unsigned, Request::kKinds> on_duty{};  // workers that serve one batch after the other, by kind
  unsigned resting = 0;                             // workers that wait for work
  unsigned watching = 0;  // of these, such as come by themselves when a worker on duty takes too long
  Nanos connect_at = 0;   // not before this moment
  Nanos pause = kFirstPause;
  Nanos probe_at = 0;    // the circuit is not closed: when a worker looks whether the tier is back; 0: it is closed
  bool polling = false;  // polls go one after the other
  bool closed = false;

  // ---- who does what next (request_queue_state.cpp)

  Nanos timeout_of(const Request& r) const noexcept { return r.timeout > 0 ? r.timeout : options.timeout; }
  bool may_serve(const Request& r) const noexcept { return r.kind != Request::Kind::kPoll || !polling; }
  unsigned& on_duty_for(const Request& r) noexcept { return on_duty[static_cast<std::size_t>(r.kind)]; }
  // Until then it is left to a worker on duty.
  Nanos patient_until(const Request& r) const noexcept {
    const Nanos timeout = timeout_of(r);
    return r.deadline - timeout + std::min(options.patience, timeout / 4);
  }
  // No other request is served by the same statement.
  static bool alone(const Request& r) noexcept;
  bool is_left(const Request& r, Nanos now) noexcept {
    return !alone(r) && on_duty_for(r) > 0 && now < patient_until(r);
  }
  bool something_to_serve() const noexcept;
  bool wants_connection(Nanos now) const noexcept;
  // What somebody may serve who has `most` time for one operation; `waiting.end()`: nothing. For each request that it
  // has to leave to a worker it leaves a connection.
  Waiting::iterator first_for(Nanos most) noexcept;
  // Somebody for what can go on now: the caller that is first in line, or a worker.
  void wake_one() noexcept;

  // ---- requests

  // False: it ended at once.
  bool enqueue(const std::shared_ptr<Request>& r, Nanos now);
  // Takes it out of the line; false: it is not there.
  bool withdraw(const Request& r) noexcept;
  // Whoever waits for it is to be told; null: nobody does. Nothing else may be done with it, and that must be done.
  [[nodiscard]] QueueWaiter* finish(const std::shared_ptr<Request>& r) noexcept;
  void fail(const std::shared_ptr<Request>& r, TierFault fault, std::string_view state, std::string_view text) noexcept;
  // It waits, and there is nobody who would serve it.
  void give_up(const std::shared_ptr<Request>& r) noexcept;
  void fail_waiting(TierFault fault, std::string_view state, std::string_view text) noexcept;
  // The breaker hears of a failure. What waits does not wait for a circuit that is open.
  void report_failure(Nanos now) noexcept;
  // The same for one that waited in vain: where there is no connection it is the tier that failed.
  void report_unserved(Nanos now) noexcept;

  // Until it is done, by this thread or another, its time is over, or `until`: then nothing. Comes back without the
  // lock where another thread has told `me` that it is done.
  std::optional<TierError> wait(Lock& lock, const std::shared_ptr<Request>& request, QueueWaiter& me, Nanos until);
  // `me` waits no more, and nobody will tell it anything.
  void leave(Lock& lock, Request& r, QueueWaiter& me) noexcept;

  // Takes the first of a batch and what the same statement can serve out of the line. Both vectors have room.
  void take_batch(const Waiting::iterator& first, Requests& batch) noexcept;
  // Serves one batch, until `limit` if that is given. Throws std::bad_alloc, and then nothing has changed.
  void serve(Lock& lock, const Waiting::iterator& first, Nanos limit);

  // ---- worker threads and connections (request_queue_workers.cpp)

  // False: there is none to come.
  bool need_worker() noexcept;
  void enter(Link* link) noexcept;
  void strike(Link* link) noexcept;
  // It is not to be used again. Opens the lock.
  void discard(Lock& lock, std::unique_ptr<Link> link) noexcept;
  void discard_idle(Lock& lock) noexcept;
  void connect(Lock& lock);
  // While the circuit is open: is the server back?
  void probe(Lock& lock);
  void labour();
  // `duty`: the kind of the batch that this worker served in its last step, if it may serve another at once.
  void step(Lock& lock, std::optional<Request::Kind>& duty);
  void take_duty(std::optional<Request::Kind>& duty, const Request* first) noexcept;
  // What waited too long and nobody waits for.
  void drop_late() noexcept;
};

}  // namespace stillwarm
