// What an ear on a cluster hears with: a subscription on every master, all of them behind one descriptor.
//
// Thread rule: one thread at a time; `cut` from any thread meanwhile, `forget` in the child of a fork.
// Refuses to know: what the messages mean for memory, when it is asked, which master is worth a connection.
//
// Each connection is subscribed to the server's own messages about changed keys and has client tracking switched on,
// redirected to itself: so it is lost as a whole or not at all, and nobody tracks for a listener that is gone. Every
// master tracks the entries of every bucket, for a slot may move there at any time. One of them, the voice, is
// subscribed to the namespace's channel besides: what is published on one node is heard on all, and once is enough.
//
// Where tracking is not allowed the connection stays: it may be the voice, and tells that its master is gone.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/remote/redis_link.hpp"
#include "core/remote/redis_nodes.hpp"
#include "core/remote/watchdog.hpp"

namespace stillwarm {

class RedisCluster;

class RedisHearing {
 public:
  // Throws TierFailure: no more descriptors.
  explicit RedisHearing(RedisCluster& cluster);
  RedisHearing(const RedisHearing&) = delete;
  RedisHearing& operator=(const RedisHearing&) = delete;
  ~RedisHearing();

  struct News {
    int told = 0;                      // messages of other processes on the channel
    bool all = false;                  // anything may have changed (FLUSHALL, or too much at once)
    std::vector<std::string> entries;  // that were written, deleted, evicted, or have expired
  };
  // What arrived. Throws TierFailure: a subscription is lost, and what it would have told is unknown.
  News read(std::string_view mine);

  bool has(const RedisPlace& master) const noexcept;
  // Subscribes there, within `limit`. Whether the server tracks for it. Throws TierFailure, and then nothing changed.
  bool open(const RedisPlace& master, Nanos limit);
  // Ends what is on none of these.
  void keep(std::span<const RedisPlace> masters);
  bool empty() const noexcept { return subscriptions_.empty(); }
  // Asks each for a sign of life. Throws TierFailure where the last question has had no answer for too long.
  void ping();

  int descriptor() const noexcept { return readable_; }
  void cut() noexcept;
  void forget() noexcept;

 private:
  struct Subscription {
    RedisPlace place;
    std::size_t index = 0;  // in places_
    std::unique_ptr<RedisLink> link;
    Nanos pinged_at = 0;  // 0: it has answered
  };
  using Subscriptions = std::vector<Subscription>;

  void enter(Subscription& one);
  void strike(Subscription& one) noexcept;
  bool track(RedisLink& link) const;
  // Some subscription is the voice.
  void speak();
  void hear(Subscription& one, std::string_view mine, News& news);

  RedisCluster& cluster_;
  const int readable_;  // epoll: any of them
  Subscriptions subscriptions_;
  RedisPlace voice_;  // an empty host: none
  Watchdog watchdog_;
  std::mutex mutex_;  // places_ and the life of what they point to, against `cut`
  std::array<std::atomic<RedisLink*>, RedisNodes::kMostNodes> places_{};
};

}  // namespace stillwarm
