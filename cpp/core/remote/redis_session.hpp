// A connection to Redis that knows the scripts: calls by hash, loaded when the server does not know them.
//
// Thread rule: as RedisLink.
// Refuses to know: what the scripts do.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "core/remote/redis_link.hpp"
#include "core/remote/redis_scripts.hpp"

namespace stillwarm {

class RedisWork;

struct RedisCall {
  RedisScript script{};
  std::vector<std::string> keys;
  std::vector<std::string> arguments;
};

class RedisSession {
 public:
  explicit RedisSession(const RedisAddress& address) : link_(address) {}

  RedisLink& link() noexcept { return link_; }
  const RedisLink& link() const noexcept { return link_; }

  // Signs in and loads the scripts. Somebody watches.
  void begin(const RedisAddress& address);
  void append(const RedisCall& call);
  // As many replies, which may be errors.
  std::vector<OwnedReply> read(std::size_t count);
  // Whether one says that the server has forgotten the scripts: then they are there again, and all is to be asked once
  // more.
  bool renewed(std::span<const OwnedReply> replies);

  // One round trip.
  void run(RedisWork& work);
  // Throws TierFailure for an error too.
  OwnedReply run(const RedisCall& call);

  void cut() noexcept { link_.cut(); }
  void forget() noexcept { link_.forget(); }

 private:
  void load_scripts();

  RedisLink link_;
  std::array<std::string, kRedisScripts> hashes_;
};

}  // namespace stillwarm
