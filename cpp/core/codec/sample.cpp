// How a sample is kept. Thread rule, bounds and what this refuses to know: see the header.
#include "core/codec/sample.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <utility>

namespace stillwarm {

bool Sample::offer(std::string_view payload) {
  ++offered_;
  const std::uint64_t hash = XXH3_64bits(payload.data(), payload.size());
  if (payload.size() > kMostBytes || there_.contains(hash)) return false;
  std::uint64_t place = payloads_.size();
  if (full_ && (place = draw(seen_ + 1)) >= payloads_.size()) {
    ++seen_;
    return true;
  }
  std::string copy(payload);
  if (place == payloads_.size()) {  // room first: what follows is not undone
    if (hashes_.size() == hashes_.capacity()) hashes_.reserve(2 * hashes_.size() + 8);
    if (payloads_.size() == payloads_.capacity()) payloads_.reserve(2 * payloads_.size() + 8);
  }
  there_.insert(hash);
  bytes_ += copy.size();
  if (place == payloads_.size()) {
    hashes_.push_back(hash);
    payloads_.push_back(std::move(copy));
  } else {
    there_.erase(hashes_[place]);
    bytes_ -= payloads_[place].size();
    hashes_[place] = hash;
    payloads_[place] = std::move(copy);
  }
  ++seen_;
  full_ = full_ || payloads_.size() >= kMost || bytes_ >= kMostBytes;
  while (bytes_ > kMostBytes) drop(draw(payloads_.size()));
  return true;
}

void Sample::clear() noexcept {
  payloads_ = {};
  hashes_ = {};
  there_ = {};
  bytes_ = 0;
  offered_ = seen_ = 0;
  full_ = false;
}

void Sample::drop(std::size_t i) noexcept {
  there_.erase(hashes_[i]);
  bytes_ -= payloads_[i].size();
  std::swap(payloads_[i], payloads_.back());
  hashes_[i] = hashes_.back();
  payloads_.pop_back();
  hashes_.pop_back();
}

// splitmix64: nobody gains by guessing which payloads are kept.
std::uint64_t Sample::draw(std::uint64_t below) noexcept {
  std::uint64_t z = (random_ += 0x9E3779B97F4A7C15);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return (z ^ (z >> 31)) % below;
}

}  // namespace stillwarm
