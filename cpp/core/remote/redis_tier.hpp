// The Redis tier: requests become commands and scripts, replies become answers.
//
// Thread rule: RedisTier from any thread (what changes is under a lock of its own); each RedisConnection by one thread
// at a time. Refuses to know: Python, values, who asks; how requests are queued and merged (request_queue).
//
// How a look-up is one round trip without a script: marks first, then entries, then the time, as plain commands. What
// happens between them is younger than the moment that the look-up tells, so no load is stored over it, and is heard of
// as any message. Only an entry with tags that is older than the last mark of any tag is judged by a script.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/remote/inbox.hpp"
#include "core/remote/redis_names.hpp"
#include "core/remote/redis_repeats.hpp"
#include "core/remote/redis_sentinel.hpp"
#include "core/remote/redis_session.hpp"
#include "core/remote/watchdog.hpp"

namespace stillwarm {

class RedisTier : public Connector, public std::enable_shared_from_this<RedisTier> {
 public:
  struct Options {
    RedisAddress address;
    std::string namespace_name;
    std::string process;                             // tells this process's own messages from others'
    std::shared_ptr<RedisSentinels> sentinels = {};  // say where the server is; none: it is at the address
    std::optional<std::uint32_t> bucket = {};        // of a cluster: then this is one of its parts
  };

  RedisTier(Options options, std::shared_ptr<Inbox> inbox);

  std::unique_ptr<Link> connect(TierError& error) override;

  // Where the server is, at this moment.
  struct Where {
    RedisAddress address;
    std::unique_ptr<RedisWatch> watch;  // with sentinels
  };
  Where look();
  // A new connection, unwrapped: for the listener. Throws TierFailure.
  std::unique_ptr<RedisSession> open(const RedisAddress& address);

  // How often another server took the place of the one before. A connection of an earlier one is not used again.
  std::uint64_t server_count() const noexcept { return servers_.load(std::memory_order_acquire); }
  void note_another_server() noexcept { servers_.fetch_add(1, std::memory_order_acq_rel); }

  const Options& options() const noexcept { return options_; }
  const RedisNames& names() const noexcept { return names_; }
  const std::shared_ptr<Inbox>& inbox() const noexcept { return inbox_; }
  std::string process() const;
  void set_process(const std::string& process) override;

  void lock() override;
  void unlock() override;

  // A call of a script on the marks. Its first two arguments are here already.
  RedisCall call(RedisScript script, std::vector<std::string> keys = {}) const;
  // What was read or stored before the first ear heard of changes by others: names of entries and their versions.
  struct Unheard {
    bool all = false;  // too many, or this is not the first ear: anything at all
    std::vector<std::pair<std::string, std::string>> entries;
  };
  // An ear has opened.
  Unheard note_ear();
  void note_entry(std::string_view entry, std::string_view version);

  // A poll on this connection, from what the inbox has seen to what it sees now. Throws TierFailure.
  void poll(RedisSession& session);
  // (name, softness) each. Throws TierFailure.
  OwnedReply invalidate(RedisSession& session, std::span<const std::pair<std::string_view, bool>> what);
  // The server has taken an invalidation of this process's.
  void took(const RedisSession& session, const std::string& name, bool soft);
  // Says to the server what another one took of this process in the last minute. Throws TierFailure.
  void repeat(RedisSession& session);

 private:
  const Options options_;
  const RedisNames names_;
  const std::shared_ptr<Inbox> inbox_;
  std::atomic<bool> heard_{false};  // an ear has been open
  std::atomic<std::uint64_t> servers_{0};
  mutable std::mutex mutex_;
  Unheard unheard_;
  std::string process_;
  RedisRepeats repeats_;
};

class RedisConnection : public Link {
 public:
  RedisConnection(std::shared_ptr<RedisTier> tier, std::unique_ptr<RedisSession> session, std::uint64_t server)
      : tier_(std::move(tier)), session_(std::move(session)), server_(server) {}

  bool serve(std::span<Request* const> batch) override;
  bool ping() override;
  void cut() noexcept override { session_->cut(); }
  void forget() noexcept override { session_->forget(); }

 private:
  void perform(std::span<Request* const> batch);
  void invalidate(std::span<Request* const> batch);
  void match(Invalidate& request, long long number);
  void flush(const Flush& request);
  void query(Query& request);
  void survey(Query& request);

  std::shared_ptr<RedisTier> tier_;
  std::unique_ptr<RedisSession> session_;
  const std::uint64_t server_;  // RedisTier::server_count when it was opened
};

// A moment of the tier as text (see postgres_moment.hpp): the counter in place of a snapshot, the incarnation in place
// of a life of the server.
std::string redis_moment(std::string_view number, std::string_view incarnation);

// `bytes` random letters and digits, different in every process and at every call.
std::string random_text(std::size_t bytes);

}  // namespace stillwarm
