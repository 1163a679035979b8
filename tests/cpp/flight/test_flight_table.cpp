// Flights: who is found, what a comparison may do meanwhile, failing memory, and who waits for whom.
#include "core/flight/flight_table.hpp"

#include <gtest/gtest.h>

#include <array>
#include <deque>
#include <memory>
#include <random>
#include <unordered_map>

#include "support.hpp"

namespace stillwarm {
namespace {

using test::Item;
using test::Traits;

// Flights with keys of their own. Every `same` keys share a hash.
class Flights {
 public:
  explicit Flights(std::uint64_t same = 1) : same_(same) { Traits::reset(); }
  ~Flights() {
    Traits::reset();
    for (auto& [id, f] : all_) Item::of(f.key)->release();
  }

  test::Probe probe(std::uint64_t id) const { return {test::scramble(id / same_), 0, id, nullptr}; }
  Flight& make(std::uint64_t id) {
    Flight& f = all_[id];
    if (f.key == nullptr) f.key = Item::make(id);
    f.hash = probe(id).hash;
    return f;
  }
  Flight& add(std::uint64_t id) {
    Flight& f = make(id);
    table.add(f);
    return f;
  }
  Flight* find(std::uint64_t id) { return table.find(probe(id), failed); }

  FlightTable<Traits> table;
  bool failed = false;

 private:
  std::uint64_t same_;
  std::unordered_map<std::uint64_t, Flight> all_;
};

TEST(FlightTable, FindsWhatIsAttachedAndNothingElse) {
  Flights flights;
  EXPECT_EQ(flights.find(1), nullptr);
  Flight& f = flights.add(1);
  EXPECT_TRUE(f.attached);
  EXPECT_EQ(flights.find(1), &f);
  EXPECT_EQ(flights.find(2), nullptr);
  flights.table.remove(f);
  EXPECT_FALSE(f.attached);
  EXPECT_EQ(flights.find(1), nullptr);
  flights.table.remove(f);
  EXPECT_EQ(flights.table.size(), 0u) << "removing twice is removing once";
}

TEST(FlightTable, AgreesWithAModelUnderRandomUse) {
  for (const std::uint64_t same : {1, 5}) {
    Flights flights(same);
    std::unordered_map<std::uint64_t, Flight*> model;
    std::mt19937_64 random(31);
    for (int n = 0; n < 20'000; ++n) {
      const std::uint64_t id = random() % 200;
      if (const auto it = model.find(id); it != model.end()) {
        ASSERT_EQ(flights.find(id), it->second);
        if (random() % 2 == 0) {
          flights.table.remove(*it->second);
          model.erase(it);
        }
      } else {
        ASSERT_EQ(flights.find(id), nullptr);
        if (random() % 2 == 0) model[id] = &flights.add(id);
      }
      ASSERT_EQ(flights.table.size(), model.size());
    }
    std::size_t seen = 0;
    flights.table.each([&](Flight& f) {
      ++seen;
      flights.table.remove(f);
    });
    EXPECT_EQ(seen, model.size());
    EXPECT_EQ(flights.table.size(), 0u);
  }
}

TEST(FlightTable, AFailedComparisonIsTold) {
  Flights flights;
  flights.add(1);
  Traits::raises = true;
  EXPECT_EQ(flights.find(1), nullptr);
  EXPECT_TRUE(flights.failed);
  Traits::raises = false;
  EXPECT_NE(flights.find(1), nullptr);
  EXPECT_FALSE(flights.failed);
}

TEST(FlightTable, AComparisonMayRemoveTheFlightItIsAskedAbout) {
  Flights flights(10);
  flights.add(1);
  Flight& f = flights.add(2);
  Traits::once([&] { flights.table.remove(f); });
  EXPECT_EQ(flights.find(2), nullptr);
  EXPECT_FALSE(flights.failed);
}

TEST(FlightTable, AComparisonMayAddSoManyThatTheTableGrows) {
  Flights flights(10);
  Flight& f = flights.add(1);
  Traits::once([&] {
    for (std::uint64_t id = 100; id < 300; ++id) flights.add(id);
  });
  EXPECT_EQ(flights.find(1), &f);
  EXPECT_EQ(flights.table.size(), 201u);
}

TEST(FlightTable, AComparisonThatNeverSettlesEnds) {
  Flights flights(10);
  flights.add(1);
  Flight& other = flights.make(50);
  Traits::foreign = [&] { other.attached ? flights.table.remove(other) : flights.table.add(other); };
  EXPECT_EQ(flights.find(1), nullptr);
  EXPECT_TRUE(flights.failed);
  EXPECT_EQ(Traits::unsettled, 1);
  EXPECT_EQ(Traits::compared, kFindRestarts);
}

TEST(FlightTable, FailedAddChangesNothing) {
  Flights flights;
  for (std::uint64_t id = 0; id < 100; ++id) {
    Flight& f = flights.make(id);
    const std::uint64_t generation = flights.table.generation();
    test::with_failing_allocations([&] { flights.table.add(f); },
                                   [&] {
                                     ASSERT_FALSE(f.attached);
                                     ASSERT_EQ(flights.table.size(), id);
                                     ASSERT_EQ(flights.table.generation(), generation);
                                   });
    ASSERT_EQ(flights.find(id), &f);
  }
}

// ---- who waits for whom

TEST(Deadlock, ALoadThatAsksForItsOwnKey) {
  const Flight load;
  EXPECT_TRUE(depends_on_itself(load, load));
}

TEST(Deadlock, ByWayOfNestedLoads) {
  Flight outer, middle, inner, other;
  middle.parent = &outer;
  inner.parent = &middle;
  EXPECT_TRUE(depends_on_itself(inner, outer));
  EXPECT_TRUE(depends_on_itself(inner, middle));
  EXPECT_FALSE(depends_on_itself(outer, inner)) << "it may join a load of its own that runs elsewhere";
  EXPECT_FALSE(depends_on_itself(inner, other));
}

TEST(Deadlock, TwoLoadsThatAskForEachOther) {
  Flight a, b;
  EXPECT_FALSE(depends_on_itself(a, b));
  b.followers_loads.push_back(&a);  // a waits for b
  EXPECT_TRUE(depends_on_itself(b, a));
  EXPECT_FALSE(depends_on_itself(a, b)) << "asking again for what it waits for is no circle";
}

TEST(Deadlock, ARingOfManyLoads) {
  constexpr std::size_t kRing = 500;
  std::deque<Flight> ring(kRing);
  for (std::size_t i = 0; i + 1 < kRing; ++i) ring[i + 1].followers_loads.push_back(&ring[i]);  // i waits for i + 1
  EXPECT_TRUE(depends_on_itself(ring.back(), ring.front()));
  EXPECT_FALSE(depends_on_itself(ring.front(), ring.back()));
}

TEST(Deadlock, MixedParentsAndFollowers) {
  Flight a, b, c, d;
  b.parent = &a;                    // a runs b inside
  c.followers_loads.push_back(&b);  // b waits for c
  d.parent = &c;                    // c runs d inside
  EXPECT_TRUE(depends_on_itself(d, a));
  EXPECT_FALSE(depends_on_itself(a, d));
}

TEST(Deadlock, ManyWaysToTheSameLoadAreWalkedOnce) {
  // Loads that gather: each layer waits twice for each load of the next, so that 4^30 paths lead from end to end.
  constexpr std::size_t kLayers = 30;
  std::deque<std::array<Flight, 2>> layers(kLayers);
  for (std::size_t i = 0; i + 1 < kLayers; ++i) {
    for (Flight& next : layers[i + 1]) {
      for (Flight& waits : layers[i]) next.followers_loads.insert(next.followers_loads.end(), 2, &waits);
    }
  }
  const Flight elsewhere;
  EXPECT_FALSE(depends_on_itself(layers.back()[0], elsewhere));
  EXPECT_TRUE(depends_on_itself(layers.back()[0], layers.front()[1]));
}

TEST(Deadlock, AgreesWithReachabilityOnRandomGraphs) {
  std::mt19937_64 random(32);
  for (int round = 0; round < 300; ++round) {
    constexpr std::size_t kCount = 12;
    std::deque<Flight> loads(kCount);
    std::array<std::array<bool, kCount>, kCount> reaches{};
    for (std::size_t i = 0; i < kCount; ++i) reaches[i][i] = true;
    const auto close = [&] {
      for (std::size_t k = 0; k < kCount; ++k)
        for (std::size_t i = 0; i < kCount; ++i)
          for (std::size_t j = 0; j < kCount; ++j) reaches[i][j] = reaches[i][j] || (reaches[i][k] && reaches[k][j]);
    };
    for (int edge = 0; edge < 16; ++edge) {
      const std::size_t from = random() % kCount, to = random() % kCount;
      const bool circle = reaches[from][to];  // `to` would wait for itself by waiting for `from`
      ASSERT_EQ(depends_on_itself(loads[from], loads[to]), circle);
      if (depends_on_itself(loads[to], loads[from])) continue;  // refused
      if (loads[from].parent == nullptr && random() % 2 == 0) {
        loads[from].parent = &loads[to];
      } else {
        loads[from].followers_loads.push_back(&loads[to]);
      }
      reaches[from][to] = true;
      close();
    }
  }
}

}  // namespace
}  // namespace stillwarm
