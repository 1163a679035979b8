#include "core/remote/redis_slots.hpp"

#include <algorithm>
#include <charconv>

namespace stillwarm {

namespace {

constexpr Nanos kLeastPause = 100'000'000;  // between two questions, however doubtful
constexpr Nanos kMostPause = 10'000'000'000;

// XMODEM: polynomial 0x1021, from 0.
std::uint16_t crc16(std::string_view text) noexcept {
  std::uint32_t crc = 0;
  for (const char c : text) {
    crc ^= static_cast<std::uint32_t>(static_cast<unsigned char>(c)) << 8;
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 0x8000) != 0 ? (crc << 1) ^ 0x1021 : crc << 1;
  }
  return static_cast<std::uint16_t>(crc);
}

}  // namespace

RedisSlots::RedisSlots(const std::vector<std::string>& keys, std::vector<RedisPlace> seeds)
    : seeds_(std::move(seeds)), owners_(keys.size()) {
  for (const auto& key : keys) slots_.push_back(slot_of(key));
}

std::uint16_t RedisSlots::slot_of(std::string_view key) noexcept {
  const auto open = key.find('{');
  if (open != std::string_view::npos) {
    const auto close = key.find('}', open);
    if (close != std::string_view::npos && close > open + 1) key = key.substr(open + 1, close - open - 1);
  }
  return crc16(key) % 16'384;
}

RedisSlots::Owner RedisSlots::owner(std::uint32_t bucket) const {
  const std::lock_guard lock(mutex_);
  const Owner& owner = owners_.at(bucket);
  if (owner.place.first.empty()) {
    throw TierFailure({TierFault::kUnavailable, "CLUSTERDOWN", "no node of the cluster serves the slot"});
  }
  return owner;
}

bool RedisSlots::is_at(std::uint32_t bucket, const RedisPlace& place) const {
  const std::lock_guard lock(mutex_);
  return owners_.at(bucket).place == place;
}

std::vector<std::uint64_t> RedisSlots::epochs() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::uint64_t> epochs;
  for (const Owner& owner : owners_) epochs.push_back(owner.epoch);
  return epochs;
}

std::vector<RedisPlace> RedisSlots::masters() const {
  const std::lock_guard lock(mutex_);
  std::vector<RedisPlace> places;
  for (const Owner& owner : owners_) {
    if (owner.place.first.empty() || std::find(places.begin(), places.end(), owner.place) != places.end()) continue;
    places.push_back(owner.place);
  }
  return places;
}

std::vector<RedisPlace> RedisSlots::candidates() const {
  std::vector<RedisPlace> places = masters();
  for (const auto& seed : seeds_) {
    if (std::find(places.begin(), places.end(), seed) == places.end()) places.push_back(seed);
  }
  return places;
}

void RedisSlots::put(std::size_t bucket, RedisPlace place) {
  Owner& owner = owners_[bucket];
  if (owner.epoch != 0 && owner.place == place) return;
  owner.place = std::move(place);
  ++owner.epoch;
}

// An array of (first slot, last slot, (host, port, ...) of the master, those of replicas...). A node that does not know
// its own address leaves it empty.
void RedisSlots::learn(const RedisReply& slots, const RedisPlace& node, Nanos now) {
  expect_ok(slots);
  std::vector<RedisPlace> places(slots_.size());
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const RedisReply range = slots.at(i);
    const RedisReply master = range.at(2);
    RedisPlace place(master.at(0).nil() ? "" : master.at(0).text(), static_cast<int>(master.at(1).integer()));
    if (place.first.empty() || place.first == "?") place.first = node.first;
    for (std::size_t bucket = 0; bucket < slots_.size(); ++bucket) {
      if (slots_[bucket] >= range.at(0).integer() && slots_[bucket] <= range.at(1).integer()) places[bucket] = place;
    }
  }
  const std::lock_guard lock(mutex_);
  for (std::size_t bucket = 0; bucket < places.size(); ++bucket) put(bucket, std::move(places[bucket]));
  doubtful_ = false;
  asked_at_ = now;
}

std::optional<RedisPlace> RedisSlots::place_in(std::string_view error, const RedisPlace& node) {
  const auto space = error.rfind(' ');
  const auto colon = error.rfind(':');
  if (space == std::string_view::npos || colon == std::string_view::npos || colon < space) return std::nullopt;
  RedisPlace place(error.substr(space + 1, colon - space - 1), 0);
  if (place.first.empty()) place.first = node.first;
  std::from_chars(error.data() + colon + 1, error.data() + error.size(), place.second);
  if (place.second <= 0) return std::nullopt;
  return place;
}

void RedisSlots::moved(std::uint32_t bucket, std::string_view error, const RedisPlace& node) {
  auto place = place_in(error, node);
  const std::lock_guard lock(mutex_);
  doubtful_ = true;  // where one went, others may have gone
  if (place) put(bucket, std::move(*place));
}

void RedisSlots::doubt() {
  const std::lock_guard lock(mutex_);
  doubtful_ = true;
}

bool RedisSlots::is_due(Nanos now) {
  const std::lock_guard lock(mutex_);
  if (asked_at_ != 0 && now < asked_at_ + (doubtful_ ? kLeastPause : kMostPause)) return false;
  asked_at_ = now;
  return true;
}

}  // namespace stillwarm
