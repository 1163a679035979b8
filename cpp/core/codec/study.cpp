// How a dictionary is judged. Thread rule, terms and what this refuses to know: see the header.
#include "core/codec/study.hpp"

#include <algorithm>
#include <tuple>
#include <utility>

#include "core/codec/envelope.hpp"

namespace stillwarm {

std::size_t cost(std::span<const std::string> payloads, const CompressOptions& options, const Dictionary* dictionary) {
  std::size_t sum = 0;
  for (const std::string& payload : payloads) {
    Sealed how;
    seal({}, payload, options, dictionary, &how);
    sum += how.body;
  }
  return sum;
}

void Study::run() {
  std::vector<std::string> held, rest;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    (!trains || i % kHeldOut == 0 ? held : rest).push_back(std::move(samples[i]));
  }
  samples.clear();
  for (const std::string& payload : held) raw += payload.size();
  without = cost(held, options, nullptr);
  with_present = present != nullptr ? cost(held, options, present.get()) : without;
  with_best = std::min(without, with_present);
  const double enough = static_cast<double>(with_best) * (1 - kMargin);
  const auto consider = [&](const std::shared_ptr<const Dictionary>& one) {
    const std::size_t takes = cost(held, options, one.get());
    if (static_cast<double>(takes) > enough || takes >= with_best) return false;
    with_best = takes;
    best = one;
    return true;
  };
  for (const auto& other : others) consider(other);
  if (trains) {
    std::size_t bytes = 0;
    for (const std::string& payload : rest) bytes += payload.size();
    const std::string trained = train_dictionary(rest, std::min(kTrainedDictionary, bytes / kSamplesPerByte));
    const auto mine = Dictionary::make(trained);
    const auto before = std::pair(with_best, best);
    if (mine != nullptr && consider(mine)) {
      // Of two that are near each other, the one that is stored already.
      const bool clear = static_cast<double>(with_best) <= static_cast<double>(before.first) * (1 - kMargin);
      const double saved = static_cast<double>(before.first - with_best) / static_cast<double>(held.size());
      made = clear && saved * static_cast<double>(seen) >= static_cast<double>(trained.size());
      if (!made) std::tie(with_best, best) = before;
    }
  }
  if (best != nullptr) {
    verdict = Verdict::kAdopt;
  } else if (present != nullptr && with_present >= without) {
    verdict = Verdict::kDrop;
  }
}

}  // namespace stillwarm
