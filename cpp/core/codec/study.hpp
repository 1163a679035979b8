// Whether a dictionary pays for a type: trained from a part of a sample, measured on the rest.
//
// Thread rule: a Study belongs to one thread; run() takes up to 0.3 s of it, touches nothing but the Study, and is
// called without any lock. Refuses to know: where dictionaries are kept, and when it is time for a study.
//
// A value is charged what it takes in an envelope: compressed with the dictionary, its number included, or as it is
// kept without. A dictionary is worth having if the values that it was not made from take at least kMargin less than
// they do now (without one, or with the type's present one), and, if it was made here, if what it saves on as many
// values as were seen pays for storing it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/codec/compressor.hpp"

namespace stillwarm {

struct Study {
  static constexpr double kMargin = 0.10;
  static constexpr std::size_t kHeldOut = 5;         // of so many samples one is held out
  static constexpr std::size_t kSamplesPerByte = 8;  // bytes of samples for each byte of dictionary

  enum class Verdict : std::uint8_t {
    kKeep,   // nothing is clearly better than what the type has
    kAdopt,  // `best`
    kDrop,   // the present dictionary gains nothing any more
  };

  // Given.
  std::string type;
  CompressOptions options;
  std::vector<std::string> samples;
  std::uint64_t seen = 0;
  bool trains = false;                                    // else it only compares what there is
  std::shared_ptr<const Dictionary> present;              // what the type is compressed with
  std::vector<std::shared_ptr<const Dictionary>> others;  // of the same type, by other processes

  // Found.
  Verdict verdict = Verdict::kKeep;
  std::shared_ptr<const Dictionary> best;
  bool made = false;             // `best` was made here: nobody else has it yet
  std::size_t raw = 0;           // bytes of what was held out
  std::size_t without = 0;       // what it takes without a dictionary,
  std::size_t with_present = 0;  // with the present one,
  std::size_t with_best = 0;     // and with `best`

  void run();  // throws std::bad_alloc
};

// What the payloads take in envelopes, headers aside; `dictionary` may be null.
std::size_t cost(std::span<const std::string> payloads, const CompressOptions& options, const Dictionary* dictionary);

}  // namespace stillwarm
