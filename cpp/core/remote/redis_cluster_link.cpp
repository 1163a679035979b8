// One connection of the Redis tier on a cluster: what concerns some keys. Thread rule and what it refuses to know: see
// redis_cluster.hpp; what concerns every bucket: redis_cluster_walk.cpp.
#include <algorithm>
#include <deque>
#include <map>
#include <optional>

#include "core/remote/redis_cluster.hpp"
#include "core/remote/watchdog.hpp"

namespace stillwarm {

namespace {

constexpr Nanos kStep = 2'000'000'000;

}  // namespace

bool RedisClusterLink::serve(std::span<Request* const> batch) {
  Nanos deadline = 0;
  for (Request* r : batch) {
    r->error = {};
    deadline = std::max(deadline, r->background ? 0 : r->deadline);
  }
  const Nanos now = steady_now();
  const Nanos timeout = batch.front()->timeout > 0 ? batch.front()->timeout : cluster_->options().timeout;
  // A master that does not answer must not make the watchdog cut the connections to the others.
  // A request with time of its own walks far, and each of its steps is short.
  const Nanos each = batch.front()->timeout > 0 ? std::max(cluster_->options().timeout, kStep) : kForever;
  const bool polls = batch.front()->kind == Request::Kind::kPoll;  // a second round needs some time of its own
  nodes_.set_limit(now + (deadline > now ? deadline - now : timeout) / 5 * (polls ? 3 : 4), each);
  try {
    perform(batch);
  } catch (const TierFailure& failure) {
    for (Request* r : batch) r->error = failure.error;
  }
  if (std::any_of(batch.begin(), batch.end(), [](const Request* r) { return bool(r->error); })) {
    const bool some_answer = cluster_->parts().some_answer;
    for (Request* r : batch) r->error.part = some_answer && r->error && r->error.fault != TierFault::kRejected;
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
// What looks at every bucket: redis_cluster_survey.cpp.
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
  const bool complete = std::all_of(given.begin(), given.end(), [](const auto& word) { return word.has_value(); });
  if (complete && walk(request)) return;
  if (request.text != "command" || given.empty()) {
    throw TierFailure({TierFault::kRejected, "ERR", "the Redis tier has no such query on a cluster"});
  }
  const auto masters = cluster_->slots().masters();
  if (masters.empty()) throw TierFailure({TierFault::kUnavailable, "CLUSTERDOWN", "no node of the cluster has a slot"});
  RedisPlace place = masters.front();
  for (int hops = 0;; ++hops) {
    std::vector<std::string_view> words;
    words.reserve(given.size());
    for (const auto& word : given) words.emplace_back(word ? std::string_view(*word) : std::string_view());
    const OwnedReply reply = nodes_.command(place, words);
    const auto error = reply.error();
    const bool moved = error && error->starts_with("MOVED ") && hops < RedisNodes::kMostRedirects;
    const auto there = moved ? RedisSlots::place_in(*error, place) : std::nullopt;
    if (!there) return RedisCommand(request).tell(reply);
    place = *there;
  }
}

}  // namespace stillwarm
