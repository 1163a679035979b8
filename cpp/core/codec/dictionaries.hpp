// The dictionaries of a cache's remote tier: per type what is sampled, what compresses, what can be read.
//
// Thread rule: one thread at a time; in the extension the GIL, which nothing here releases. A Study runs elsewhere.
// Refuses to know: how a tier keeps dictionaries and who asks it (python/stillwarm/_dictionaries.py); zstd.
//
//            seal()                     begin()                    end(): adopted
//   SAMPLING ------> enough payloads ------------> STUDYING -----------------------> SETTLED
//      ^                                              | end(): nothing is better        |
//      |                                              v                                 |
//      +--- kMoreValues x 2^failures values later ---- SETTLED                          |
//      +--- the same, and they take kFallen more than when it was adopted --------------+
//
// Invariants:
//   1  Nothing is written with a dictionary that the tier was not seen to hold. Whatever may have removed it (`doubt`)
//      stops its use until it was seen there again; `unconfirmed` says which are to be looked for, also once a minute.
//   2  A dictionary belongs to one type of one namespace, by the key under which it is stored and whose hash it
//      carries, and its number is the hash of its bytes. Two processes that train at the same time have two, and both
//      are right.
//   3  What is marked private is neither sampled nor compressed with a dictionary.
//   4  Bounded: kMostOfType per type, kMostInAll and kMostBytes together (the least recently used go), samples of
//      kMostSampleBytes together, kMostMissing numbers that the tier has not got, each for kMissingPause.
//   5  A sample lives until it was studied, no longer.
//   6  What cannot be had costs values, never an error: they are kNoDictionary, which is a miss (E8).
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "core/codec/envelope.hpp"
#include "core/codec/sample.hpp"
#include "core/codec/study.hpp"

namespace stillwarm {

class Dictionaries {
 public:
  static constexpr std::uint8_t kCodec = 127;  // of an envelope that holds a dictionary; no payload of Python's has it

  static constexpr std::size_t kMostOfType = 4;
  static constexpr std::size_t kMostInAll = 64;
  static constexpr std::size_t kMostBytes = std::size_t{16} << 20;
  static constexpr std::size_t kMostSampleBytes = std::size_t{8} << 20;
  static constexpr std::size_t kMostMissing = 256;
  static constexpr Nanos kMissingPause = 5'000'000'000;
  static constexpr Nanos kConfirmEvery = 60'000'000'000;

  static constexpr std::size_t kAskAt = 32;            // samples with which another's dictionary can be judged
  static constexpr std::size_t kFewest = 100;          // samples to train from
  static constexpr std::uint64_t kEnough = 500;        // payloads, or a full sample
  static constexpr std::uint64_t kMoreValues = 1'000;  // before the next attempt; doubles with each that was in vain
  static constexpr unsigned kMostFailures = 10;
  static constexpr double kFallen = 0.20;  // of the ratio at adoption: the values have changed

  struct Counts {
    std::uint64_t values = 0;           // sealed
    std::uint64_t raw = 0;              // their bytes,
    std::uint64_t stored = 0;           // and what they took, headers aside
    std::uint64_t compressed = 0;       // values
    std::uint64_t with_dictionary = 0;  // of these
    Nanos compressing = 0;
    std::uint64_t expanded = 0;  // values
    Nanos expanding = 0;

    void add(const Counts& other) noexcept;
  };

  struct Figures {
    Counts counts;
    std::size_t known = 0;      // dictionaries in this process
    std::size_t bytes = 0;      // memory that they take
    std::size_t sampled = 0;    // bytes of samples
    std::uint64_t trained = 0;  // studies that trained
    std::uint64_t adopted = 0;  // dictionaries that values were compressed with from then on
    std::uint64_t dropped = 0;  // ones that gained nothing any more
    std::uint64_t fetched = 0;  // from the tier
    std::uint64_t refused = 0;  // that were none, or another's
    std::uint64_t missing = 0;  // that the tier had not got
  };

  struct Wanted {
    std::string type;
    std::uint64_t id;
    bool current;  // values are compressed with it
  };

  // `above` of the options 0: nothing is compressed, sampled or trained.
  explicit Dictionaries(CompressOptions options) : options_(options) {}

  // As seal() and open() of envelopes, with what there is for the type. `is_private`: invariant 3.
  std::string seal_value(const Envelope& envelope, std::string_view payload, std::string_view type, bool is_private);
  Opened open_value(std::string_view stored, std::uint64_t expected_key_hash, const DecodeLimits& limits,
                    std::string_view type, Envelope& out, std::string& payload);

  // The number of a dictionary that this value needs, is not here, and may be asked for now; 0: none.
  std::uint64_t lacks(std::string_view type, std::string_view stored, Nanos now) const;

  bool knows(std::string_view type, std::uint64_t id) const;
  std::vector<std::pair<std::string, std::uint64_t>> known() const;

  // What the tier has under the key of that dictionary. False: it is not that one, and is not asked for again for a
  // while.
  bool learn(std::string_view type, std::uint64_t id, std::string_view stored, std::uint64_t key_hash, Nanos now);
  void absent(std::string_view type, std::uint64_t id, Nanos now);

  // Types with something to study: another process's dictionary to be asked for, or one to be trained.
  std::vector<std::string> due() const;
  std::shared_ptr<Study> begin(std::string_view type);  // null: no more
  // `published`: the tier has `best`, and had it after so many `doubts`. False with a dictionary that was made here: it
  // is not used.
  void end(const Study& study, bool published, Nanos now, std::uint64_t doubts);

  // Something may have removed dictionaries from the tier. `doubts` counts it, so that what was seen before does not
  // confirm what happened after.
  void doubt() noexcept;
  std::uint64_t doubts() const noexcept { return doubts_; }
  std::vector<Wanted> unconfirmed(Nanos now) const;
  void confirm(std::string_view type, std::uint64_t id, Nanos now, std::uint64_t doubts);
  // Whether what the tier has under its key is the dictionary of that number.
  static bool holds(std::uint64_t id, std::string_view stored, std::uint64_t key_hash);
  // What is stored for it; empty: it is not here any more.
  std::string publication(std::string_view type, std::uint64_t id, std::uint64_t key_hash) const;
  static std::string publication(const Dictionary& dictionary, std::uint64_t key_hash);

  Figures figures() const;
  // Of each type: its counts, and the number of the dictionary that it is compressed with, or 0.
  std::vector<std::tuple<std::string, Counts, std::uint64_t>> types() const;

  void after_fork_in_child() noexcept;  // studies that ran are the parent's

 private:
  enum class Phase : std::uint8_t { kSampling, kStudying, kSettled };

  struct Known {
    std::shared_ptr<const Dictionary> dictionary;
    std::uint64_t used = 0;  // a tick; the larger, the later
    Nanos confirmed_at = 0;
    bool doubted = false;
    bool used_since = false;  // it was confirmed
  };

  struct OfType {
    std::vector<Known> known;
    std::uint64_t current = 0;
    Phase phase = Phase::kSampling;
    bool asked = false;
    Sample sample;
    std::uint64_t sampled_at = 0;  // a tick
    // Since it settled: what could have been compressed with a dictionary.
    std::uint64_t values = 0, raw = 0, stored = 0;
    double baseline = 1;  // stored / raw when it settled
    unsigned failures = 0;
    Counts counts;
  };

  OfType& of(std::string_view type);
  const OfType* find(std::string_view type) const;
  static const Known* known(const OfType& of, std::uint64_t id) noexcept;
  static Known* known(OfType& of, std::uint64_t id) noexcept;
  static bool trains(const OfType& of) noexcept;
  static std::shared_ptr<const Dictionary> read(std::uint64_t id, std::string_view stored, std::uint64_t key_hash);
  std::shared_ptr<const Dictionary> use(OfType& of, std::uint64_t id, bool to_write);
  void add(OfType& of, std::shared_ptr<const Dictionary> dictionary, Nanos now);
  void make_room();
  void note(OfType& of, std::string_view payload, std::size_t stored);
  void sample(OfType& of, std::string_view payload);
  void settle(OfType& of, double baseline);

  const CompressOptions options_;
  std::map<std::string, OfType, std::less<>> types_;
  std::map<std::pair<std::string, std::uint64_t>, Nanos> missing_;  // until when it is not asked for
  std::size_t sampled_ = 0;                                         // bytes
  std::uint64_t ticks_ = 0;
  std::uint64_t doubts_ = 0;
  Figures figures_;
};

}  // namespace stillwarm
