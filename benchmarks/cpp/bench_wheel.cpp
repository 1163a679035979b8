// What the timing wheel costs: schedule, cancel, expire, and an advance that finds nothing.
//
// Prints the median and the spread of rounds, in nanoseconds. `--quick` runs one small size.
//
// Thread rule: one thread. Refuses to know: what an entry is for.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "core/memory/timer_wheel.hpp"

namespace {

using namespace stillwarm;

constexpr Nanos kSecond = 1'000'000'000;

class Rounds {
 public:
  template <class F>
  void add(std::size_t operations, F&& round) {
    const auto start = std::chrono::steady_clock::now();
    round();
    const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
    ns_.push_back(took.count() / static_cast<double>(operations));
  }
  void print(const char* what, std::size_t entries) {
    std::sort(ns_.begin(), ns_.end());
    std::printf("%-34s %9zu entries %8.1f ns  (%.1f to %.1f)\n", what, entries, ns_[ns_.size() / 2], ns_.front(),
                ns_.back());
  }

 private:
  std::vector<double> ns_;
};

void bench(std::size_t entries) {
  Slab slab;
  std::mt19937_64 random(3);
  std::vector<Index> all;
  std::vector<Nanos> deadline(entries + 1024);
  for (std::size_t n = 0; n < entries; ++n) all.push_back(slab.allocate());
  Nanos now = kSecond;
  TimerWheel wheel(slab, now);
  const auto draw = [&] {
    for (const Index i : all) deadline[i] = now + static_cast<Nanos>(random() % (600 * kSecond));
  };
  Rounds schedule;
  Rounds cancel;
  Rounds expire;
  Rounds same;
  Rounds idle;
  std::uint64_t expired = 0;
  std::uint32_t worked = 0;
  const auto deadline_of = [&](Index i) { return deadline[i]; };
  for (int round = 0; round < 9; ++round) {
    draw();
    schedule.add(entries, [&] {
      for (const Index i : all) wheel.schedule(i, deadline[i]);
    });
    std::shuffle(all.begin(), all.end(), random);
    cancel.add(entries, [&] {
      for (const Index i : all) wheel.cancel(i);
    });
    for (const Index i : all) wheel.schedule(i, deadline[i]);
    // Ten minutes pass in steps of 10 ms, each with a small budget, as writes do it.
    expire.add(entries, [&] {
      while (wheel.scheduled() != 0) {
        now += 10'000'000;
        while (wheel.advance(now, 64, deadline_of, [&](Index) { ++expired; }) == 64) {
        }
      }
    });
    for (const Index i : all) wheel.schedule(i, deadline[i] = now + kSecond);
    now += 2 * kSecond;
    same.add(entries, [&] {
      while (wheel.advance(now, 64, deadline_of, [&](Index) { ++expired; }) == 64) {
      }
    });
    for (const Index i : all) wheel.schedule(i, deadline[i] = now + 86'400 * kSecond);
    idle.add(100'000, [&] {
      for (int n = 0; n < 100'000; ++n) worked += wheel.advance(now += 1'000'000, 64, deadline_of, [](Index) {});
    });
    for (const Index i : all) wheel.cancel(i);
  }
  schedule.print("schedule, within 10 minutes", entries);
  cancel.print("cancel, random order", entries);
  expire.print("expire, spread over 10 minutes", entries);
  same.print("expire, all in the same second", entries);
  idle.print("advance by 1 ms, nothing due", entries);
  if (expired == 0) std::printf("nothing expired, %u\n", worked);
}

}  // namespace

int main(int argc, char** argv) {
  const bool quick = argc > 1 && std::strcmp(argv[1], "--quick") == 0;
  for (const std::size_t entries : {std::size_t{10'000}, std::size_t{1'000'000}}) {
    bench(entries);
    if (quick) break;
  }
}
