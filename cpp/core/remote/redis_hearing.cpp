#include "core/remote/redis_hearing.hpp"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "core/remote/guarded.hpp"
#include "core/remote/redis_cluster.hpp"
#include "core/remote/redis_tracking.hpp"

namespace stillwarm {

RedisHearing::RedisHearing(RedisCluster& cluster) : cluster_(cluster), readable_(::epoll_create1(EPOLL_CLOEXEC)) {
  if (readable_ < 0) throw TierFailure({TierFault::kUnavailable, "", "the process has no more file descriptors"});
}

RedisHearing::~RedisHearing() { ::close(readable_); }

// ---------------------------------------------------------------------------------------------------- subscriptions

bool RedisHearing::has(const RedisPlace& master) const noexcept {
  return std::any_of(subscriptions_.begin(), subscriptions_.end(), [&](const auto& s) { return s.place == master; });
}

void RedisHearing::enter(Subscription& one) {
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 0; i < places_.size(); ++i) {
    if (places_[i].load() != nullptr) continue;
    one.index = i;
    places_[i].store(one.link.get());
    return;
  }
  throw TierFailure({TierFault::kUnavailable, "", "the cluster has too many nodes"});
}

// By hand: the link's duplicate would keep its place in the set for as long as it lives.
void RedisHearing::strike(Subscription& one) noexcept {
  ::epoll_ctl(readable_, EPOLL_CTL_DEL, one.link->descriptor(), nullptr);
  const std::lock_guard lock(mutex_);
  places_[one.index].store(nullptr);
  one.link.reset();
}

bool RedisHearing::open(const RedisPlace& master, Nanos limit) {
  const RedisAddress address = cluster_.options().account.at(master, limit);
  Subscription one;
  one.place = master;
  one.link = std::make_unique<RedisLink>(address);
  subscriptions_.reserve(subscriptions_.size() + 1);
  enter(one);
  bool tracks = false;
  try {
    guarded(watchdog_, *one.link, limit, [&] {
      one.link->greet(address);
      tracks = track(*one.link);
      one.link->run({"SUBSCRIBE", kTracked});
    });
    epoll_event event{EPOLLIN, {}};
    if (::epoll_ctl(readable_, EPOLL_CTL_ADD, one.link->descriptor(), &event) != 0) {
      throw TierFailure({TierFault::kUnavailable, "", "the process has no more file descriptors"});
    }
  } catch (...) {
    strike(one);
    throw;
  }
  subscriptions_.push_back(std::move(one));
  speak();
  return tracks;
}

// Without the right, or on an old server, it does without.
bool RedisHearing::track(RedisLink& link) const {
  if (link.server_version() < kTracks) return false;
  link.append({"CLIENT", "ID"});
  const OwnedReply id = link.read();
  if (id.error()) return false;
  const std::string number = std::to_string(id.integer());
  std::vector<std::string_view> words = {"CLIENT", "TRACKING", "ON", "REDIRECT", number, "BCAST"};
  for (std::uint32_t b = 0; b < RedisNames::kBuckets; ++b) {
    words.insert(words.end(), {"PREFIX", cluster_.bucket(b).names().entries});
  }
  link.append(words);
  return !link.read().error();
}

void RedisHearing::keep(std::span<const RedisPlace> masters) {
  std::erase_if(subscriptions_, [&](Subscription& one) {
    if (std::find(masters.begin(), masters.end(), one.place) != masters.end()) return false;
    if (one.place == voice_) voice_ = {};
    strike(one);
    return true;
  });
  speak();
}

void RedisHearing::speak() {
  if (!voice_.first.empty() || subscriptions_.empty()) return;
  RedisLink& link = *subscriptions_.front().link;
  link.append({"SUBSCRIBE", cluster_.bucket(0).names().channel});
  link.send();  // its answer is one of the messages
  voice_ = subscriptions_.front().place;
}

// --------------------------------------------------------------------------------------------------------- messages

RedisHearing::News RedisHearing::read(std::string_view mine) {
  News news;
  for (auto& one : subscriptions_) hear(one, mine, news);
  return news;
}

void RedisHearing::hear(Subscription& one, std::string_view mine, News& news) {
  while (const auto message = one.link->read_if_there()) {
    expect_ok(*message);
    if (!message->array() || message->size() < 2) continue;
    if (message->at(0).text() == "pong") {
      one.pinged_at = 0;
      continue;
    }
    if (message->size() < 3 || message->at(0).text() != "message") continue;
    const RedisReply what = message->at(2);
    if (message->at(1).text() != kTracked) {
      if (what.text() != mine) ++news.told;
    } else if (!what.array()) {  // FLUSHALL
      news.all = true;
    } else {
      for (std::size_t i = 0; i < what.size() && !news.all; ++i) news.entries.emplace_back(what.at(i).text());
      if (news.entries.size() > kMostExamined) news.all = true;
    }
  }
}

void RedisHearing::ping() {
  const Nanos now = steady_now();
  for (auto& one : subscriptions_) {
    if (one.pinged_at != 0) {
      if (now - one.pinged_at <= kSilence) continue;
      throw TierFailure({TierFault::kTimeout, "", "the subscription does not answer"});
    }
    one.link->append({"PING"});
    one.link->send();
    one.pinged_at = now;
  }
}

// -------------------------------------------------------------------------------------------------------------- end

void RedisHearing::cut() noexcept {
  const std::lock_guard lock(mutex_);
  for (auto& place : places_) {
    if (RedisLink* link = place.load()) link->cut();
  }
}

// Without the lock, which a thread may hold that does not exist here.
void RedisHearing::forget() noexcept {
  for (auto& place : places_) {
    if (RedisLink* link = place.load()) link->forget();
  }
  ::close(readable_);
}

}  // namespace stillwarm
