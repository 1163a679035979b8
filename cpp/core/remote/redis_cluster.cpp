#include "core/remote/redis_cluster.hpp"

#include <algorithm>
#include <charconv>
#include <deque>

#include "core/base/clock.hpp"
#include "core/remote/watchdog.hpp"

namespace stillwarm {

namespace {

// A key has its own bucket's moments.
class ClusterInbox : public Inbox {
 public:
  ClusterInbox(Nanos max_lag, std::vector<std::shared_ptr<RedisTier>> buckets)
      : Inbox(max_lag), buckets_(std::move(buckets)) {}

  std::string moment(std::string_view key) const override {
    return buckets_[RedisNames::bucket(key)]->inbox()->moment(key);
  }
  bool trusts(std::string_view key, Nanos now) const noexcept override {
    return !waiting() && buckets_[RedisNames::bucket(key)]->inbox()->trusts(key, now);
  }
  void lost() noexcept override {
    for (const auto& bucket : buckets_) bucket->inbox()->lost();
    Inbox::lost();
  }

 private:
  const std::vector<std::shared_ptr<RedisTier>> buckets_;
};

std::vector<std::shared_ptr<RedisTier>> buckets_of(const RedisCluster::Options& options, Nanos max_lag) {
  std::vector<std::shared_ptr<RedisTier>> buckets;
  for (std::uint32_t b = 0; b < RedisNames::kBuckets; ++b) {
    RedisTier::Options one{options.account, options.namespace_name, options.process, {}, b};
    buckets.push_back(std::make_shared<RedisTier>(std::move(one), std::make_shared<Inbox>(max_lag)));
  }
  return buckets;
}

std::vector<std::string> marks_of(const std::vector<std::shared_ptr<RedisTier>>& buckets) {
  std::vector<std::string> keys;
  keys.reserve(buckets.size());
  for (const auto& bucket : buckets) keys.push_back(bucket->names().marks);
  return keys;
}

}  // namespace

RedisCluster::RedisCluster(Options options, Nanos max_lag)
    : options_(std::move(options)),
      buckets_(buckets_of(options_, max_lag)),
      slots_(marks_of(buckets_), options_.seeds),
      inbox_(std::make_shared<ClusterInbox>(max_lag, buckets_)) {}

std::unique_ptr<Link> RedisCluster::connect(TierError& error) {
  try {
    auto link = std::make_unique<RedisClusterLink>(shared_from_this());
    link->nodes().open();
    return link;
  } catch (const TierFailure& failure) {
    error = failure.error;
    return nullptr;
  }
}

void RedisCluster::set_process(const std::string& process) {
  for (const auto& bucket : buckets_) bucket->set_process(process);
  masters_.reset();
}

RedisCluster::Parts RedisCluster::parts() const {
  const auto places = slots_.masters();
  const Nanos now = steady_now();
  Parts parts{static_cast<unsigned>(places.size()), 0, masters_.some_answer(places)};
  for (const auto& place : places) parts.away += masters_.is_away(place, now) ? 1 : 0;
  return parts;
}

bool RedisCluster::is_away(std::string_view key) const {
  try {
    return masters_.failed_lately(slots_.owner(RedisNames::bucket(key)).place, steady_now());
  } catch (const TierFailure&) {  // nobody serves it
    return true;
  }
}

void RedisCluster::lock() {
  slots_.lock();
  masters_.lock();
  for (const auto& bucket : buckets_) {
    bucket->lock();
    bucket->inbox()->lock();
  }
}

void RedisCluster::unlock() {
  for (const auto& bucket : buckets_) {
    bucket->inbox()->unlock();
    bucket->unlock();
  }
  masters_.unlock();
  slots_.unlock();
}

std::optional<std::uint32_t> RedisCluster::bucket_of(std::string_view entry) const {
  const std::string beginning = RedisNames::beginning_of(options_.namespace_name);
  if (!entry.starts_with(beginning)) return std::nullopt;
  std::uint32_t bucket = RedisNames::kBuckets;
  std::from_chars(entry.data() + beginning.size(), entry.data() + entry.size(), bucket);
  if (bucket >= RedisNames::kBuckets || !buckets_[bucket]->names().key_of(entry)) return std::nullopt;
  return bucket;
}

void RedisCluster::poll(RedisNodes& nodes) {
  const Nanos began = Clock::now();
  const std::uint64_t round = inbox_->begin_poll().second;
  std::vector<std::uint64_t> rounds;
  std::deque<RedisGlance> glances;
  std::vector<RedisNodes::Task> looks;
  for (std::uint32_t b = 0; b < RedisNames::kBuckets; ++b) {
    rounds.push_back(buckets_[b]->inbox()->begin_poll().second);
    looks.emplace_back(b, &glances.emplace_back(*buckets_[b]), true);
  }
  nodes.run(looks);
  std::deque<RedisPoll> polls;
  std::vector<RedisNodes::Task> tasks;
  TierError error;
  for (std::uint32_t b = 0; b < RedisNames::kBuckets; ++b) {
    if (looks[b].error) {
      error = looks[b].error;
    } else if (glances[b].is_news()) {
      tasks.emplace_back(b, &polls.emplace_back(*buckets_[b]), true);
    } else {
      buckets_[b]->inbox()->confirm(rounds[b], began);
    }
  }
  if (!tasks.empty()) nodes.run(tasks);
  for (const auto& task : tasks) {
    if (task.error) error = task.error;
  }
  bool all = false;
  for (const auto& bucket : buckets_) {
    auto [messages, until] = bucket->inbox()->read();
    for (Message& message : messages) {
      // Of one bucket alone memory knows nothing.
      if (message.name != "all") {
        inbox_->post(std::move(message));
      } else if (!std::exchange(all, true)) {
        inbox_->post(std::move(message));
      }
    }
    bucket->inbox()->applied(until);
  }
  if (error) throw TierFailure(error);
  inbox_->end_poll({}, round, began, {});
}

}  // namespace stillwarm
