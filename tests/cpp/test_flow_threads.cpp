// Several threads use one flow, a mutex standing in for the interpreter's lock: what the thread sanitizer looks at, and
// no value that was loaded before an invalidation comes back after it.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <barrier>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "core/flow.hpp"
#include "support.hpp"

namespace stillwarm {
namespace {

using test::Cache;

TEST(FlowThreads, NoResurrectionAndOneLoadPerKey) {
  constexpr std::uint64_t kKeys = 8;
  constexpr int kThreads = 4, kRounds = 3'000;
  Cache cache({6, 0});
  std::mutex lock;
  std::array<std::atomic<std::uint64_t>, kKeys> source{};       // what a load reads
  std::array<std::atomic<std::uint64_t>, kKeys> invalidated{};  // nothing older may be returned
  std::array<int, kKeys> attached{};                            // under the lock
  std::atomic<int> resurrected{0}, doubled{0}, loads{0};
  std::barrier start(kThreads);

  const auto write = [&](std::uint64_t key) {
    const std::uint64_t version = ++source[key];
    {
      const std::lock_guard held(lock);
      cache.invalidate(key);
      attached[key] = 0;  // whatever runs is detached
    }
    std::uint64_t seen = invalidated[key].load();
    while (seen < version && !invalidated[key].compare_exchange_weak(seen, version)) {
    }
  };
  const auto read = [&](std::uint64_t key) {
    const std::uint64_t floor = invalidated[key].load();
    std::unique_lock held(lock);
    const Decision d = cache.look(key);
    if (d.step == Step::kReturn) {
      if (cache.value_at(d.entry) < floor) ++resurrected;
      return;
    }
    if (d.step != Step::kLead) return;
    auto load = cache.lead(key);
    if (++attached[key] > 1) ++doubled;
    held.unlock();
    const std::uint64_t version = source[key].load();
    std::this_thread::yield();
    held.lock();
    if (load->flight.attached) --attached[key];
    cache.commit(*load, version);
    load.reset();
    ++loads;
  };

  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(static_cast<std::uint64_t>(61 + t));
      start.arrive_and_wait();
      for (int n = 0; n < kRounds; ++n) {
        const std::uint64_t key = random() % kKeys;
        random() % 8 == 0 ? write(key) : read(key);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(resurrected.load(), 0);
  EXPECT_EQ(doubled.load(), 0);
  EXPECT_GT(loads.load(), 0);
  EXPECT_EQ(cache.flow.flights().size(), 0u);
}

}  // namespace
}  // namespace stillwarm
