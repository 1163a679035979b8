// What a cache does about dictionaries: when it samples, studies, adopts, doubts and forgets. Time and tier are the
// test's.
#include "core/codec/dictionaries.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "codec/values.hpp"
#include "support.hpp"

namespace stillwarm {
namespace {

using test::noise;
using test::row;

constexpr std::uint64_t kSealedAs = 7;

// A process: what it seals goes nowhere, and the tier is what the test says.
struct Process {
  Dictionaries dictionaries{CompressOptions{}};
  Nanos now = 1'000 * kSecond;
  std::uint64_t written = 0;

  std::string write(const std::string& value, bool is_private = false, const std::string& type = "scores") {
    return dictionaries.seal_value({1, false, kForever, 0, 0, 0, kSealedAs}, value, type, is_private);
  }

  void write_rows(std::uint64_t count, int kind = 0, const std::string& type = "scores") {
    for (std::uint64_t n = 0; n < count; ++n) write(row(written++, kind), false, type);
  }

  Opened read(const std::string& stored, std::string& value, const std::string& type = "scores") {
    Envelope envelope;
    return dictionaries.open_value(stored, kSealedAs, {}, type, envelope, value);
  }

  // What the background does: true if a dictionary was adopted.
  bool study(const std::string& type = "scores", bool published = true) {
    const auto study = dictionaries.begin(type);
    if (study == nullptr) return false;
    study->run();
    dictionaries.end(*study, published, now, dictionaries.doubts());
    return current(type) != 0;
  }

  std::uint64_t current(const std::string& type = "scores") const {
    for (const auto& [name, counts, id] : dictionaries.types()) {
      if (name == type) return id;
    }
    return 0;
  }

  bool train() {
    write_rows(Dictionaries::kEnough);
    return study();
  }

  bool is_due() const { return !dictionaries.due().empty(); }
};

TEST(Dictionaries, WithoutOneNothingIsDifferent) {
  Process a;
  for (std::uint64_t n = 0; n < 20; ++n) {
    EXPECT_EQ(a.write(row(n)), seal({1, false, kForever, 0, 0, 0, kSealedAs}, row(n), {}));
  }
  EXPECT_FALSE(a.is_due());
  EXPECT_EQ(a.dictionaries.figures().known, 0u);
}

TEST(Dictionaries, EnoughValuesBringOne) {
  Process a;
  a.write_rows(Dictionaries::kAskAt);
  EXPECT_TRUE(a.is_due()) << "somebody else's can be judged";
  EXPECT_FALSE(a.study());
  EXPECT_FALSE(a.is_due());
  a.write_rows(Dictionaries::kEnough - Dictionaries::kAskAt);
  ASSERT_TRUE(a.is_due());
  ASSERT_TRUE(a.study());
  const std::string value = row(1'000'000), stored = a.write(value);
  EXPECT_EQ(dictionary_of(stored), a.current());
  std::string back;
  EXPECT_EQ(a.read(stored, back), Opened::kOk);
  EXPECT_EQ(back, value);
  EXPECT_EQ(dictionary_of(a.write(row(1), false, "others")), 0u) << "of its type alone";
  const auto figures = a.dictionaries.figures();
  EXPECT_EQ(figures.sampled, row(1).size()) << "of the type without one; the other sample has gone";
  EXPECT_EQ(figures.known, 1u);
  EXPECT_EQ(figures.adopted, 1u);
  EXPECT_EQ(figures.counts.with_dictionary, 1u);
  EXPECT_EQ(figures.counts.expanded, 1u);
  EXPECT_EQ(figures.counts.values, Dictionaries::kEnough + 2);
  EXPECT_LT(figures.counts.stored, figures.counts.raw);
  EXPECT_GT(figures.counts.compressing, 0);
}

TEST(Dictionaries, UnpublishedIsUnused) {
  Process a;
  a.write_rows(Dictionaries::kEnough);
  EXPECT_FALSE(a.study("scores", false));
  EXPECT_EQ(dictionary_of(a.write(row(1))), 0u);
  EXPECT_EQ(a.dictionaries.figures().known, 0u);
}

TEST(Dictionaries, PrivateValuesAreNeitherSampledNorCompressedWithOne) {
  Process a;
  for (std::uint64_t n = 0; n < 3 * Dictionaries::kEnough; ++n) a.write(row(n), true);
  EXPECT_FALSE(a.is_due());
  EXPECT_EQ(a.dictionaries.figures().sampled, 0u);
  EXPECT_EQ(a.dictionaries.begin("scores"), nullptr);
  ASSERT_TRUE(a.train());
  EXPECT_EQ(dictionary_of(a.write(row(1), true)), 0u);
  EXPECT_NE(dictionary_of(a.write(row(1), false)), 0u) << "the control";
}

TEST(Dictionaries, SwitchedOffNothingIsSampled) {
  CompressOptions off;
  off.above = 0;
  Dictionaries none(off);
  for (std::uint64_t n = 0; n < 2'000; ++n) none.seal_value({}, row(n), "scores", false);
  EXPECT_TRUE(none.due().empty());
  EXPECT_EQ(none.figures().sampled, 0u);
  EXPECT_EQ(none.figures().counts.raw, none.figures().counts.stored);
}

TEST(Dictionaries, AnotherProcessFetchesWhatItReads) {
  Process a, b;
  ASSERT_TRUE(a.train());
  const std::string value = row(77), stored = a.write(value);
  const std::uint64_t id = a.current();
  std::string back;
  EXPECT_EQ(b.read(stored, back), Opened::kNoDictionary);
  EXPECT_EQ(b.dictionaries.lacks("scores", stored, b.now), id);
  EXPECT_EQ(b.dictionaries.lacks("scores", stored.substr(0, stored.size() - 1), b.now), 0u) << "damaged: not asked for";
  const std::string published = a.dictionaries.publication("scores", id, 99);
  EXPECT_TRUE(Dictionaries::holds(id, published, 99));
  EXPECT_FALSE(Dictionaries::holds(id, published, 98));
  ASSERT_TRUE(b.dictionaries.learn("scores", id, published, 99, b.now));
  EXPECT_EQ(b.dictionaries.lacks("scores", stored, b.now), 0u);
  EXPECT_EQ(b.read(stored, back), Opened::kOk);
  EXPECT_EQ(back, value);
  EXPECT_EQ(b.read(stored, back, "others"), Opened::kNoDictionary) << "it is another type's";
  b.write_rows(Dictionaries::kAskAt);
  EXPECT_TRUE(b.study()) << "judged by a few values, it is used";
  EXPECT_EQ(b.current(), id);
}

TEST(Dictionaries, WhatIsNoDictionaryIsNotAskedForAgainAtOnce) {
  Process a, b;
  ASSERT_TRUE(a.train());
  const std::string stored = a.write(row(77)), good = a.dictionaries.publication("scores", a.current(), 99);
  const std::uint64_t id = a.current();
  Envelope own{1, false, kForever, 0, 0, 0, 99};
  const std::string wrong_codec = seal(own, a.dictionaries.begin("none") == nullptr ? row(1) : "", {});
  own.codec = Dictionaries::kCodec;
  std::vector<std::string> garbage = {"",
                                      "garbage",
                                      good.substr(0, good.size() / 2),
                                      wrong_codec,
                                      seal(own, row(1), {}),
                                      seal(own, noise(1, 20'000), {}),
                                      seal(own, std::string(kLargestDictionary + 1, 'x'), {}),
                                      seal(own, std::string(std::size_t{1} << 20, 'x'), {})};
  for (const std::string& one : garbage) {
    EXPECT_FALSE(b.dictionaries.learn("scores", id, one, 99, b.now));
    EXPECT_EQ(b.dictionaries.lacks("scores", stored, b.now), 0u);
    b.now += Dictionaries::kMissingPause;
    EXPECT_EQ(b.dictionaries.lacks("scores", stored, b.now), id);
  }
  EXPECT_FALSE(b.dictionaries.learn("scores", id + 1, good, 99, b.now)) << "another number's";
  EXPECT_FALSE(b.dictionaries.learn("scores", id, good, 98, b.now)) << "another key's";
  EXPECT_EQ(b.dictionaries.figures().refused, garbage.size() + 2);
  EXPECT_EQ(b.dictionaries.figures().known, 0u);
  EXPECT_TRUE(b.dictionaries.learn("scores", id, good, 99, b.now));
}

TEST(Dictionaries, MissingNumbersAreBounded) {
  Process a;
  for (std::uint64_t n = 1; n < 10 * Dictionaries::kMostMissing; ++n) a.dictionaries.absent("scores", n, a.now);
  EXPECT_EQ(a.dictionaries.figures().missing, 10 * Dictionaries::kMostMissing - 1);
}

TEST(Dictionaries, DoubtStopsItsUseUntilItWasSeen) {
  Process a;
  ASSERT_TRUE(a.train());
  const std::uint64_t id = a.current();
  const std::string before = a.write(row(5));
  EXPECT_TRUE(a.dictionaries.unconfirmed(a.now).empty());
  a.dictionaries.doubt();
  EXPECT_EQ(dictionary_of(a.write(row(5))), 0u);
  std::string back;
  EXPECT_EQ(a.read(before, back), Opened::kOk) << "what it can read it reads";
  const auto wanted = a.dictionaries.unconfirmed(a.now);
  ASSERT_EQ(wanted.size(), 1u);
  EXPECT_EQ(wanted[0].id, id);
  EXPECT_TRUE(wanted[0].current);
  const std::uint64_t old = a.dictionaries.doubts();
  a.dictionaries.doubt();
  a.dictionaries.confirm("scores", id, a.now, old);
  EXPECT_EQ(dictionary_of(a.write(row(5))), 0u) << "it was seen before the second doubt";
  a.dictionaries.confirm("scores", id, a.now, a.dictionaries.doubts());
  EXPECT_EQ(dictionary_of(a.write(row(5))), id);
}

TEST(Dictionaries, WhatIsUsedIsLookedForOnceAMinute) {
  Process a;
  ASSERT_TRUE(a.train());
  a.now += Dictionaries::kConfirmEvery;
  EXPECT_TRUE(a.dictionaries.unconfirmed(a.now).empty()) << "it was not used";
  a.write(row(5));
  EXPECT_EQ(a.dictionaries.unconfirmed(a.now).size(), 1u);
  a.dictionaries.confirm("scores", a.current(), a.now, a.dictionaries.doubts());
  a.write(row(6));
  EXPECT_TRUE(a.dictionaries.unconfirmed(a.now).empty());
}

TEST(Dictionaries, ADoubtDuringTheStudyHoldsAfterIt) {
  Process a;
  a.write_rows(Dictionaries::kEnough);
  const auto study = a.dictionaries.begin("scores");
  const std::uint64_t doubts = a.dictionaries.doubts();
  study->run();
  a.dictionaries.doubt();
  a.dictionaries.end(*study, true, a.now, doubts);
  ASSERT_NE(a.current(), 0u);
  EXPECT_EQ(dictionary_of(a.write(row(5))), 0u);
  EXPECT_EQ(a.dictionaries.unconfirmed(a.now).size(), 1u);
}

TEST(Dictionaries, AnotherIsTrainedOnlyWhenTheRatioHasFallen) {
  Process a;
  ASSERT_TRUE(a.train());
  const std::uint64_t first = a.current();
  a.write_rows(3 * Dictionaries::kMoreValues);
  EXPECT_EQ(a.dictionaries.figures().sampled, 0u) << "it does what it did";
  a.write_rows(Dictionaries::kMoreValues + Dictionaries::kEnough, 1);
  ASSERT_TRUE(a.is_due());
  ASSERT_TRUE(a.study());
  EXPECT_NE(a.current(), first);
  EXPECT_EQ(a.dictionaries.figures().known, 2u) << "what was written with the first can be read";
}

TEST(Dictionaries, AttemptsInVainBecomeRare) {
  Process a;
  std::uint64_t attempts = 0, next = 0;
  for (std::uint64_t n = 0; n < 40'000; ++n) {
    a.write(noise(next++, 300));
    while (a.is_due()) {
      const auto study = a.dictionaries.begin("scores");
      study->run();
      attempts += study->trains;
      a.dictionaries.end(*study, true, a.now, 0);
    }
  }
  EXPECT_GE(attempts, 3u);
  EXPECT_LE(attempts, 6u) << "1,000, 2,000, 4,000 ... values between them";
  EXPECT_EQ(a.dictionaries.figures().adopted, 0u);
}

TEST(Dictionaries, AreBoundedInNumber) {
  Process a;
  ASSERT_TRUE(a.train());
  for (std::uint64_t n = 0; n < 100; ++n) {
    const std::string type = "t" + std::to_string(n / 6);
    const auto made = Dictionary::make(train_dictionary(test::rows(120, 0, 1'000 * n), 1'024));
    ASSERT_NE(made, nullptr);
    ASSERT_TRUE(a.dictionaries.learn(type, made->id(), Dictionaries::publication(*made, 9), 9, a.now));
    EXPECT_TRUE(a.dictionaries.knows(type, made->id())) << "the newest stays";
    const auto figures = a.dictionaries.figures();
    ASSERT_LE(figures.known, Dictionaries::kMostInAll);
    ASSERT_LE(figures.bytes, Dictionaries::kMostBytes);
  }
  EXPECT_EQ(a.dictionaries.figures().known, Dictionaries::kMostInAll);
  EXPECT_EQ(a.current(), 0u) << "the least recently used has gone";
  EXPECT_EQ(dictionary_of(a.write(row(1))), 0u);
}

TEST(Dictionaries, SamplesAreBoundedTogether) {
  Process a;
  for (int type = 0; type < 20; ++type) {
    for (std::uint64_t n = 0; n < 99; ++n) {
      a.write(noise(n + 1'000 * static_cast<std::uint64_t>(type), 10'000), false, "t" + std::to_string(type));
      ASSERT_LE(a.dictionaries.figures().sampled, Dictionaries::kMostSampleBytes);
    }
  }
  EXPECT_GT(a.dictionaries.figures().sampled, Dictionaries::kMostSampleBytes / 2);
}

TEST(Dictionaries, WithoutMemoryTheValueIsStoredOrRefusedAndNothingBreaks) {
  Process a;
  a.write_rows(200);
  int failed = 0;
  for (std::uint64_t n = 0; n < 50; ++n) {
    const std::string value = row(9'000 + n);
    failed += test::with_failing_allocations([&] { EXPECT_FALSE(a.write(value).empty()); },
                                             [&] { EXPECT_LE(a.dictionaries.figures().sampled, 300u * 1'000); });
  }
  EXPECT_GE(failed, 50) << "the value itself could not be made; a sample that fails is dropped";
  a.write_rows(Dictionaries::kEnough);
  ASSERT_TRUE(a.study());
  const std::string published = a.dictionaries.publication("scores", a.current(), 9);
  Process b;
  EXPECT_GT(test::with_failing_allocations(
                [&] { EXPECT_TRUE(b.dictionaries.learn("scores", a.current(), published, 9, b.now)); }, [] {}),
            0);
  EXPECT_EQ(b.dictionaries.figures().known, 1u);
}

TEST(Dictionaries, TheChildOfAForkStudiesAnew) {
  Process a;
  a.write_rows(Dictionaries::kEnough);
  const auto of_the_parent = a.dictionaries.begin("scores");
  a.write_rows(10);
  EXPECT_FALSE(a.is_due());
  a.dictionaries.after_fork_in_child();
  EXPECT_TRUE(a.is_due());
  EXPECT_TRUE(a.study());
}

}  // namespace
}  // namespace stillwarm
