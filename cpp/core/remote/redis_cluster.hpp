// The Redis tier on a cluster: one namespace in 64 buckets, each of which is what a server of its own is elsewhere.
//
// Thread rule: RedisCluster from any thread; each RedisClusterLink by one thread at a time.
// Refuses to know: Python, values, who asks; how nodes are found and sent to (redis_nodes, redis_slots).
//
// A bucket is a RedisTier with names, an inbox and moments of its own, which knows nothing of the others. Here requests
// are taken apart by bucket, become works, go out together, and their answers are put together again:
//
//   look-up, write, lease, hits  to the buckets of their keys
//   key:K                        to the bucket of K
//   all type:T tag:T pattern:G   to every bucket. It is done when all have it; where one has not, the whole is owed and
//                                repeated, which does no harm
//   a poll                       to every bucket. Memory is trusted when all have answered
//
// A moment of several buckets is "BUCKET|moment;BUCKET|moment" (moment_in); of one it is that bucket's. Messages go
// from the buckets' inboxes to the tier's, and leave the former only then, so that no poll counts that has not brought
// what an earlier one found.
//
// A master that is away is a part of the tier: its circuit opens (redis_masters), its keys are misses, and errors that
// come of it are marked as a part's, so that the queue's breaker, which is the whole's, counts them only when no master
// answers. Trust has parts too: whatever concerns a key is told in its own bucket, so where that bucket was polled a
// hit is allowed, though memory as a whole cannot be confirmed.
//
// A pattern is looked for on every master. What a slot that moves takes along could be missed: where one changed hands
// meanwhile, or is just moving, the pattern is not done.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/remote/redis_masters.hpp"
#include "core/remote/redis_nodes.hpp"
#include "core/remote/redis_tier.hpp"

namespace stillwarm {

class RedisCluster : public Connector, public std::enable_shared_from_this<RedisCluster> {
 public:
  struct Options {
    RedisAddress account;  // how to sign in, and how long a connection may take
    std::vector<RedisPlace> seeds;
    std::string namespace_name;
    std::string process;
    Nanos timeout = 250'000'000;  // of an operation
  };

  explicit RedisCluster(Options options, Nanos max_lag);

  std::unique_ptr<Link> connect(TierError& error) override;
  void set_process(const std::string& process) override;
  Parts parts() const override;
  bool is_away(std::string_view key) const override;
  void lock() override;
  void unlock() override;

  const Options& options() const noexcept { return options_; }
  RedisSlots& slots() noexcept { return slots_; }
  const RedisSlots& slots() const noexcept { return slots_; }
  RedisMasters& masters() noexcept { return masters_; }
  RedisTier& bucket(std::uint32_t b) noexcept { return *buckets_[b]; }
  const std::shared_ptr<Inbox>& inbox() const noexcept { return inbox_; }

  // Of an entry's name; nothing: it is no entry's.
  std::optional<std::uint32_t> bucket_of(std::string_view entry) const;

  // Asks every bucket what happened. Throws TierFailure where one does not say.
  void poll(RedisNodes& nodes);

 private:
  const Options options_;
  std::vector<std::shared_ptr<RedisTier>> buckets_;
  RedisSlots slots_;
  RedisMasters masters_;
  std::shared_ptr<Inbox> inbox_;
};

class RedisClusterLink : public Link {
 public:
  explicit RedisClusterLink(std::shared_ptr<RedisCluster> cluster) : cluster_(std::move(cluster)), nodes_(*cluster_) {}

  RedisNodes& nodes() noexcept { return nodes_; }

  bool serve(std::span<Request* const> batch) override;
  bool ping() override { return nodes_.ping(); }
  void cut() noexcept override { nodes_.cut(); }
  void forget() noexcept override { nodes_.forget(); }

 private:
  using Groups = std::vector<std::vector<Request*>>;  // by bucket

  void perform(std::span<Request* const> batch);
  void look_up(std::span<Request* const> batch);
  void store(std::span<Request* const> batch);
  void invalidate(std::span<Request* const> batch);
  void match(Invalidate& request, const std::vector<long long>& numbers);
  void match_on(const RedisPlace& master, Invalidate& request, const std::vector<long long>& numbers);
  void flush(const Flush& request);
  void query(Query& request);
  // What looks at all buckets or masters. False: it is no such query.
  bool walk(Query& request);
  void survey(Query& request);
  void judge(const std::string& action, std::vector<std::pair<std::uint32_t, std::string>> entries, Query& request);
  void hits(Query& request);
  void forget_hits(const Query& request);
  void size(Query& request);
  // One work of one bucket. Throws TierFailure.
  void run(std::uint32_t bucket, RedisWork& work, Request& request);

  const std::shared_ptr<RedisCluster> cluster_;
  RedisNodes nodes_;
};

}  // namespace stillwarm
