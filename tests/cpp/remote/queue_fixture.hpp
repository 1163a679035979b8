// A request queue before a fake server, and its callers.
//
// Thread rule: one test thread; callers are threads of the fixture.
// Refuses to know: what any test wants to show.
#pragma once

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "remote/fake_server.hpp"

namespace stillwarm::test {

using Texts = std::vector<std::string>;

inline constexpr Nanos kLong = 100 * kSecond;

// Nothing times out unless a test says so.
inline RequestQueue::Options patient(unsigned links) {
  RequestQueue::Options o;
  o.links = links;
  o.timeout = kLong;
  o.longest_on_caller = kLong;
  return o;
}

struct Queue {
  explicit Queue(const RequestQueue::Options& o) : queue(server, o) {}
  explicit Queue(unsigned links = 1) : Queue(patient(links)) {}
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;
  ~Queue() {
    server->set([this] {
      server->holds = nullptr;
      server->connecting_held = false;
    });
    queue.close(10 * kSecond);
    for (auto& t : threads) t.join();
    server->await("every connection is closed", [this] { return server->connections == 0; });
  }

  void hold() {
    server->set([this] { server->holds = [](const Request&) { return true; }; });
  }
  void go_on() {
    server->set([this] { server->holds = nullptr; });
  }
  // One caller whose request is on a connection and gets no answer.
  void occupy() {
    hold();
    const int before = server->get([this] { return server->inside; });
    call(look_up("occupied"));
    server->await("the connection is taken", [this, before] { return server->inside == before + 1; });
  }
  void call(std::shared_ptr<Request> r) {
    threads.emplace_back([this, r = std::move(r)] {
      const TierFault f = outcome(queue, r);
      server->set([&] { faults.push_back(f); });
    });
  }
  void join() {
    for (auto& t : threads) t.join();
    threads.clear();
  }
  Texts last() {
    return server->get([this] { return server->served.back().names; });
  }

  std::shared_ptr<FakeServer> server = std::make_shared<FakeServer>();
  RequestQueue queue;
  std::vector<std::thread> threads;
  std::vector<TierFault> faults;
};

}  // namespace stillwarm::test
