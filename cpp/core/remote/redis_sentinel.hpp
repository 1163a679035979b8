// The sentinels of a service: which server is its master, and whether that is another by now.
//
// Thread rule: RedisSentinels from any thread (one short lock, never held while a sentinel is waited for, held across a
// fork by whoever forks); a RedisWatch by one thread at a time.
// Refuses to know: what the master is asked.
//
// At each connection the sentinels are asked in order, from the one that answered last. What a sentinel says may be
// late, so whoever connects verifies it with ROLE, and after a contradiction the next sentinel is asked first.
//
// A master that was cut off goes on answering those who are cut off with it, and one that was frozen goes on where it
// stopped. No error tells them from the real one. So while the cache is used the listener asks a sentinel every second,
// without waiting for it; when it names another, every connection to the old one is given up.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/remote/redis_link.hpp"

namespace stillwarm {

class Watchdog;

class RedisSentinels {
 public:
  using Place = RedisPlace;

  // `account`: how to sign in at a sentinel that asks for it, and how long a connection may take.
  RedisSentinels(std::vector<Place> sentinels, std::string service, RedisAddress account);

  struct Master {
    Place place;
    std::unique_ptr<RedisLink> link;  // to the sentinel that said so
  };
  // Throws TierFailure: none answers, or they know no such service.
  Master master(Watchdog& watchdog);
  // What the last one said is not so.
  void doubt();

  // Asks on this connection; the answer is for `read`. Nothing: the sentinel knows no such service.
  void ask(RedisLink& link) const;
  std::optional<Place> read(const RedisReply& reply) const;
  // A connection to some sentinel, the next at each call. Throws TierFailure.
  std::unique_ptr<RedisLink> next(Nanos limit);

  const std::string& service() const noexcept { return service_; }
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  RedisAddress address_of(std::size_t i, Nanos limit) const;
  std::optional<Place> question(RedisLink& link) const;

  const std::vector<Place> sentinels_;
  const std::string service_;
  const RedisAddress account_;
  std::mutex mutex_;
  std::size_t first_ = 0;  // is asked first
};

// Looks now and then whether the master is still the one that a connection leads to.
class RedisWatch {
 public:
  RedisWatch(std::shared_ptr<RedisSentinels> sentinels, RedisSentinels::Master master)
      : sentinels_(std::move(sentinels)), place_(std::move(master.place)), link_(std::move(master.link)) {}

  // True: a sentinel named another. Waits for no answer; a sentinel that is gone is replaced by the next.
  bool moved();
  void forget() noexcept;

 private:
  const std::shared_ptr<RedisSentinels> sentinels_;
  const RedisSentinels::Place place_;
  std::unique_ptr<RedisLink> link_;
  bool asked_ = false;
  Nanos last_ = 0;  // when it was asked, or when a sentinel was looked for
};

}  // namespace stillwarm
