// What the eviction policy costs: a hit, and an insert with the eviction that it causes, at several sizes.
//
// Prints the median and the spread of rounds, in nanoseconds. `--quick` runs one small size.
//
// Thread rule: one thread. Refuses to know: keys, values, hit ratios (replay.cpp).
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "core/memory/policy.hpp"

namespace {

using namespace stillwarm;

struct Cost {
  double median;
  double least;
  double most;
};

template <class F>
Cost measure(std::size_t operations, F&& round) {
  std::vector<double> ns;
  for (int n = 0; n < 9; ++n) {
    const auto start = std::chrono::steady_clock::now();
    round();
    const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
    ns.push_back(took.count() / static_cast<double>(operations));
  }
  std::sort(ns.begin(), ns.end());
  return {ns[ns.size() / 2], ns.front(), ns.back()};
}

void print(const char* what, std::uint64_t entries, const Cost& c) {
  std::printf("%-34s %9llu entries %8.1f ns  (%.1f to %.1f)\n", what, static_cast<unsigned long long>(entries),
              c.median, c.least, c.most);
}

void bench(std::uint64_t capacity, bool bytes, std::size_t operations) {
  Slab slab;
  constexpr std::uint32_t kWeight = 1000;
  Policy policy(slab, bytes ? Limits{0, capacity * kWeight} : Limits{capacity, 0}, 42);
  std::mt19937_64 random(7);
  std::vector<Index> live;
  const auto insert = [&](std::uint64_t hash) {
    policy.reserve_for_insert();
    const Index i = slab.allocate();
    slab[i].hash = hash;
    slab[i].weight = bytes ? static_cast<std::uint32_t>(hash >> 40) % (2 * kWeight) : 1;
    policy.on_insert(i);
    for (Index out = policy.victim(); out != kNone; out = policy.victim()) {
      policy.on_remove(out);
      slab.free(out);
    }
    return i;
  };
  for (std::uint64_t n = 0; n < 3 * capacity; ++n) insert(random());
  constexpr std::size_t kHot = 512;
  std::vector<Index> order;
  for (Index i = 1; i < slab.end(); ++i) {
    if (slab[i].queue != Queue{}) order.push_back(i);
  }
  std::shuffle(order.begin(), order.end(), random);
  order.resize(kHot);

  if (!bytes) {
    print("on_hit, 512 hot entries", capacity, measure(operations, [&] {
            for (std::size_t n = 0; n < operations; ++n) Policy::on_hit(slab[order[n & (kHot - 1)]]);
          }));
  }
  print(bytes ? "insert + evict, bytes, scan" : "insert + evict, scan", capacity, measure(operations, [&] {
          for (std::size_t n = 0; n < operations; ++n) insert(random());
        }));
  // Two hits on random entries for each insert, so that the lists have something to do. The time is that of all three,
  // cache misses of the hits included.
  std::vector<std::uint64_t> hashes(capacity * 2);
  for (std::uint64_t& h : hashes) h = random();
  print(bytes ? "2 hits + insert + evict, bytes" : "2 hits + insert + evict", capacity, measure(operations, [&] {
          for (std::size_t n = 0; n < operations; ++n) {
            for (int hit = 0; hit < 2; ++hit) {
              const Index i = static_cast<Index>(random() % slab.end());
              if (i != kNone && slab[i].queue != Queue{}) Policy::on_hit(slab[i]);
            }
            insert(hashes[random() % hashes.size()]);
          }
        }));
  std::printf("%-34s %9llu entries %8.2f bytes an entry\n", "policy's own memory",
              static_cast<unsigned long long>(capacity),
              static_cast<double>(policy.allocated_bytes()) / static_cast<double>(policy.entries()));
}

}  // namespace

int main(int argc, char** argv) {
  const bool quick = argc > 1 && std::strcmp(argv[1], "--quick") == 0;
  for (const bool bytes : {false, true}) {
    for (const std::uint64_t capacity : {1'000u, 10'000u, 100'000u, 1'000'000u}) {
      bench(capacity, bytes, quick ? 10'000 : 200'000);
      if (quick) break;
    }
  }
}
