// What the tests of the core share: counted keys and values, Traits with a hook for foreign code, a cache that owns its
// handles the way the bindings do, and an allocator that fails on demand.
//
// Thread rule: guarded by the test's own lock, the countdown of allocations excepted: each thread has its own.
// Refuses to know: what any test wants to show.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <utility>
#include <vector>

#include "core/flow.hpp"

namespace stillwarm::test {

inline constexpr Nanos kDay = 86'400 * kSecond;
inline constexpr Nanos kStart = 1'000 * kSecond;  // tests begin here, so that "before" exists

// ---- allocations that fail (support.cpp replaces operator new)

// Below 0: none fails. At n >= 0 the allocation after n others throws, and so does every later one.
extern thread_local std::int64_t allocations_left;

// Runs `operation` with the first, then the second ... allocation failing, until it gets through. Each failure is
// followed by `after`. Returns how many allocations were made to fail.
template <class Operation, class After>
int with_failing_allocations(Operation&& operation, After&& after) {
  for (int n = 0; n < 1000; ++n) {
    allocations_left = n;
    try {
      operation();
      allocations_left = -1;
      return n;
    } catch (const std::bad_alloc&) {
      allocations_left = -1;
      after();
    }
  }
  ADD_FAILURE() << "never got through";
  return -1;
}

// ---- keys and values

// An object with counted owners. A Handle is a pointer to one.
class Item {
 public:
  static Item* make(std::uint64_t id) { return new Item(id); }
  // Outside the counted allocator: what a test needs to ask a question never fails.
  static void* operator new(std::size_t size) { return std::malloc(size); }
  static void operator delete(void* p) noexcept { std::free(p); }
  static std::int64_t alive() noexcept { return alive_; }
  static Item* of(Handle h) noexcept { return static_cast<Item*>(h); }

  std::uint64_t id() const noexcept { return id_; }
  void retain() noexcept { ++owners_; }
  void release() noexcept {
    ASSERT_GT(owners_, 0) << "released once too often: " << id_;
    if (--owners_ == 0) delete this;
  }

 private:
  explicit Item(std::uint64_t id) noexcept : id_(id) { ++alive_; }
  ~Item() { --alive_; }

  static inline std::int64_t alive_ = 0;
  std::uint64_t id_;
  int owners_ = 1;
};

struct Probe {
  std::uint64_t hash = 0;
  ScopeId scope = 0;
  std::uint64_t id = 0;
  const ScopeTable* shared = nullptr;
};

struct Traits {
  using Probe = test::Probe;

  static inline std::function<void()> foreign;  // what a key's __eq__ does; it does not run inside itself
  static inline bool raises = false;            // the comparison ends with an error
  static inline int compared = 0;
  static inline int unsettled = 0;

  static void reset() {
    foreign = nullptr;
    raises = false;
    compared = unsettled = 0;
  }

  // Foreign code for the next comparison only.
  static void once(std::function<void()> f) {
    foreign = [f = std::move(f)] {
      const std::function<void()> run = f;
      foreign = nullptr;
      run();
    };
  }

  static Match match(ScopeId scope, Handle stored, const Probe& probe) {
    ++compared;
    if (scope != probe.scope &&
        (probe.shared == nullptr || (*probe.shared)[scope].key_scope != (*probe.shared)[probe.scope].key_scope)) {
      return Match::kNo;
    }
    Item* key = Item::of(stored);
    key->retain();  // the entry may go while foreign code runs
    if (foreign && !inside_) {
      inside_ = true;
      const std::function<void()> run = foreign;
      run();
      inside_ = false;
    }
    const bool same = key->id() == probe.id;
    key->release();
    if (raises) return Match::kError;
    return same ? Match::kYes : Match::kNo;
  }
  static void never_settles(const Probe&) { ++unsettled; }

 private:
  static inline bool inside_ = false;
};

inline std::uint64_t scramble(std::uint64_t x) noexcept {
  x = (x ^ x >> 31) * 0x7fb5d329728ea185ULL;
  x = (x ^ x >> 27) * 0x81dadef4bc2dd44dULL;
  return x ^ x >> 33;
}

inline std::uint64_t one_hash(std::uint64_t) noexcept { return std::uint64_t{9} << 32; }

inline constexpr std::uint64_t kId = 1;         // of a key, where a test needs no other
inline constexpr std::size_t kAny = 1'000'000;  // as many as there are

// ---- a cache as the bindings use it

// One load: a flight and the reference to its key.
struct Load {
  Flow<Traits>* flow;
  Flight flight;
  Item* key;
  Load(Flow<Traits>& in, const Probe& probe) : flow(&in), key(Item::make(probe.id)) {
    flight.key = key;
    flight.hash = probe.hash;
    flight.scope = probe.scope;
  }
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;
  ~Load() {
    flow->finish(flight);
    key->release();
  }
};

class Cache {
 public:
  using Hash = std::function<std::uint64_t(std::uint64_t)>;

  explicit Cache(Limits limits = {1000, 0}, Hash hash = scramble)
      : flow(limits, 42, kStart), hash_(std::move(hash)), alive_before_(Item::alive()) {
    Traits::reset();
    defaults.ttl = 100 * kSecond;
  }
  Cache(const Cache&) = delete;
  Cache& operator=(const Cache&) = delete;
  ~Cache() {
    Traits::reset();
    EXPECT_TRUE(flow.check_invariants());
    flow.memory().each([this](Index i) { flow.memory().drop(i, Cause::kInvalidated); });
    release_dead();
    for (ScopeId s = 0; s < flow.scopes().size(); ++s) {
      EXPECT_EQ(flow.scopes()[s].stats.entries, 0u) << "scope " << s;
      EXPECT_EQ(flow.scopes()[s].stats.bytes, 0u) << "scope " << s;
    }
    EXPECT_EQ(Item::alive(), alive_before_) << "owners were lost";
  }

  Probe probe(std::uint64_t id, ScopeId scope = 0) {
    return {hash_(id) ^ (std::uint64_t{flow.scopes()[scope].key_scope} << 20), scope, id,
            flow.scopes()[scope].shares ? &flow.scopes() : nullptr};
  }

  ScopeId add_scope(TypeId type, const Durations& durations) {
    Scope& scope = flow.scopes().add(type, "scope", 0);
    scope.durations = durations;
    return scope.id;
  }

  Result result(Item* value) const {
    Result r;
    r.value = value;
    r.weight = weight;
    r.durations = defaults;
    r.tags = tags;
    r.own_durations = own_durations;
    r.random = random;
    return r;
  }

  Decision look(std::uint64_t id, ScopeId scope = 0) {
    const Decision d = flow.look(probe(id, scope), now);
    release_dead();
    return d;
  }

  std::unique_ptr<Load> lead(std::uint64_t id, ScopeId scope = 0, bool background = false) {
    auto load = std::make_unique<Load>(flow, probe(id, scope));
    load->flight.background = background;
    flow.lead(load->flight, now, true);
    return load;
  }

  Stored commit(Load& load, std::uint64_t value, bool negative = false) {
    const std::vector<std::uint64_t> own_tags = tags;  // a comparison may change what is stored next
    Item* item = Item::make(value);
    Result r = result(item);
    r.negative = negative;
    r.tags = own_tags;
    return store(item, load.key, [&](bool& took) {
      return flow.commit(load.flight, probe(load.key->id(), load.flight.scope), r, took, now);
    });
  }

  Stored set(std::uint64_t id, std::uint64_t value, ScopeId scope = 0) {
    const std::vector<std::uint64_t> own_tags = tags;
    Item* item = Item::make(value);
    Item* key = Item::make(id);
    Result r = result(item);
    r.tags = own_tags;
    struct Release {
      Item* key;
      ~Release() { key->release(); }
    } release{key};
    return store(item, key, [&](bool& took) { return flow.set(probe(id, scope), key, r, took, now); });
  }

  Failure fail(Load& load, ErrorKind kind) {
    const Failure f = flow.fail(load.flight, probe(load.key->id(), load.flight.scope), kind, random, now);
    release_dead();
    return f;
  }

  bool invalidate(std::uint64_t id, bool soft = false, ScopeId scope = 0) {
    const bool there = flow.invalidate_key(probe(id, scope), soft, now);
    release_dead();
    return there;
  }

  // What is stored, whatever its state; nothing is judged or counted.
  Index at(std::uint64_t id, ScopeId scope = 0) { return flow.memory().find(probe(id, scope)); }
  const Entry& entry(std::uint64_t id, ScopeId scope = 0) { return flow.memory()[at(id, scope)]; }

  std::uint64_t value_at(Index i) { return Item::of(flow.memory()[i].value)->id(); }

  // The state that a look finds, kGone if nothing is there.
  State state(std::uint64_t id, ScopeId scope = 0) {
    const Decision d = flow.look(probe(id, scope), now, false);
    release_dead();
    return d.state;
  }

  void settle() {
    flow.settle(now);
    release_dead();
  }

  void release_dead() {
    while (flow.memory().has_dead()) {
      const Dead dead = flow.memory().take_dead();
      if (dead.key != nullptr) Item::of(dead.key)->release();  // else it went to those who count hits
      Item::of(dead.value)->release();
    }
  }

  Stats& stats(ScopeId scope = 0) { return flow.scopes()[scope].stats; }

  Flow<Traits> flow;
  Nanos now = kStart;
  Durations defaults;  // of what is stored next
  bool own_durations = true;
  double random = 0;
  std::uint64_t weight = 1;
  std::vector<std::uint64_t> tags;

 private:
  // `key` and `value` are the caller's; the flow is offered a reference to each.
  template <class Put>
  Stored store(Item* value, Item* key, Put&& put) {
    bool took_key = false;
    Outcome outcome;
    key->retain();
    try {
      outcome = put(took_key);
    } catch (...) {
      key->release();
      value->release();
      release_dead();
      throw;
    }
    if (!took_key) key->release();
    if (outcome.stored != Stored::kStored) value->release();
    if (outcome.released != nullptr) Item::of(outcome.released)->release();
    release_dead();
    return outcome.stored;
  }

  Hash hash_;
  std::int64_t alive_before_;
};

// A cache with one entry of 100 s of which 80 fresh, stale to 120, failsafe to 150.
struct Timed : Cache {
  Timed() {
    defaults = {100 * kSecond, 20 * kSecond, 50 * kSecond, 7 * kSecond, 0.8, 0};
    flow.scopes()[0].durations = defaults;
    set(kId, 10);
  }
  Decision look_at(Nanos offset) {
    now = kStart + offset;
    return look(kId);
  }
};

}  // namespace stillwarm::test
