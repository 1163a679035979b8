#include "core/remote/redis_cluster.hpp"

#include <algorithm>
#include <charconv>
#include <deque>
#include <map>
#include <optional>

#include "core/base/clock.hpp"
#include "core/remote/glob.hpp"

namespace stillwarm {

namespace {

constexpr std::string_view kPatternName = "pattern:";
constexpr std::string_view kScanned = "1000";  // keys that a node looks at in one step of a scan

// A key has its own bucket's moments.
class ClusterInbox : public Inbox {
 public:
  ClusterInbox(Nanos max_lag, std::vector<std::shared_ptr<RedisTier>> buckets)
      : Inbox(max_lag), buckets_(std::move(buckets)) {}

  std::string moment(std::string_view key) const override {
    return buckets_[RedisNames::bucket(key)]->inbox()->moment(key);
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

// ------------------------------------------------------------------------------------------------------- the cluster

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
}

void RedisCluster::lock() {
  slots_.lock();
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
  slots_.unlock();
}

void RedisCluster::poll(RedisNodes& nodes) {
  const Nanos began = Clock::now();
  const std::uint64_t round = inbox_->begin_poll().second;
  std::deque<RedisGlance> glances;
  std::vector<RedisNodes::Task> looks;
  for (std::uint32_t b = 0; b < RedisNames::kBuckets; ++b) {
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

// ---------------------------------------------------------------------------------------------------------- requests

bool RedisClusterLink::serve(std::span<Request* const> batch) {
  for (Request* r : batch) r->error = {};
  try {
    perform(batch);
  } catch (const TierFailure& failure) {
    for (Request* r : batch) r->error = failure.error;
  }
  return !nodes_.is_cut();
}

void RedisClusterLink::perform(std::span<Request* const> batch) {
  switch (batch.front()->kind) {
    case Request::Kind::kLookUp:
      return look_up(batch);
    case Request::Kind::kStore:
      return store(batch);
    case Request::Kind::kInvalidate:
      return invalidate(batch);
    case Request::Kind::kPoll:
      return cluster_->poll(nodes_);
    case Request::Kind::kLease: {
      auto& request = static_cast<Lease&>(*batch.front());
      const std::uint32_t bucket = RedisNames::bucket_of_lease(request.key);
      RedisLease work(cluster_->bucket(bucket), request);
      return run(bucket, work, request);
    }
    case Request::Kind::kFlush:
      return flush(static_cast<const Flush&>(*batch.front()));
    case Request::Kind::kQuery:
      return query(static_cast<Query&>(*batch.front()));
  }
}

void RedisClusterLink::run(std::uint32_t bucket, RedisWork& work, Request& request) {
  RedisNodes::Task task(bucket, &work, request.idempotent);
  nodes_.run({&task, 1});
  if (task.error) throw TierFailure(task.error);
}

void RedisClusterLink::look_up(std::span<Request* const> batch) {
  // A request's keys of one bucket.
  struct Part {
    LookUp asks;
    LookUp* whole = nullptr;
    std::vector<std::size_t> places;
    std::uint32_t bucket = 0;
  };
  std::deque<Part> parts;
  Groups groups(RedisNames::kBuckets);
  for (Request* r : batch) {
    auto& whole = static_cast<LookUp&>(*r);
    whole.found.assign(whole.keys.size(), {});
    whole.seen.clear();
    whole.taken = false;
    std::map<std::uint32_t, Part*> of_bucket;
    for (std::size_t i = 0; i < whole.keys.size(); ++i) {
      const std::uint32_t bucket = RedisNames::bucket(whole.keys[i]);
      Part*& part = of_bucket[bucket];
      if (part == nullptr) {
        part = &parts.emplace_back();
        part->whole = &whole;
        part->bucket = bucket;
        groups[bucket].push_back(&part->asks);
      }
      part->asks.keys.push_back(whole.keys[i]);
      part->asks.types.push_back(whole.types[i]);
      part->places.push_back(i);
    }
    if (whole.keys.size() != 1 || whole.lease.empty()) continue;
    if (RedisNames::bucket_of_lease(whole.lease) != parts.back().bucket) continue;
    parts.back().asks.lease = whole.lease;
    parts.back().asks.owner = whole.owner;
    parts.back().asks.lease_age = whole.lease_age;
  }
  std::deque<RedisLookUp> works;
  std::vector<RedisNodes::Task> tasks;
  for (std::uint32_t b = 0; b < groups.size(); ++b) {
    if (groups[b].empty()) continue;
    tasks.emplace_back(b, &works.emplace_back(cluster_->bucket(b), groups[b]), true);
  }
  nodes_.run(tasks);
  std::vector<TierError> errors(RedisNames::kBuckets);
  for (const auto& task : tasks) errors[task.bucket] = task.error;
  for (Part& part : parts) {
    LookUp& whole = *part.whole;
    if (errors[part.bucket]) {
      whole.error = errors[part.bucket];
      continue;
    }
    if (!whole.seen.empty()) whole.seen += ';';
    ((whole.seen += std::to_string(part.bucket)) += '|') += part.asks.seen;
    whole.taken = part.asks.taken;
    for (std::size_t i = 0; i < part.places.size(); ++i) whole.found[part.places[i]] = std::move(part.asks.found[i]);
  }
}

void RedisClusterLink::store(std::span<Request* const> batch) {
  Groups groups(RedisNames::kBuckets);
  for (Request* r : batch) groups[RedisNames::bucket(static_cast<const Store&>(*r).key)].push_back(r);
  std::deque<RedisStores> works;
  std::vector<RedisNodes::Task> tasks;
  for (std::uint32_t b = 0; b < groups.size(); ++b) {
    if (groups[b].empty()) continue;
    tasks.emplace_back(b, &works.emplace_back(cluster_->bucket(b), groups[b]), batch.front()->idempotent);
  }
  nodes_.run(tasks);
  for (const auto& task : tasks) {
    if (!task.error) continue;
    const bool answered = task.error.fault == TierFault::kRejected || !task.error.state.empty();
    for (Request* r : groups[task.bucket]) {
      r->error = task.error;
      if (r->once && task.sent && !answered) r->error.fault = TierFault::kInDoubt;
    }
  }
}

void RedisClusterLink::invalidate(std::span<Request* const> batch) {
  struct Place {
    std::uint32_t bucket;
    std::size_t index;  // in the bucket's work
  };
  Groups groups(RedisNames::kBuckets);
  std::vector<std::vector<Place>> places(batch.size());
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const auto& request = static_cast<const Invalidate&>(*batch[i]);
    const bool of_key = request.name.starts_with("key:");
    const std::uint32_t first = of_key ? RedisNames::bucket(std::string_view(request.name).substr(4)) : 0;
    for (std::uint32_t b = first; b < (of_key ? first + 1 : RedisNames::kBuckets); ++b) {
      places[i].push_back({b, groups[b].size()});
      groups[b].push_back(batch[i]);
    }
  }
  std::deque<RedisInvalidations> works;
  std::vector<RedisNodes::Task> tasks;
  std::vector<std::size_t> task_of(RedisNames::kBuckets);
  for (std::uint32_t b = 0; b < groups.size(); ++b) {
    if (groups[b].empty()) continue;
    task_of[b] = tasks.size();
    tasks.emplace_back(b, &works.emplace_back(cluster_->bucket(b), groups[b]), true);
  }
  nodes_.run(tasks);
  for (std::size_t i = 0; i < batch.size(); ++i) {
    auto& request = static_cast<Invalidate&>(*batch[i]);
    std::vector<long long> numbers;
    request.count = 0;
    for (const auto& [bucket, index] : places[i]) {
      const auto& task = tasks[task_of[bucket]];
      if (task.error) {
        request.error = task.error;
        continue;
      }
      request.count += works[task_of[bucket]].count(index);
      numbers.push_back(works[task_of[bucket]].number(index));
    }
    if (request.error || request.variant != Invalidate::kPattern) continue;
    try {
      match(request, numbers);
    } catch (const TierFailure& failure) {
      request.error = failure.error;
    }
  }
}

void RedisClusterLink::match(Invalidate& request, const std::vector<long long>& numbers) {
  const auto before = cluster_->slots().epochs();
  request.count = 0;
  for (const auto& master : cluster_->slots().masters()) match_on(master, request, numbers);
  // A slot that moves now would answer TRYAGAIN, and one that has moved is another's.
  std::deque<RedisMatches> works;
  std::vector<RedisNodes::Task> tasks;
  for (std::uint32_t b = 0; b < RedisNames::kBuckets; ++b) {
    works.emplace_back(cluster_->bucket(b), std::vector<std::string>(), request.soft, numbers[b]);
    tasks.emplace_back(b, &works.back(), true);
  }
  nodes_.run(tasks);
  for (const auto& task : tasks) {
    if (task.error) throw TierFailure(task.error);
  }
  if (cluster_->slots().epochs() != before) {
    throw TierFailure({TierFault::kUnavailable, "", "slots of the cluster have moved meanwhile"});
  }
}

// By one pass over a master's keys. The fence is there already: what is loading now is not stored, and what was stored
// after it is younger than the pattern.
void RedisClusterLink::match_on(const RedisPlace& master, Invalidate& request, const std::vector<long long>& numbers) {
  const std::string beginning = RedisNames::beginning_of(cluster_->options().namespace_name);
  const std::string_view glob = std::string_view(request.name).substr(kPatternName.size());
  const std::string match = wider_glob(beginning) + "}:e:*:" + wider_glob(glob);
  std::string cursor = "0";
  do {
    std::map<std::uint32_t, std::vector<std::string>> entries;
    {
      const OwnedReply step = nodes_.session(master).link().run({"SCAN", cursor, "MATCH", match, "COUNT", kScanned});
      cursor = step.at(0).text();
      for (std::size_t i = 0; i < step.at(1).size(); ++i) {
        const std::string_view entry = step.at(1).at(i).text();
        std::uint32_t bucket = RedisNames::kBuckets;
        if (entry.size() <= beginning.size()) continue;
        std::from_chars(entry.data() + beginning.size(), entry.data() + entry.size(), bucket);
        if (bucket >= RedisNames::kBuckets) continue;
        const auto key = cluster_->bucket(bucket).names().key_of(entry);
        if (key && glob_matches(glob, *key)) entries[bucket].emplace_back(entry);
      }
    }
    std::deque<RedisMatches> works;
    std::vector<RedisNodes::Task> tasks;
    tasks.reserve(entries.size());
    for (auto& [bucket, names] : entries) {
      works.emplace_back(cluster_->bucket(bucket), std::move(names), request.soft, numbers[bucket]);
      tasks.emplace_back(bucket, &works.back(), true);
    }
    nodes_.run(tasks);
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      if (tasks[i].error) throw TierFailure(tasks[i].error);
      request.count += works[i].count();
    }
  } while (cursor != "0");
}

void RedisClusterLink::flush(const Flush& request) {
  std::map<std::uint32_t, RedisHits> works;
  for (std::size_t i = 0; i < request.keys.size(); ++i) {
    const std::uint32_t bucket = RedisNames::bucket(request.keys[i]);
    const auto work = works.try_emplace(bucket, cluster_->bucket(bucket), request).first;
    work->second.add(request.types[i], request.keys[i], request.hits[i]);
  }
  std::vector<RedisNodes::Task> tasks;
  tasks.reserve(works.size());
  for (auto& [bucket, work] : works) tasks.emplace_back(bucket, &work, true);
  nodes_.run(tasks);
  for (const auto& task : tasks) {
    if (task.error) throw TierFailure(task.error);
  }
}

// "done": see RedisDone; the third parameter says what was written. "command": to some master, or where that sends it.
void RedisClusterLink::query(Query& request) {
  request.sent = true;
  const auto& given = request.parameters;
  if (request.text == "done" && given.size() == 3) {
    const std::string name = given[2].value_or("");
    const std::uint32_t bucket =
        RedisNames::bucket(std::string_view(name).substr(std::min<std::size_t>(4, name.size())));
    RedisDone work(cluster_->bucket(bucket), request);
    return run(bucket, work, request);
  }
  if (request.text != "command" || given.empty()) {
    throw TierFailure({TierFault::kRejected, "ERR", "the Redis tier has no such query on a cluster"});
  }
  const auto masters = cluster_->slots().masters();
  if (masters.empty()) throw TierFailure({TierFault::kUnavailable, "CLUSTERDOWN", "no node of the cluster has a slot"});
  RedisPlace place = masters.front();
  for (int hops = 0;; ++hops) {
    RedisCommand work(request);
    RedisSession& session = nodes_.session(place);
    const auto replies = session.read(work.ask(session));
    const auto error = replies[0].error();
    const bool moved = error && error->starts_with("MOVED ") && hops < RedisNodes::kMostRedirects;
    const auto there = moved ? RedisSlots::place_in(*error, place) : std::nullopt;
    if (!there) return work.take(session, replies);
    place = *there;
  }
}

}  // namespace stillwarm
