// Flights: the loads that are running now, one per key, and who depends on whom.
//
// Thread rule: guarded by the cache's owner (the GIL in the extension). Only `find` may run foreign code (a key's
// __eq__). Refuses to know: how anybody waits, and what a load does.
//
// A flight is attached while it is in the table: then callers may join it and it may store its result. Detached by an
// invalidation it goes on for those who wait, and is never stored. Flights are owned by whoever runs or awaits them.
//
// Deadlock. A load that waits for its own key, also by way of other keys, would wait for ever. `dependents` of a flight
// are the loads that cannot end before it: the load inside which it was started (`parent`), and the loads that follow
// it. So load L must not wait for flight X if X depends on L.
#pragma once

#include <algorithm>
#include <vector>

#include "core/base/traits.hpp"

namespace stillwarm {

struct Flight {
  Handle key = nullptr;  // borrowed from the owner of the flight
  std::uint64_t hash = 0;
  std::uint64_t born = 0;  // the cache's counter at the start
  Nanos t0 = 0;
  std::uint64_t sequence = 0;  // order of starting, over all caches
  ScopeId scope = 0;
  bool attached = false;
  bool found_nothing = false;    // there was no entry when it started,
  std::uint64_t nothing_at = 0;  // at this generation of the memory tier
  bool background = false;
  Flight* next = nullptr;                // in the table's chain
  Flight* parent = nullptr;              // the load inside which this one runs
  std::vector<Flight*> followers_loads;  // loads that wait for this one
  mutable std::uint64_t walked = 0;      // the last walk of depends_on_itself that came by
};

// Would `load` wait for itself if it waited for `target`?
// REQUIRES: one caller at a time over all caches, since loads of different caches may depend on each other.
inline bool depends_on_itself(const Flight& load, const Flight& target) noexcept {
  // Chains are as long as loads are nested, so plain recursion. A load that gathers many others, or the same one many
  // times, is reached on many ways and walked once.
  struct Walk {
    const Flight* target;
    std::uint64_t number;
    bool from(const Flight& at) const noexcept {
      if (&at == target) return true;
      if (at.walked == number) return false;
      at.walked = number;
      if (at.parent != nullptr && from(*at.parent)) return true;
      return std::any_of(at.followers_loads.begin(), at.followers_loads.end(),
                         [this](const Flight* f) { return from(*f); });
    }
  };
  static std::uint64_t walks = 0;
  return Walk{&target, ++walks}.from(load);
}

template <class Traits>
class FlightTable {
 public:
  using Probe = typename Traits::Probe;

  std::size_t size() const noexcept { return size_; }
  std::uint64_t generation() const noexcept { return generation_; }

  // The attached flight of the key, or nullptr; `failed` tells that a comparison raised.
  Flight* find(const Probe& probe, bool& failed) const {
    failed = false;
    if (size_ == 0) return nullptr;
    for (int tries = 0; tries < kFindRestarts; ++tries) {
      const std::uint64_t generation = generation_;
      Flight* f = chains_[probe.hash & (chains_.size() - 1)];
      for (; f != nullptr; f = f->next) {
        if (f->hash != probe.hash) continue;
        const Match match = Traits::match(f->scope, f->key, probe);
        if (match == Match::kError) {
          failed = true;
          return nullptr;
        }
        if (generation != generation_) break;
        if (match == Match::kYes) return f;
      }
      if (f == nullptr) return nullptr;
    }
    Traits::never_settles(probe);
    failed = true;
    return nullptr;
  }

  // Throws std::bad_alloc, and then nothing has changed.
  void add(Flight& f) {
    if (size_ >= chains_.size()) {
      std::vector<Flight*> larger(std::max<std::size_t>(16, chains_.size() * 2));
      for (Flight* chain : chains_) {
        while (chain != nullptr) {
          Flight* next = chain->next;
          push(larger, *chain);
          chain = next;
        }
      }
      chains_ = std::move(larger);
    }
    push(chains_, f);
    f.attached = true;
    ++size_;
    ++generation_;
  }

  void remove(Flight& f) noexcept {
    if (!f.attached) return;
    Flight** link = &chains_[f.hash & (chains_.size() - 1)];
    while (*link != &f) link = &(*link)->next;
    *link = f.next;
    f.next = nullptr;
    f.attached = false;
    --size_;
    ++generation_;
  }

  // Calls f(flight) for every attached flight; it may remove that flight.
  template <class F>
  void each(F&& f) {
    for (Flight* chain : chains_) {
      while (chain != nullptr) {
        Flight* next = chain->next;
        f(*chain);
        chain = next;
      }
    }
  }

 private:
  static void push(std::vector<Flight*>& chains, Flight& f) noexcept {
    Flight*& head = chains[f.hash & (chains.size() - 1)];
    f.next = head;
    head = &f;
  }

  std::vector<Flight*> chains_;
  std::size_t size_ = 0;
  std::uint64_t generation_ = 0;
};

}  // namespace stillwarm
