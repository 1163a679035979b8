#include "core/remote/redis_masters.hpp"

#include <algorithm>

namespace stillwarm {

namespace {

constexpr std::size_t kMost = 512;  // places; a cluster whose nodes change their addresses all the time is forgotten

}  // namespace

RedisMasters::Master& RedisMasters::master(const RedisPlace& place) {
  if (masters_.size() >= kMost && !masters_.contains(place)) masters_.clear();
  return masters_[place];
}

const RedisMasters::Master* RedisMasters::known(const RedisPlace& place) const {
  const auto found = masters_.find(place);
  return found == masters_.end() ? nullptr : &found->second;
}

bool RedisMasters::allow(const RedisPlace& place, Nanos now) {
  const std::lock_guard lock(mutex_);
  return master(place).breaker.allow(now);
}

void RedisMasters::report(const RedisPlace& place, Outcome outcome, Nanos now) {
  const std::lock_guard lock(mutex_);
  Master& one = master(place);
  if (outcome == Outcome::kUnasked) return one.breaker.abandoned();
  one.answered = outcome == Outcome::kAnswered;
  if (one.answered) return one.breaker.succeeded(now);
  one.failed_at = now;
  one.breaker.failed(now);
}

void RedisMasters::probed(const RedisPlace& place, bool answers, Nanos now) {
  const std::lock_guard lock(mutex_);
  Master& one = master(place);
  one.answered = answers;
  if (answers) return one.breaker.probe_succeeded();
  one.failed_at = now;
  if (one.breaker.state(now) == Circuit::kClosed) one.breaker.failed(now);
}

bool RedisMasters::is_away(const RedisPlace& place, Nanos now) const {
  const std::lock_guard lock(mutex_);
  const Master* const one = known(place);
  return one != nullptr && one->breaker.state(now) != Circuit::kClosed;
}

bool RedisMasters::failed_lately(const RedisPlace& place, Nanos now) const {
  const std::lock_guard lock(mutex_);
  const Master* const one = known(place);
  if (one == nullptr) return false;
  return one->breaker.state(now) != Circuit::kClosed ||
         (!one->answered && one->failed_at != 0 && now - one->failed_at < kMoment);
}

bool RedisMasters::some_answer(std::span<const RedisPlace> places) const {
  const std::lock_guard lock(mutex_);
  return std::any_of(places.begin(), places.end(), [this](const auto& place) {
    const Master* const one = known(place);
    return one != nullptr && one->answered;
  });
}

void RedisMasters::reset() {
  const std::lock_guard lock(mutex_);
  masters_.clear();
}

}  // namespace stillwarm
