// Replays a trace through the real Policy and prints how many requests were hits.
//
//   replay TRACE [--weights FILE] SIZE...
//
// TRACE is little-endian uint32, one dense key id per request. SIZE is a number of entries, or with --weights a number
// of bytes; FILE has one uint32 per key id. Prints a line for each size: size, hits, requests, bytes hit, bytes asked
// for, nanoseconds per request, and the window's share at the end.
//
// Thread rule: one thread. Refuses to know: rivals, which run.py replays, and values.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "core/memory/policy.hpp"

namespace {

using namespace stillwarm;

std::vector<std::uint32_t> read(const char* path) {
  std::ifstream in(path, std::ios::binary);
  const std::vector<char> raw((std::istreambuf_iterator<char>(in)), {});
  if (!in && raw.empty()) {
    std::fprintf(stderr, "replay: cannot read %s\n", path);
    std::exit(1);
  }
  std::vector<std::uint32_t> out(raw.size() / 4);
  std::memcpy(out.data(), raw.data(), out.size() * 4);
  return out;
}

std::uint64_t scramble(std::uint64_t key) {
  key = (key ^ key >> 31) * 0x7fb5d329728ea185ULL;
  key = (key ^ key >> 27) * 0x81dadef4bc2dd44dULL;
  return key ^ key >> 33;
}

void replay(const std::vector<std::uint32_t>& trace, const std::vector<std::uint32_t>& weights, Limits limits) {
  Slab slab;
  Policy policy(slab, limits, 0x9d2c5680);
  std::uint32_t keys = 0;
  for (const std::uint32_t key : trace) keys = std::max(keys, key + 1);
  std::vector<Index> resident(keys, kNone);
  const auto weight_of = [&](std::uint32_t key) { return weights.empty() ? 1u : weights.at(key); };
  std::uint64_t hits = 0;
  std::uint64_t bytes_hit = 0;
  std::uint64_t bytes = 0;
  const auto start = std::chrono::steady_clock::now();
  for (const std::uint32_t key : trace) {
    const std::uint32_t weight = weight_of(key);
    bytes += weight;
    if (const Index found = resident[key]; found != kNone) {
      Policy::on_hit(slab[found]);
      ++hits;
      bytes_hit += weight;
      continue;
    }
    const std::uint64_t hash = scramble(key);
    policy.reserve_for_insert();
    const Index i = slab.allocate();
    Entry& e = slab[i];
    e.hash = hash;
    e.born = key;
    e.weight = weight;
    resident[key] = i;
    policy.on_insert(i);
    for (Index out = policy.victim(); out != kNone; out = policy.victim()) {
      resident[slab[out].born] = kNone;
      policy.on_remove(out);
      slab.free(out);
    }
  }
  const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
  std::printf("%llu %llu %zu %llu %llu %.1f %.3f\n",
              static_cast<unsigned long long>(limits.max_bytes != 0 ? limits.max_bytes : limits.max_entries),
              static_cast<unsigned long long>(hits), trace.size(), static_cast<unsigned long long>(bytes_hit),
              static_cast<unsigned long long>(bytes), took.count() / static_cast<double>(trace.size()),
              policy.window_share());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: replay TRACE [--weights FILE] SIZE...\n");
    return 2;
  }
  const std::vector<std::uint32_t> trace = read(argv[1]);
  std::vector<std::uint32_t> weights;
  for (int a = 2; a < argc; ++a) {
    if (std::string(argv[a]) == "--weights" && a + 1 < argc) {
      weights = read(argv[++a]);
      continue;
    }
    const std::uint64_t size = std::strtoull(argv[a], nullptr, 10);
    replay(trace, weights, weights.empty() ? Limits{size, 0} : Limits{0, size});
  }
}
