// One connection of the Redis tier on a cluster: what concerns every bucket, or every master. Thread rule and what it
// refuses to know: see redis_cluster.hpp.
#include <algorithm>
#include <deque>
#include <map>

#include "core/remote/glob.hpp"
#include "core/remote/redis_cluster.hpp"

namespace stillwarm {

// ----------------------------------------------------------------------------------------------------- invalidations

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
  const std::string_view glob = std::string_view(request.name).substr(Invalidate::kPatternName.size());
  const std::string match = wider_glob(beginning) + "}:e:*:" + wider_glob(glob);
  std::string cursor = "0";
  do {
    std::map<std::uint32_t, std::vector<std::string>> entries;
    {
      const OwnedReply step = nodes_.command(master, {"SCAN", cursor, "MATCH", match, "COUNT", kScanned});
      expect_ok(step);
      cursor = step.at(0).text();
      for (std::size_t i = 0; i < step.at(1).size(); ++i) {
        const std::string_view entry = step.at(1).at(i).text();
        const auto bucket = cluster_->bucket_of(entry);
        if (!bucket) continue;
        const auto key = cluster_->bucket(*bucket).names().key_of(entry);
        if (glob_matches(glob, *key)) entries[*bucket].emplace_back(entry);
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

}  // namespace stillwarm
