// A server that is none, for the queue, the watchdog and recovery: it answers, holds, breaks or is away, as a test
// says.
//
// Thread rule: every member from any thread; one lock.
// Refuses to know: what any test wants to show.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/remote/request_queue.hpp"
#include "support.hpp"

namespace stillwarm::test {

// Nothing here counts as an allocation of the thread under test.
class Uncounted {
 public:
  Uncounted() : before_(allocations_left) { allocations_left = -1; }
  Uncounted(const Uncounted&) = delete;
  Uncounted& operator=(const Uncounted&) = delete;
  ~Uncounted() { allocations_left = before_; }

 private:
  std::int64_t before_;
};

class FakeServer : public Connector {
 public:
  struct Served {
    Request::Kind kind;
    std::vector<std::string> names;  // of what was asked, in its order
    std::thread::id thread;
  };

  std::unique_ptr<Link> connect(TierError& error) override;

  // Waits until it is so. A test that waits for ever is a failure that says where.
  template <class Condition>
  void await(const char* what, Condition&& condition) {
    std::unique_lock lock(mutex);
    if (!changed.wait_for(lock, std::chrono::seconds(60), condition)) ADD_FAILURE() << "never: " << what;
  }
  template <class Change>
  void set(Change&& change) {
    const std::lock_guard lock(mutex);
    change();
    changed.notify_all();
  }
  template <class Read>
  auto get(Read&& read) {
    const std::lock_guard lock(mutex);
    return read();
  }

  std::mutex mutex;
  std::condition_variable changed;
  bool away = false;  // refuses connections
  bool connecting_held = false;
  std::function<bool(const Request&)> holds;  // operations that get no answer meanwhile
  bool away_once_broken = false;
  int breaks = 0;  // so many operations find the connection broken
  std::function<void(std::span<Request* const>)> answer;
  std::vector<Served> served;
  int inside = 0, polls_inside = 0, most_polls_inside = 0;
  int connections = 0, made = 0, attempts = 0, pings = 0, cuts = 0, forgotten = 0;
};

inline std::string name_of(const Request& r) {
  switch (r.kind) {
    case Request::Kind::kLookUp:
      return static_cast<const LookUp&>(r).keys.empty() ? "" : static_cast<const LookUp&>(r).keys[0];
    case Request::Kind::kStore:
      return static_cast<const Store&>(r).key;
    case Request::Kind::kInvalidate:
      return static_cast<const Invalidate&>(r).name;
    default:
      return "";
  }
}

class FakeLink : public Link {
 public:
  explicit FakeLink(FakeServer& server) : server_(server) {
    ++server_.connections;
    ++server_.made;
  }
  ~FakeLink() override {
    server_.set([this] { --server_.connections; });
  }

  bool serve(std::span<Request* const> batch) override {
    const Uncounted uncounted;
    EXPECT_FALSE(std::exchange(used_, true)) << "two threads on one connection";
    EXPECT_FALSE(broken_) << "Q3: a connection that broke is used again";
    FakeServer& s = server_;
    std::unique_lock lock(s.mutex);
    FakeServer::Served what{batch.front()->kind, {}, std::this_thread::get_id()};
    for (const Request* r : batch) what.names.push_back(name_of(*r));
    s.served.push_back(std::move(what));
    ++s.inside;
    const bool polls = batch.front()->kind == Request::Kind::kPoll;
    if (polls) s.most_polls_inside = std::max(s.most_polls_inside, ++s.polls_inside);
    s.changed.notify_all();
    s.changed.wait(lock, [&] { return cut_ || !s.holds || !s.holds(*batch.front()); });
    --s.inside;
    if (polls) --s.polls_inside;
    s.changed.notify_all();
    used_ = false;
    if (cut_ || s.breaks > 0) {
      if (!cut_) --s.breaks;
      s.away = s.away || s.away_once_broken;
      broken_ = true;
      for (Request* r : batch) r->error = {TierFault::kUnavailable, "", "it broke"};
      return false;
    }
    if (s.answer) s.answer(batch);
    return true;
  }

  bool ping() override {
    const std::lock_guard lock(server_.mutex);
    ++server_.pings;
    server_.changed.notify_all();
    if (server_.breaks == 0) return true;
    --server_.breaks;
    broken_ = true;
    return false;
  }
  void cut() noexcept override {
    server_.set([this] {
      cut_ = true;
      ++server_.cuts;
    });
  }
  void forget() noexcept override {
    server_.set([this] { ++server_.forgotten; });
  }

 private:
  FakeServer& server_;
  bool used_ = false, broken_ = false, cut_ = false;
};

inline std::unique_ptr<Link> FakeServer::connect(TierError& error) {
  std::unique_lock lock(mutex);
  ++attempts;
  changed.notify_all();
  changed.wait(lock, [this] { return !connecting_held; });
  if (away) {
    error = {TierFault::kUnavailable, "", "connection refused"};
    return nullptr;
  }
  return std::make_unique<FakeLink>(*this);
}

// What each request ended with, and how often.
class Ends : public Sink {
 public:
  explicit Ends(FakeServer& server) : server_(server) {}
  void ended(const std::shared_ptr<Request>& request) noexcept override {
    const Uncounted uncounted;
    server_.set([&] {
      ++count;
      faults.push_back(request->error.fault);
    });
  }
  int count = 0;  // under the server's lock
  std::vector<TierFault> faults;

 private:
  FakeServer& server_;
};

inline std::shared_ptr<LookUp> look_up(const std::string& key, Nanos timeout = 0) {
  auto l = std::make_shared<LookUp>();
  l->keys = {key};
  l->types = {"t"};
  l->timeout = timeout;
  return l;
}

inline std::shared_ptr<Store> store(const std::string& key, Store::Mode mode = Store::Mode::kLoad,
                                    std::size_t bytes = 1) {
  auto s = std::make_shared<Store>(0, mode);
  s->key = key;
  s->type = "t";
  s->payload.assign(bytes, 'x');
  return s;
}

inline TierFault outcome(RequestQueue& queue, const std::shared_ptr<Request>& request) {
  const auto o = queue.run(request, kForever);
  EXPECT_TRUE(o.has_value()) << "it had for ever";
  return o ? o->fault : TierFault::kOk;
}

inline void await_waiting(const RequestQueue& queue, std::size_t count) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (queue.health().waiting != count) {
    std::this_thread::yield();
    if (std::chrono::steady_clock::now() > until) {
      ADD_FAILURE() << "never " << count << " waiting";
      return;
    }
  }
}

}  // namespace stillwarm::test
