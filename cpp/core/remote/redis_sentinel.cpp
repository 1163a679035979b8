#include "core/remote/redis_sentinel.hpp"

#include <algorithm>

#include "core/remote/guarded.hpp"

namespace stillwarm {

namespace {

constexpr Nanos kEvery = 1'000'000'000;          // between two questions of a watch
constexpr Nanos kAnswerTimeout = 3'000'000'000;  // a sentinel that takes longer for an answer is given up
constexpr Nanos kLeastLimit = 100'000'000;       // for one sentinel
constexpr Nanos kReplacement = 50'000'000;       // to connect to another, while the listener waits
constexpr std::size_t kSentinelsInLimit = 4;     // one that does not answer leaves time for others

}  // namespace

RedisSentinels::RedisSentinels(std::vector<Place> sentinels, std::string service, RedisAddress account)
    : sentinels_(std::move(sentinels)), service_(std::move(service)), account_(std::move(account)) {}

RedisAddress RedisSentinels::address_of(std::size_t i, Nanos limit) const {
  RedisAddress address = account_.at(sentinels_[i % sentinels_.size()], limit);
  address.database = 0;
  return address;
}

void RedisSentinels::ask(RedisLink& link) const { link.append({"SENTINEL", "GET-MASTER-ADDR-BY-NAME", service_}); }

std::optional<RedisSentinels::Place> RedisSentinels::read(const RedisReply& reply) const {
  expect_ok(reply);
  if (reply.nil()) return std::nullopt;
  return Place(reply.at(0).text(), static_cast<int>(reply.at(1).integer()));
}

std::optional<RedisSentinels::Place> RedisSentinels::question(RedisLink& link) const {
  ask(link);
  const OwnedReply answer = link.read();
  // The password is the server's; a sentinel that has none does not get to see it.
  if (answer.error() && redis_error(*answer.error()).state == "NOAUTH" && !account_.password.empty()) {
    link.sign_in(account_);
    ask(link);
    return read(link.read());
  }
  return read(answer);
}

RedisSentinels::Master RedisSentinels::master(Watchdog& watchdog) {
  std::size_t first = 0;
  {
    const std::lock_guard lock(mutex_);
    first = first_;
  }
  const Nanos limit = std::max(kLeastLimit, account_.connect_timeout / static_cast<Nanos>(kSentinelsInLimit));
  TierError error;
  bool unknown = false;
  for (std::size_t i = first; i < first + sentinels_.size(); ++i) {
    try {
      auto link = std::make_unique<RedisLink>(address_of(i, limit));
      std::optional<Place> place;
      guarded(watchdog, *link, limit, [&] { place = question(*link); });
      if (place) {
        const std::lock_guard lock(mutex_);
        first_ = i % sentinels_.size();
        return {std::move(*place), std::move(link)};
      }
      unknown = true;
    } catch (const TierFailure& failure) {
      error = failure.error;
    }
  }
  if (unknown) {
    throw TierFailure({TierFault::kUnavailable, "", "the sentinels know no service of the name '" + service_ + "'"});
  }
  error.message = "no sentinel answers: " + error.message;
  throw TierFailure(error);
}

void RedisSentinels::doubt() {
  const std::lock_guard lock(mutex_);
  first_ = (first_ + 1) % sentinels_.size();
}

std::unique_ptr<RedisLink> RedisSentinels::next(Nanos limit) {
  doubt();
  std::size_t which = 0;
  {
    const std::lock_guard lock(mutex_);
    which = first_;
  }
  return std::make_unique<RedisLink>(address_of(which, limit));
}

// A sentinel that asks for a password is not signed in to here: then its answer says nothing, and the connections find
// out by themselves.
bool RedisWatch::moved() {
  const Nanos now = steady_now();
  try {
    if (link_ == nullptr) {
      if (now < last_ + kEvery) return false;
      last_ = now;
      link_ = sentinels_->next(kReplacement);
      asked_ = false;
    }
    if (asked_) {
      const auto reply = link_->read_if_there();
      if (reply) {
        asked_ = false;
        if (const auto place = sentinels_->read(*reply); place && *place != place_) return true;
      } else if (now > last_ + kAnswerTimeout) {
        link_.reset();
        return false;
      }
    }
    if (!asked_ && now >= last_ + kEvery) {
      last_ = now;
      sentinels_->ask(*link_);
      link_->send();
      asked_ = true;
    }
  } catch (const TierFailure& failure) {
    if (failure.error.fault != TierFault::kRejected) link_.reset();
  }
  return false;
}

void RedisWatch::forget() noexcept {
  if (link_ != nullptr) link_->forget();
}

}  // namespace stillwarm
