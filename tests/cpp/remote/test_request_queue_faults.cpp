// Request queue: a tier that is away, the circuit breaker, no memory, the end, and a fork.
#include <gtest/gtest.h>

#include "core/remote/completions.hpp"
#include "remote/fake_server.hpp"

namespace stillwarm {
namespace {

using test::await_waiting;
using test::Ends;
using test::FakeServer;
using test::look_up;
using test::outcome;
using test::store;

RequestQueue::Options quick_probes(unsigned links = 1) {
  RequestQueue::Options o;
  o.links = links;
  o.timeout = o.longest_on_caller = 100 * kSecond;
  o.probe_every = 1'000'000;
  return o;
}

void await_circuit(const RequestQueue& queue, Circuit circuit) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (queue.health().circuit != circuit) {
    std::this_thread::yield();
    ASSERT_LT(std::chrono::steady_clock::now(), until);
  }
}

TEST(RequestQueueFaults, NobodyWaitsForAServerThatIsNotThere) {
  const auto server = std::make_shared<FakeServer>();
  server->away = true;
  RequestQueue queue(server, quick_probes());
  const auto o = queue.run(look_up("a"), kForever);
  EXPECT_EQ(o->fault, TierFault::kUnavailable);
  EXPECT_EQ(o->message, "connection refused");
  EXPECT_EQ(queue.health().last_error.message, "connection refused");
}

TEST(RequestQueueFaults, WhatQueuesBehindAnOutageEndsTooTheBackgroundIncluded) {
  const auto server = std::make_shared<FakeServer>();
  server->away = server->connecting_held = true;
  RequestQueue queue(server, quick_probes());
  const auto ends = std::make_shared<Ends>(*server);
  for (int i = 0; i < 3; ++i) {
    auto s = store(std::to_string(i));
    s->background = i > 0;
    s->sink = ends;
    queue.post(s);
  }
  server->set([&] { server->connecting_held = false; });
  server->await("all hear of it", [&] { return ends->count == 3; });
  EXPECT_EQ(ends->faults, (std::vector<TierFault>(3, TierFault::kUnavailable)));
}

// The callers meet the failures, nobody asks for anything afterwards, and yet the circuit closes when the server is
// back.
TEST(RequestQueueFaults, AWorkerLooksWhetherTheTierIsBackWithoutTraffic) {
  const auto server = std::make_shared<FakeServer>();
  RequestQueue queue(server, quick_probes());
  ASSERT_EQ(outcome(queue, look_up("a")), TierFault::kOk);
  for (int i = 0; i < 5; ++i) {
    server->set([&] {
      server->breaks = 1;
      server->away_once_broken = i == 4;
    });
    EXPECT_EQ(outcome(queue, store("b")), TierFault::kUnavailable);
  }
  const int before = server->get([&] { return server->attempts; });
  server->await("it looks", [&] { return server->attempts > before + 1; });
  EXPECT_NE(queue.health().circuit, Circuit::kClosed);
  server->set([&] { server->away = server->away_once_broken = false; });
  await_circuit(queue, Circuit::kClosed);
  queue.close(10 * kSecond);
}

TEST(RequestQueueFaults, WhileTheCircuitIsOpenNothingGoesThrough) {
  const auto server = std::make_shared<FakeServer>();
  auto o = quick_probes();
  o.probe_every = 1000 * kSecond;
  RequestQueue queue(server, o);
  ASSERT_EQ(outcome(queue, look_up("a")), TierFault::kOk);
  for (int i = 0; i < 5; ++i) {
    server->set([&] { server->breaks = 1; });
    EXPECT_EQ(outcome(queue, store("b")), TierFault::kUnavailable);
  }
  EXPECT_EQ(queue.health().circuit, Circuit::kOpen);
  const auto served = server->get([&] { return server->served.size(); });
  EXPECT_EQ(outcome(queue, look_up("a")), TierFault::kUnavailable);
  EXPECT_EQ(server->get([&] { return server->served.size(); }), served);
  EXPECT_EQ(queue.health().last_error.message, "it broke");
}

TEST(RequestQueueFaults, ALockInATableOfTheAppsIsNoOutage) {
  const auto server = std::make_shared<FakeServer>();
  RequestQueue queue(server, quick_probes());
  const auto late = [](std::span<Request* const> batch) {
    for (Request* r : batch) r->error = {TierFault::kTimeout, "57014", "canceling statement"};
  };
  server->set([&] { server->answer = late; });
  const auto ask = [&](bool once) {
    auto query = std::make_shared<Query>();
    query->once = once;
    return outcome(queue, query);
  };
  for (int i = 0; i < 10; ++i) EXPECT_EQ(ask(true), TierFault::kTimeout);
  EXPECT_EQ(queue.health().circuit, Circuit::kClosed);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(ask(false), TierFault::kTimeout);
  EXPECT_NE(queue.health().circuit, Circuit::kClosed) << "else it is";
}

TEST(RequestQueueFaults, WithoutMemoryWhatMustNotBeDoneTwiceIsInDoubt) {
  const auto server = std::make_shared<FakeServer>();
  RequestQueue queue(server, quick_probes());
  server->set([&] { server->answer = [](std::span<Request* const>) { throw std::bad_alloc(); }; });
  auto query = std::make_shared<Query>();
  query->once = true;
  EXPECT_EQ(outcome(queue, query), TierFault::kInDoubt);
  EXPECT_EQ(outcome(queue, std::make_shared<Query>()), TierFault::kUnavailable);
}

TEST(RequestQueueFaults, WhatWaitsWhenTheCircuitOpensDoesNotWaitOn) {
  const auto server = std::make_shared<FakeServer>();
  auto o = quick_probes();
  o.probe_every = 1000 * kSecond;
  RequestQueue queue(server, o);
  ASSERT_EQ(outcome(queue, look_up("a")), TierFault::kOk);
  for (int i = 0; i < 4; ++i) {
    server->set([&] { server->breaks = 1; });
    EXPECT_EQ(outcome(queue, store("b")), TierFault::kUnavailable);
  }
  server->set([&] { server->holds = [](const Request&) { return true; }; });
  std::thread fifth([&] { EXPECT_EQ(outcome(queue, store("c")), TierFault::kUnavailable); });
  server->await("it is served", [&] { return server->inside == 1; });
  const auto ends = std::make_shared<Ends>(*server);
  auto behind = store("d", Store::Mode::kSet);
  behind->background = true;
  behind->sink = ends;
  queue.post(behind);
  std::thread waits([&] { EXPECT_EQ(outcome(queue, std::make_shared<Query>()), TierFault::kUnavailable); });
  await_waiting(queue, 2);
  server->set([&] {
    server->breaks = 1;
    server->holds = nullptr;
  });
  fifth.join();
  waits.join();
  server->await("the write behind, too", [&] { return ends->count == 1; });
  EXPECT_EQ(queue.health().waiting, 0u);
}

TEST(RequestQueueFaults, APingClosesTheCircuit) {
  const auto server = std::make_shared<FakeServer>();
  RequestQueue queue(server, quick_probes());
  server->answer = [](std::span<Request* const> batch) {
    for (Request* r : batch) r->error = {TierFault::kTimeout, "", "slow"};
  };
  for (int i = 0; i < 5; ++i) EXPECT_EQ(outcome(queue, store("b")), TierFault::kTimeout);
  server->await("a ping", [&] { return server->pings > 0; });
  await_circuit(queue, Circuit::kClosed);
  EXPECT_EQ(server->made, 1);
  queue.close(10 * kSecond);
}

TEST(RequestQueueFaults, APingThatFindsABrokenConnectionMakesANewOne) {
  const auto server = std::make_shared<FakeServer>();
  RequestQueue queue(server, quick_probes());
  int asked = 0;
  server->answer = [&](std::span<Request* const> batch) {
    for (Request* r : batch) r->error = {TierFault::kTimeout, "", "slow"};
    if (++asked == 5) server->breaks = 1;
  };
  for (int i = 0; i < 5; ++i) EXPECT_EQ(outcome(queue, store("b")), TierFault::kTimeout);
  await_circuit(queue, Circuit::kClosed);
  EXPECT_EQ(server->pings, 1);
  EXPECT_EQ(server->made, 2);
  queue.close(10 * kSecond);
}

// ---- no memory

TEST(RequestQueueFaults, WithoutMemoryNoConnectionAndNoRequestIsLost) {
  const auto server = std::make_shared<FakeServer>();
  RequestQueue queue(server, quick_probes());
  ASSERT_EQ(outcome(queue, look_up("warm")), TierFault::kOk);
  int failed = 0;
  for (int n = 0;; ++n) {
    const auto r = store("a key that is longer than a string holds in itself");
    std::optional<TierError> o;
    test::allocations_left = n;
    try {
      o = queue.run(r, kForever);
    } catch (const std::bad_alloc&) {
      o.reset();
    }
    test::allocations_left = -1;
    EXPECT_EQ(queue.health().waiting, 0u) << n;
    EXPECT_EQ(outcome(queue, look_up("next")), TierFault::kOk) << n;
    if (o && !*o) break;
    ++failed;
    ASSERT_LT(n, 100);
  }
  EXPECT_GE(failed, 2);
  EXPECT_EQ(queue.health().open, 1u);
  queue.close(10 * kSecond);
  server->await("closed", [&] { return server->connections == 0; });
}

TEST(RequestQueueFaults, WithoutMemoryWhatIsPostedEndsOnceOrIsRefused) {
  const auto server = std::make_shared<FakeServer>();
  RequestQueue queue(server, quick_probes());
  ASSERT_EQ(outcome(queue, look_up("warm")), TierFault::kOk);
  for (int n = 0; n < 20; ++n) {
    const auto ends = std::make_shared<Ends>(*server);
    const auto r = look_up("a");
    r->sink = ends;
    bool refused = false;
    test::allocations_left = n;
    try {
      queue.post(r);
    } catch (const std::bad_alloc&) {
      refused = true;
    }
    test::allocations_left = -1;
    if (!refused) server->await("it ends", [&] { return ends->count == 1; });
    ASSERT_EQ(outcome(queue, look_up("next")), TierFault::kOk);
    EXPECT_EQ(server->get([&] { return ends->count; }), refused ? 0 : 1);
  }
}

TEST(RequestQueueFaults, ALinkThatThrowsIsGivenUpAndItsRequestsEnd) {
  const auto server = std::make_shared<FakeServer>();
  RequestQueue queue(server, quick_probes());
  ASSERT_EQ(outcome(queue, look_up("warm")), TierFault::kOk);
  server->set([&] { server->answer = [](std::span<Request* const>) { throw std::bad_alloc(); }; });
  EXPECT_EQ(outcome(queue, store("a")), TierFault::kUnavailable);
  server->set([&] { server->answer = nullptr; });
  EXPECT_EQ(outcome(queue, store("a")), TierFault::kOk);
  EXPECT_EQ(server->made, 2);
}

// ---- the end

TEST(RequestQueueFaults, CloseFailsWhatWaitsAndCutsWhatRuns) {
  const auto server = std::make_shared<FakeServer>();
  RequestQueue queue(server, quick_probes());
  server->set([&] { server->holds = [](const Request&) { return true; }; });
  std::thread runs([&] { EXPECT_EQ(outcome(queue, look_up("a")), TierFault::kTimeout); });
  server->await("it runs", [&] { return server->inside == 1; });
  std::thread waits([&] { EXPECT_EQ(outcome(queue, look_up("b")), TierFault::kClosed); });
  await_waiting(queue, 1);
  queue.close(0);
  runs.join();
  waits.join();
  EXPECT_EQ(outcome(queue, look_up("c")), TierFault::kClosed);
  server->await("no connection is left", [&] { return server->connections == 0; });
  EXPECT_EQ(queue.health().open, 0u);
}

TEST(RequestQueueFaults, AConnectionThatComesAfterTheEndIsClosed) {
  const auto server = std::make_shared<FakeServer>();
  RequestQueue queue(server, quick_probes());
  server->set([&] { server->connecting_held = true; });
  std::thread waits([&] { EXPECT_EQ(outcome(queue, look_up("b")), TierFault::kClosed); });
  server->await("it connects", [&] { return server->attempts == 1; });
  await_waiting(queue, 1);
  queue.close(0);
  waits.join();
  server->set([&] { server->connecting_held = false; });
  server->await("closed", [&] { return server->made == 1 && server->connections == 0; });
}

TEST(RequestQueueFaults, TheChildOfAForkForgetsConnectionsAndMakesItsOwn) {
  const auto server = std::make_shared<FakeServer>();
  RequestQueue queue(server, quick_probes(2));
  RequestQueue* const child = &queue;
  ASSERT_EQ(outcome(queue, look_up("a")), TierFault::kOk);
  server->set([&] { server->holds = [](const Request& r) { return test::name_of(r) == "parent"; }; });
  std::thread parent([&] { EXPECT_EQ(outcome(queue, look_up("parent")), TierFault::kOk); });
  server->await("it is inside", [&] { return server->inside == 1; });
  child->after_fork_in_child();
  EXPECT_EQ(server->get([&] { return server->forgotten; }), server->get([&] { return server->made; }));
  const int made = server->get([&] { return server->made; });
  EXPECT_EQ(outcome(*child, look_up("child")), TierFault::kOk);
  EXPECT_EQ(server->get([&] { return server->made; }), made + 1);
  server->set([&] { server->holds = nullptr; });
  parent.join();
}

// ---- completions

TEST(Completions, EachTokenIsTakenOnceAndTheLoopIsWokenOnce) {
  Completions completions;
  std::vector<std::shared_ptr<Request>> requests;
  for (std::uint64_t t = 1; t <= 3; ++t) {
    requests.push_back(look_up("a"));
    requests.back()->token = t;
    test::allocations_left = 0;
    completions.ended(requests.back());
    test::allocations_left = -1;
  }
  std::uint64_t woken = 0;
  ASSERT_EQ(::read(completions.fd(), &woken, sizeof woken), static_cast<ssize_t>(sizeof woken));
  EXPECT_EQ(woken, 1u);
  EXPECT_EQ(completions.take(), (std::vector<std::uint64_t>{1, 2, 3}));
  EXPECT_TRUE(completions.take().empty());
  EXPECT_EQ(requests[0].use_count(), 1);
  for (int i = 0; i < 100'000; ++i) completions.ended(look_up("b"));  // its end does not recurse
}

TEST(Completions, WithoutMemoryToTakeNothingIsLost) {
  Completions completions;
  const auto r = look_up("a");
  r->token = 7;
  completions.ended(r);
  test::allocations_left = 0;
  EXPECT_THROW(completions.take(), std::bad_alloc);
  test::allocations_left = -1;
  EXPECT_EQ(completions.take(), (std::vector<std::uint64_t>{7}));
}

}  // namespace
}  // namespace stillwarm
