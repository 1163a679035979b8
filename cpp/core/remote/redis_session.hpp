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
  // The replies to the last calls that were appended. They may be errors; calls to a server that had forgotten the
  // scripts were made again.
  std::vector<OwnedReply> read(std::span<const RedisCall> calls);
  // One pipeline.
  std::vector<OwnedReply> run(std::span<const RedisCall> calls);
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
