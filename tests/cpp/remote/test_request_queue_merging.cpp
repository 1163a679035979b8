// Request queue: what waits goes along in one statement, and who serves it.
#include "core/remote/request_queue.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "remote/queue_fixture.hpp"

namespace stillwarm {
namespace {

using test::await_waiting;
using test::Ends;
using test::look_up;
using test::outcome;
using test::patient;
using test::Queue;
using test::store;

using Texts = std::vector<std::string>;

TEST(RequestQueue, WhatWaitsIsMergedIntoOneStatement) {
  Queue q;
  q.occupy();
  for (const char* key : {"a", "b", "c", "d"}) q.call(look_up(key));
  await_waiting(q.queue, 4);
  q.go_on();
  q.join();
  EXPECT_EQ(q.server->served.size(), 2u);
  auto merged = q.last();
  std::sort(merged.begin(), merged.end());
  EXPECT_EQ(merged, (Texts{"a", "b", "c", "d"}));
  EXPECT_EQ(q.queue.health().round_trips, 2u);
  EXPECT_EQ(q.queue.health().served, 5u);
}

TEST(RequestQueue, WhatComesWhileAWorkerIsAtItJoinsItsNextBatch) {
  auto o = patient(2);
  o.patience = test::kLong;
  Queue q(o);
  q.hold();
  const auto ends = std::make_shared<Ends>(*q.server);
  const auto post = [&](const char* key) {
    const auto r = look_up(key);
    r->sink = ends;
    q.queue.post(r);
  };
  post("a");
  q.server->await("a worker serves", [&] { return q.server->inside == 1; });
  post("b");
  post("c");
  q.call(look_up("d"));
  q.call(look_up("e"));
  await_waiting(q.queue, 4);
  q.go_on();
  q.join();
  q.server->await("all have ended", [&] { return ends->count == 3; });
  EXPECT_EQ(q.server->get([&] { return q.server->served.size(); }), 2u) << "though another connection was to be had";
  EXPECT_EQ(q.last().size(), 4u);
}

TEST(RequestQueue, Q4AWorkerThatTakesTooLongIsHelped) {
  for (const bool posted : {true, false}) {
    Queue q(patient(2));
    q.hold();
    const auto ends = std::make_shared<Ends>(*q.server);
    for (int i = 1; i <= 2; ++i) {
      const auto r = look_up("a");
      if (i == 1 || posted) {
        r->sink = ends;
        q.queue.post(r);
      } else {
        q.call(r);
      }
      q.server->await("it is served", [&] { return q.server->inside == i; });
    }
    q.go_on();
    q.join();
    q.server->await("all have ended", [&] { return ends->count == (posted ? 2 : 1); });
  }
}

TEST(RequestQueue, NobodyWaitsBehindAWorkerThatServesAnotherKind) {
  auto o = patient(2);
  o.patience = test::kLong;
  Queue q(o);
  q.hold();
  q.queue.post(store("a"));
  q.server->await("a worker serves", [&] { return q.server->inside == 1; });
  q.call(look_up("b"));
  q.server->await("the caller, too", [&] { return q.server->inside == 2; });
  q.go_on();
  q.join();
}

// What is posted while the only connection is taken, in the batches that follow.
std::vector<std::size_t> batches_of(const std::vector<std::shared_ptr<Request>>& requests, std::size_t most = 128) {
  auto o = patient(1);
  o.most_merged = most;
  Queue q(o);
  q.occupy();
  const auto ends = std::make_shared<Ends>(*q.server);
  for (const auto& r : requests) {
    r->sink = ends;
    q.queue.post(r);
  }
  q.go_on();
  q.server->await("all have ended", [&] { return ends->count == static_cast<int>(requests.size()); });
  std::vector<std::size_t> sizes;
  q.server->set([&] {
    for (const auto& s : q.server->served) sizes.push_back(s.names.size());
  });
  sizes.erase(sizes.begin());
  return sizes;
}

TEST(RequestQueue, OnlyWhatIsAlikeIsMerged) {
  using Sizes = std::vector<std::size_t>;
  EXPECT_EQ(batches_of({look_up("a"), std::make_shared<LookUp>(1), look_up("b")}), (Sizes{2, 1}));
  EXPECT_EQ(batches_of({store("a"), store("b", Store::Mode::kSet), store("c")}), (Sizes{2, 1}));
  EXPECT_EQ(batches_of({std::make_shared<Query>(), std::make_shared<Query>()}), (Sizes{1, 1}));
  EXPECT_EQ(batches_of({std::make_shared<Flush>(), std::make_shared<Flush>()}), (Sizes{1, 1}));
  EXPECT_EQ(batches_of({look_up("a"), look_up("b"), look_up("c")}, 2), (Sizes{2, 1}));
  EXPECT_EQ(batches_of({std::make_shared<Invalidate>("key:a", false), std::make_shared<Invalidate>("pattern:*", false),
                        std::make_shared<Invalidate>("all", true)}),
            (Sizes{2, 1}));
}

TEST(RequestQueue, ARowIsWrittenOnceByAStatement) {
  auto other_type = store("a");
  other_type->type = "u";
  EXPECT_EQ(batches_of({store("a"), store("a"), store("b"), other_type}), (std::vector<std::size_t>{3, 1}));
}

TEST(RequestQueue, EachSwapExpectsItsOwnVersion) {
  EXPECT_EQ(batches_of({store("a", Store::Mode::kSwap), store("b", Store::Mode::kSwap)}),
            (std::vector<std::size_t>{1, 1}));
}

TEST(RequestQueue, StoresWithOtherColumnsAreOnTheirOwn) {
  auto wide = store("a");
  wide->columns = {"1", "2"};
  EXPECT_EQ(batches_of({wide, store("b")}), (std::vector<std::size_t>{1, 1}));
}

TEST(RequestQueue, PollsGoOneAfterTheOther) {
  Queue q(3);
  q.occupy();
  q.server->set([&] { q.server->holds = [](const Request& r) { return r.kind == Request::Kind::kPoll; }; });
  q.call(std::make_shared<Poll>());
  q.server->await("a poll runs", [&] { return q.server->polls_inside == 1; });
  q.call(std::make_shared<Poll>());
  q.call(std::make_shared<Poll>());
  await_waiting(q.queue, 2);
  EXPECT_EQ(outcome(q.queue, look_up("a")), TierFault::kOk) << "others pass by";
  q.go_on();
  q.join();
  EXPECT_EQ(q.server->most_polls_inside, 1);
  EXPECT_EQ(q.faults, (std::vector<TierFault>(4, TierFault::kOk)));
}

// Of two that wait a worker serves both, and tells them that they are done.
TEST(RequestQueue, ACallerWithoutMemoryForTheTextOfItsEndHearsThatAndNothingElse) {
  Queue q;
  q.server->answer = [](std::span<Request* const> batch) {
    for (Request* r : batch) r->error = {TierFault::kRejected, "", std::string(200, 'x')};
  };
  int failures = 0;
  for (bool failed = true; failed && failures < 100; failures += failed) {
    q.occupy();
    std::atomic<bool> over = false;
    failed = false;
    const auto request = look_up("short of memory");
    std::thread caller([&] {
      test::allocations_left = failures;
      try {
        q.queue.run(request, kForever);
      } catch (const std::bad_alloc&) {
        failed = true;
      }
      test::allocations_left = -1;
      over = true;
    });
    q.call(look_up("beside it"));
    while (!over && q.queue.health().waiting < 2) std::this_thread::yield();
    q.go_on();
    caller.join();
    q.join();
  }
  EXPECT_GT(failures, 0);
  EXPECT_LT(failures, 100);
  EXPECT_EQ(q.queue.health().waiting, 0U);
}

}  // namespace
}  // namespace stillwarm
