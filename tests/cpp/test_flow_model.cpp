// Random schedules against a model: loads in several steps interleaved with every form of invalidation, sets, failures
// and a moved clock; also from inside comparisons. What is checked is what is promised:
//   - no resurrection: nothing is returned, joined or stored that began before an invalidation that concerns it
//   - at most one attached flight per key
//   - stale values within their limits, soft invalidations included; what is kept longer is only offered to loads
//   - the limits of entries and bytes
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <random>
#include <unordered_map>

#include "core/flow.hpp"
#include "support.hpp"

namespace stillwarm {
namespace {

using test::Cache;
using test::Traits;

constexpr Limits kLimits{60, 1'500};

class Schedule {
 public:
  Schedule(std::uint64_t seed, bool reentrant)
      : reentrant_(reentrant),
        keys_of_(reentrant ? 12 : 60),
        cache_(kLimits, reentrant ? [](std::uint64_t id) { return (id % 3) << 32; } : Cache::Hash(test::scramble)),
        random_(seed) {
    cache_.flow.scopes()[0].durations = {10 * kSecond, 5 * kSecond, 12 * kSecond, 2 * kSecond, 0.5, 0, 15 * kSecond};
    cache_.add_scope(1, {20 * kSecond, 8 * kSecond, 0, 0, kEarlyAuto, 0.3, 30 * kSecond});
    cache_.add_scope(1, {kForever, 6 * kSecond, 9 * kSecond, 3 * kSecond, 0, 0});
  }

  void run(int steps) {
    for (int n = 0; n < steps && !testing::Test::HasFailure(); ++n) {
      if (reentrant_) {
        Traits::foreign = [this] {
          if (chance(4)) act(true);
        };
      }
      act(false);
      Traits::foreign = nullptr;
      check(n);
    }
    EXPECT_GT(returned_, steps / 20) << "the schedule has to exercise something";
    EXPECT_GT(stored_, steps / 50);
    EXPECT_GT(offered_, reentrant_ ? 0 : steps / 1'000);
  }

 private:
  struct Key {
    std::uint64_t floor = 0;                            // event of the last hard invalidation
    std::vector<std::pair<std::uint64_t, Nanos>> soft;  // event and moment of soft ones
  };
  struct Value {
    Key* key;
    std::uint64_t stamp;  // event at which its load or set began
    Nanos committed = 0;
    Durations durations{};
  };
  struct Running {
    std::unique_ptr<test::Load> load;
    std::uint64_t stamp;
    bool busy = false;
  };
  struct Name {
    ScopeId scope;
    std::uint64_t id;
    auto operator<=>(const Name&) const = default;  // NOLINT(modernize-use-nullptr): of clang 14, about its own code
  };

  bool chance(std::uint64_t one_in) { return random_() % one_in == 0; }
  Name any() { return {static_cast<ScopeId>(random_() % 3), random_() % (chance(3) ? keys_of_ : 5)}; }
  static std::vector<std::uint64_t> tags_of(std::uint64_t id) {
    return id % 4 == 3 ? std::vector<std::uint64_t>{} : std::vector<std::uint64_t>{100 + id % 3};
  }

  void act(bool nested) {
    switch (random_() % 40) {
      case 0:
      case 1:
        return set();
      case 2:
        return invalidate();
      case 5:
      case 6:
      case 7:
      case 8:
      case 9:
      case 10:
      case 11:
      case 12:
      case 13:
      case 14:
        return finish();
      case 3:
      case 4:
      case 15:
      case 16:
      case 17:
        if (!nested) cache_.now += static_cast<Nanos>(random_() % (chance(16) ? 30 * kSecond : kSecond / 2));
        return;
      case 18:
        return cache_.settle();
      default:
        return get();
    }
  }

  // A value that was handed out for a call that began when the key's floor was `floor`.
  void judge(std::uint64_t value, std::uint64_t floor, const std::vector<std::pair<std::uint64_t, Nanos>>& soft,
             State state) {
    const Value& v = values_.at(value);
    ++returned_;
    ASSERT_GE(v.stamp, floor) << "resurrected";
    Nanos fresh = add(v.committed, v.durations.ttl);
    for (const auto& [event, at] : soft) {
      if (event > v.stamp) fresh = std::min(fresh, at);
    }
    const Durations& d = v.durations;
    const Nanos gone = add(fresh, std::max(d.stale_while_revalidate, d.stale_if_error));
    const Nanos limit = state <= State::kEarly   ? fresh
                        : state == State::kStale ? add(fresh, d.stale_while_revalidate)
                        : state == State::kKept  ? add(gone, d.keep)
                                                 : gone;
    ASSERT_LT(cache_.now, limit) << "state " << static_cast<int>(state);
  }

  void get() {
    const Name name = any();
    Key& key = keys_[name];
    const std::uint64_t floor = key.floor;
    const auto soft = key.soft;
    const Decision d = cache_.look(name.id, name.scope);
    if (d.entry != kNone && d.step != Step::kAbsent) judge(cache_.value_at(d.entry), floor, soft, d.state);
    if (d.step == Step::kLead || d.step == Step::kRefresh) {
      const bool nothing = d.nothing();
      const bool kept = d.state == State::kKept;
      running_.push_back({cache_.lead(name.id, name.scope, d.step == Step::kRefresh), ++event_});
      running_.back().load->flight.found_nothing = nothing;
      if (kept) offer(name);
    } else if (d.step == Step::kFollow) {
      const auto it =
          std::find_if(running_.begin(), running_.end(), [&](const Running& r) { return &r.load->flight == d.flight; });
      ASSERT_NE(it, running_.end());
      ASSERT_GT(it->stamp, floor) << "joined a load that is older than an invalidation";
    }
  }

  // What a load that found it KEPT may revive.
  void offer(const Name& name) {
    const Key& key = keys_[name];
    const std::uint64_t floor = key.floor;
    const auto soft = key.soft;
    const Index i = cache_.flow.revivable(cache_.probe(name.id, name.scope), cache_.now);
    cache_.release_dead();
    if (!is_entry(i)) return;
    judge(cache_.value_at(i), floor, soft, State::kKept);
    ++offered_;
  }

  std::uint64_t prepare(const Name& name, std::uint64_t stamp) {
    const bool own = chance(4);
    cache_.defaults = cache_.flow.scopes()[name.scope].durations;
    if (own) cache_.defaults = {4 * kSecond, 2 * kSecond, 9 * kSecond, kSecond, 0, 0, 5 * kSecond};
    cache_.own_durations = own;
    cache_.random = static_cast<double>(random_() % 100) / 100;
    cache_.weight = chance(20) ? random_() % 500 : random_() % 60 + 1;
    cache_.tags = tags_of(name.id);
    values_[++value_] = {&keys_[name], stamp, cache_.now, cache_.defaults};
    return value_;
  }

  void set() {
    const Name name = any();
    Key& key = keys_[name];
    const std::uint64_t event = ++event_;
    const std::uint64_t value = prepare(name, event);
    if (cache_.set(name.id, value, name.scope) == Stored::kStored) ++stored_;
    values_.at(value).stamp = ++event_;  // what came in between came before it
    key.floor = std::max(key.floor, event);
  }

  void finish() {
    std::vector<std::size_t> free;
    for (std::size_t i = 0; i < running_.size(); ++i) {
      if (!running_[i].busy) free.push_back(i);
    }
    if (free.empty()) return;
    Running& chosen = running_[free[random_() % free.size()]];
    chosen.busy = true;
    test::Load* load = chosen.load.get();
    const std::uint64_t stamp = chosen.stamp;
    const Name name{load->flight.scope, load->key->id()};
    Key& key = keys_[name];
    const std::uint64_t floor = key.floor;
    const auto soft = key.soft;
    if (chance(5)) {
      const auto kind = static_cast<ErrorKind>(random_() % 3);
      const Failure f = cache_.fail(*load, kind);
      if (f.entry != kNone) judge(cache_.value_at(f.entry), floor, soft, State::kFailsafe);
    } else {
      const Stored stored = cache_.commit(*load, prepare(name, stamp), chance(10));
      if (stored == Stored::kStored) {
        ++stored_;
        ASSERT_GT(stamp, floor) << "stored, though it is older than an invalidation";
      }
    }
    std::erase_if(running_, [load](const Running& r) { return r.load.get() == load; });
  }

  // What concerns a key is true for calls that begin after it returned, and for loads that began before it was called.
  void note(std::uint64_t event, bool soft, const std::function<bool(const Name&)>& concerns) {
    for (ScopeId scope = 0; scope < 3; ++scope) {
      for (std::uint64_t id = 0; id < keys_of_; ++id) {
        if (!concerns(Name{scope, id})) continue;
        Key& key = keys_[{scope, id}];
        if (soft) {
          key.soft.emplace_back(event, cache_.now);
        } else {
          key.floor = std::max(key.floor, event);
        }
      }
    }
  }

  void invalidate() {
    auto& flow = cache_.flow;
    const Name name = any();
    const std::uint64_t event = ++event_;
    bool soft = chance(2);
    std::function<bool(const Name&)> concerns;
    switch (random_() % (chance(4) ? 9 : 4)) {
      case 0:
      case 1:
        concerns = [&](const Name& n) { return n == name; };
        cache_.invalidate(name.id, soft, name.scope);
        break;
      case 2:
      case 3: {
        const std::uint64_t tag = 100 + random_() % 3;
        concerns = [tag](const Name& n) { return n.id % 4 != 3 && 100 + n.id % 3 == tag; };
        flow.invalidate_tag(tag, soft, cache_.now);
        break;
      }
      case 4:
        concerns = [&](const Name& n) { return (n.scope != 0) == (name.scope != 0); };
        flow.invalidate_type(name.scope != 0 ? 1 : 0, soft, cache_.now);
        break;
      case 5:
        concerns = [&](const Name& n) { return n.scope == name.scope; };
        flow.invalidate_scope(name.scope, soft, cache_.now);
        break;
      case 6: {  // a pattern: ids of one parity
        concerns = [&](const Name& n) { return n.id % 2 == name.id % 2; };
        flow.fence_pattern();
        std::vector<Index> found;
        flow.memory().each([&](Index i) {
          const auto& e = flow.memory()[i];
          if (concerns({e.scope, test::Item::of(e.key)->id()})) found.push_back(i);
        });
        for (const Index i : found) flow.invalidate_entry(i, soft, cache_.now);
        break;
      }
      case 7:
        concerns = [](const Name&) { return true; };
        flow.invalidate_all(soft, cache_.now);
        break;
      default:
        soft = false;
        concerns = [&](const Name& n) { return n.scope == name.scope; };
        flow.clear(name.scope);
    }
    cache_.release_dead();
    note(event, soft, concerns);
  }

  void check(int step) {
    const auto& memory = cache_.flow.memory();
    ASSERT_LE(memory.size(), kLimits.max_entries);
    ASSERT_LE(memory.bytes(), kLimits.max_bytes);
    std::map<Name, int> attached;
    for (const Running& r : running_) {
      if (r.load->flight.attached) ++attached[{r.load->flight.scope, r.load->key->id()}];
    }
    std::size_t all = 0;
    for (const auto& [name, count] : attached) {
      ASSERT_EQ(count, 1) << "scope " << name.scope << " key " << name.id;
      ++all;
    }
    ASSERT_EQ(cache_.flow.flights().size(), all);
    ASSERT_TRUE(step % 128 != 0 || cache_.flow.check_invariants());
  }

  bool reentrant_;
  std::uint64_t keys_of_;
  Cache cache_;
  std::mt19937_64 random_;
  std::uint64_t event_ = 0;
  std::uint64_t value_ = 0;
  int returned_ = 0;
  int stored_ = 0;
  int offered_ = 0;
  std::map<Name, Key> keys_;
  std::unordered_map<std::uint64_t, Value> values_;
  std::vector<Running> running_;
};

TEST(FlowModel, KeepsItsPromisesOnRandomSchedules) {
  for (std::uint64_t seed = 1; seed <= 20 && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Schedule(seed, false).run(4'000);
  }
}

TEST(FlowModel, KeepsThemWhenComparisonsUseTheCache) {
  for (std::uint64_t seed = 1; seed <= 20 && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Schedule(seed, true).run(3'000);
  }
}

}  // namespace
}  // namespace stillwarm
