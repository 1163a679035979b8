// A connection to Redis that knows the scripts: calls by hash, loaded when the server does not know them.
//
// Thread rule: as RedisLink.
// Refuses to know: what the scripts do.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/remote/redis_clock.hpp"
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
  RedisClock& clock() noexcept { return clock_; }
  // Appends the command that asks for the marks of these types.
  void append_marks(const std::string& marks, std::span<const std::string_view> types);

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
  RedisClock clock_;
  std::string asked_marks_, asked_type_, asks_marks_;  // the marks of one type that were asked for last; the command
  std::array<std::string, kRedisScripts> hashes_;
};

}  // namespace stillwarm
