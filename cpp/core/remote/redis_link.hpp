// One connection to Redis: commands in, replies out, and errors that say what they mean for the next call.
//
// Thread rule: used by one thread at a time; `cut` from any thread meanwhile.
// Refuses to know: keys, scripts, caches, certificates. It alone includes hiredis (0.14 or newer), beside redis_tls.
//
// Commands are written into a buffer and go out together with the first reply that is asked for: a pipeline is several
// `append` and as many `read`. The socket is duplicated, and `cut` shuts the duplicate down: see postgres_link.hpp.
#pragma once

#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/remote/redis_reply.hpp"
#include "core/remote/redis_tls.hpp"
#include "core/remote/remote_tier.hpp"

struct redisContext;  // hiredis's

namespace stillwarm {

using RedisPlace = std::pair<std::string, int>;  // host and port

// Where a server is, and who asks.
struct RedisAddress {
  std::string host;  // or the path of a Unix socket, which begins with a slash
  int port = 6379;
  int database = 0;
  std::string user{}, password{};  // empty: none
  Nanos connect_timeout = 1'000'000'000;
  RedisTls tls{};

  RedisAddress at(const RedisPlace& place, Nanos limit) const {
    RedisAddress there = *this;
    there.host = place.first;
    there.port = place.second;
    there.connect_timeout = limit;
    return there;
  }
};

class RedisLink {
 public:
  // Connects, with TLS if the address says so; blocks for the connect timeout at most. Throws TierFailure.
  explicit RedisLink(const RedisAddress& address);
  RedisLink(const RedisLink&) = delete;
  RedisLink& operator=(const RedisLink&) = delete;
  ~RedisLink();

  // Signs in, selects the database and asks for the version. Somebody watches: it may take for ever.
  void greet(const RedisAddress& address);
  void sign_in(const RedisAddress& address);

  void append(std::span<const std::string_view> command);
  // A command as it is sent, for `append_written`: of what is asked again and again.
  static std::string written(std::span<const std::string_view> command);
  void append_written(std::string_view command);
  // Every command from here on is one that a node was sent for while a slot moves: two replies each.
  void set_asking(bool asking) noexcept { asking_ = asking; }
  void append(std::initializer_list<std::string_view> command) {
    append(std::span<const std::string_view>(command.begin(), command.size()));
  }
  // Sends what was appended and waits for no reply. Throws TierFailure when the connection is lost.
  void send();
  // The next reply, which may be an error of the server's. Throws TierFailure when the connection is lost.
  OwnedReply read();
  // A reply that is here already, or arrives without waiting; nothing: there is none.
  std::optional<OwnedReply> read_if_there();
  // One command; throws TierFailure for an error too.
  OwnedReply run(std::initializer_list<std::string_view> command);

  bool usable() const noexcept;
  int server_version() const noexcept { return version_; }  // 70015 for 7.0.15
  bool in_cluster() const noexcept { return in_cluster_; }  // says the server
  // Of this life of the server: another one after each start. Empty: it does not say.
  const std::string& run_id() const noexcept { return run_id_; }
  int descriptor() const noexcept;

  void cut() noexcept;
  // In the child of a fork: closes descriptors, sends nothing; the rest is leaked on purpose.
  void forget() noexcept;

 private:
  struct Closer {
    void operator()(redisContext* link) const noexcept;
  };
  OwnedReply owned(void* reply) noexcept;
  void hand_over();  // what was appended, to hiredis
  void expect();     // a reply, for which there is room then

  std::unique_ptr<RedisArena> arena_;  // of the reply that is being read
  std::unique_ptr<redisContext, Closer> link_;
  std::string out_;  // what was appended, as it is sent
  int duplicate_ = -1;
  int version_ = 0;
  bool in_cluster_ = false;
  bool asking_ = false;
  const bool tls_;
  std::string run_id_;
};

// What an error of the server's means: "OOM ..." -> rejected, "LOADING ..." -> no use for now.
TierError redis_error(std::string_view text);
// Throws TierFailure where the reply is an error.
void expect_ok(const RedisReply& reply);

}  // namespace stillwarm
