// Hit notes: what is taken, what is left behind, and no memory.
#include "core/memory/hit_notes.hpp"

#include <gtest/gtest.h>

#include <map>
#include <stdexcept>
#include <vector>

#include "support.hpp"

namespace stillwarm {
namespace {

Entry entry(std::uint32_t hits, Handle key = nullptr, ScopeId scope = 0) {
  Entry e;
  e.hits = hits;
  e.key = key;
  e.scope = scope;
  return e;
}

struct Taken {
  std::map<Index, std::uint32_t> noted;
  std::vector<HitNotes::Left> gone;
  explicit Taken(HitNotes& notes) {
    notes.take([this](Index i, std::uint32_t before) { noted[i] = before; },
               [this](const HitNotes::Left& left) { gone.push_back(left); });
  }
};

TEST(HitNotes, TheFirstNoteCountsUntilItIsTaken) {
  HitNotes notes;
  EXPECT_TRUE(notes.begin(3, 10));
  EXPECT_TRUE(notes.begin(3, 11));
  EXPECT_TRUE(notes.begin(4, 0));
  EXPECT_EQ(Taken(notes).noted, (std::map<Index, std::uint32_t>{{3, 10}, {4, 0}}));
  EXPECT_TRUE(Taken(notes).noted.empty());
  EXPECT_TRUE(notes.begin(3, 12));
  EXPECT_EQ(Taken(notes).noted.at(3), 12u);
}

TEST(HitNotes, WhatLeavesGivesItsKeyAndWhatItWasHitSince) {
  HitNotes notes;
  int key = 0;
  notes.begin(3, 10);
  EXPECT_TRUE(notes.leave(3, entry(15, &key, 7)));
  EXPECT_FALSE(notes.leave(3, entry(15, &key, 7))) << "it has left";
  EXPECT_FALSE(notes.leave(5, entry(1))) << "it was not noted";
  const Taken taken(notes);
  EXPECT_TRUE(taken.noted.empty());
  ASSERT_EQ(taken.gone.size(), 1u);
  EXPECT_EQ(taken.gone[0].key, &key);
  EXPECT_EQ(taken.gone[0].scope, 7u);
  EXPECT_EQ(taken.gone[0].hits, 5u);
}

TEST(HitNotes, AnIndexThatIsUsedAgainBeginsAnew) {
  HitNotes notes;
  notes.begin(3, 10);
  notes.leave(3, entry(12));
  notes.begin(3, 0);
  const Taken taken(notes);
  EXPECT_EQ(taken.noted.at(3), 0u);
  EXPECT_EQ(taken.gone.at(0).hits, 2u);
}

TEST(HitNotes, WhatTheTakerThrowsLosesNothing) {
  HitNotes notes;
  for (Index i = 1; i <= 4; ++i) notes.begin(i, i);
  notes.leave(4, entry(9));
  std::map<Index, std::uint32_t> noted;
  int gone = 0, calls = 0;
  const auto take = [&] {
    notes.take(
        [&](Index i, std::uint32_t before) {
          if (++calls == 2) throw std::runtime_error("no room");
          noted[i] = before;
        },
        [&](const HitNotes::Left&) {
          if (++calls == 5) throw std::runtime_error("no room");
          ++gone;
        });
  };
  EXPECT_THROW(take(), std::runtime_error);
  EXPECT_THROW(take(), std::runtime_error);
  take();
  EXPECT_EQ(noted, (std::map<Index, std::uint32_t>{{1, 1}, {2, 2}, {3, 3}}));
  EXPECT_EQ(gone, 1);
}

TEST(HitNotes, WithoutMemoryThereIsNoNoteAndTheKeyStays) {
  HitNotes notes;
  test::allocations_left = 0;
  const bool noted = notes.begin(3, 1);
  test::allocations_left = -1;
  EXPECT_FALSE(noted);
  EXPECT_TRUE(notes.begin(3, 1));
  test::allocations_left = 0;
  const bool left = notes.leave(3, entry(2));
  test::allocations_left = -1;
  EXPECT_FALSE(left) << "else nobody would release it";
  const Taken taken(notes);
  EXPECT_TRUE(taken.noted.empty());
  EXPECT_TRUE(taken.gone.empty());
}

TEST(HitNotes, WhatNobodyTakesIsBounded) {
  HitNotes notes;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < HitNotes::kMostLeft + 10; ++i) {
    notes.begin(1, 0);
    if (notes.leave(1, entry(1))) ++kept;
  }
  EXPECT_EQ(kept, HitNotes::kMostLeft);
  EXPECT_EQ(Taken(notes).gone.size(), kept);
}

}  // namespace
}  // namespace stillwarm
