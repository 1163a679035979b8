// One connection of the Redis tier on a cluster: what its owner asks of the whole namespace. Thread rule and what it
// refuses to know: see redis_cluster.hpp.
//
// The same as on one server (redis_connection.cpp), with every master walked after the other, in the order of their
// places. A cursor is "SLOTS HOST PORT CURSOR": what the node at that place said last, and how often slots have changed
// hands. Where they did so meanwhile the walk ends with an error, for entries may have passed it by.
#include <algorithm>
#include <array>
#include <charconv>
#include <deque>
#include <numeric>
#include <optional>

#include "core/remote/redis_cluster.hpp"

namespace stillwarm {

namespace {

// Entries of one bucket, judged.
class Judgement : public RedisScriptWork {
 public:
  Judgement(const RedisTier& tier, const std::string& action)
      : RedisScriptWork(tier.call(RedisScript::kSurvey)), names_(tier.names()) {
    call_.arguments.push_back(action);
  }
  void add(std::string entry) {
    call_.arguments.push_back(names_.type_of(entry));
    entries_.push_back(entry.substr(names_.entries.size()));
    call_.keys.push_back(std::move(entry));
  }
  void tell(Query& request) const {
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      request.rows.push_back({entries_[i], std::to_string(told_[2 * i]), std::to_string(told_[2 * i + 1])});
    }
  }

 private:
  void told(RedisSession& /*session*/, const RedisReply& reply) override {
    told_.clear();
    for (std::size_t i = 0; i < 2 * entries_.size(); ++i) told_.push_back(reply.at(i).integer());
  }

  const RedisNames& names_;
  std::vector<std::string> entries_;
  std::vector<long long> told_;  // state and bytes of each
};

// One command on a key of the bucket's own.
class Command : public RedisWork {
 public:
  explicit Command(std::vector<std::string> words) : words_(std::move(words)) {}
  void add(std::string word) { words_.push_back(std::move(word)); }

  std::size_t ask(RedisSession& session) override {
    const std::vector<std::string_view> words(words_.begin(), words_.end());
    session.link().append(words);
    return 1;
  }
  void take(RedisSession& /*session*/, std::span<const OwnedReply> replies) override {
    expect_ok(replies[0]);
    told_.clear();
    if (!replies[0].array()) return;
    for (std::size_t i = 0; i < replies[0].size(); ++i) told_.emplace_back(replies[0].at(i).text());
  }
  const std::vector<std::string>& told() const noexcept { return told_; }

 private:
  std::vector<std::string> words_, told_;
};

struct Cursor {
  std::uint64_t slots = 0;
  RedisPlace place;
  std::string at;

  std::string text() const {
    return std::to_string(slots) + ' ' + place.first + ' ' + std::to_string(place.second) + ' ' + at;
  }
  static std::optional<Cursor> of(std::string_view text) {
    std::array<std::string_view, 4> words;
    for (auto& word : words) {
      word = text.substr(0, text.find(' '));
      text.remove_prefix(std::min(text.size(), word.size() + 1));
    }
    Cursor cursor{0, {std::string(words[1]), 0}, std::string(words[3])};
    std::from_chars(words[0].data(), words[0].data() + words[0].size(), cursor.slots);
    std::from_chars(words[2].data(), words[2].data() + words[2].size(), cursor.place.second);
    if (cursor.place.second == 0 || cursor.at.empty()) return std::nullopt;
    return cursor;
  }
};

TierFailure moved() {
  return TierFailure({TierFault::kUnavailable, "", "slots of the cluster have moved meanwhile; ask again"});
}

}  // namespace

bool RedisClusterLink::walk(Query& request) {
  const std::size_t given = request.parameters.size();
  if (request.text == "survey" && given >= 3) {
    survey(request);
  } else if (request.text == "hits" && given == 1) {
    hits(request);
  } else if (request.text == "forget hits") {
    forget_hits(request);
  } else if (request.text == "size" && given == 0) {
    size(request);
  } else {
    return false;
  }
  return true;
}

// As on one server, and the cursor "0" begins with the first master.
void RedisClusterLink::survey(Query& request) {
  const auto& given = request.parameters;
  std::vector<std::pair<std::uint32_t, std::string>> entries;
  if (given[1]->empty()) {
    for (std::size_t i = 2; i < given.size(); ++i) {
      const std::string_view name = *given[i];
      const auto colon = name.find(':');
      const std::uint32_t bucket = RedisNames::bucket(colon == name.npos ? name : name.substr(colon + 1));
      entries.emplace_back(bucket, cluster_->bucket(bucket).names().entries + *given[i]);
    }
    request.rows = {{"0"}};
    return judge(*given[0], std::move(entries), request);
  }
  auto masters = cluster_->slots().masters();
  std::sort(masters.begin(), masters.end());
  const auto epochs = cluster_->slots().epochs();
  Cursor cursor{std::accumulate(epochs.begin(), epochs.end(), std::uint64_t{0}), {}, "0"};
  if (masters.empty()) throw TierFailure({TierFault::kUnavailable, "CLUSTERDOWN", "no node of the cluster has a slot"});
  if (*given[1] == "0") {
    cursor.place = masters.front();
  } else {
    const auto from = Cursor::of(*given[1]);
    if (!from) throw TierFailure({TierFault::kRejected, "ERR", "it is no cursor of a survey"});
    if (from->slots != cursor.slots) throw moved();
    cursor = *from;
  }
  const std::string beginning = RedisNames::beginning_of(cluster_->options().namespace_name);
  {
    const std::string match = wider_glob(beginning) + "}:e:*";
    const OwnedReply step = nodes_.command(cursor.place, {"SCAN", cursor.at, "MATCH", match, "COUNT", *given[2]});
    expect_ok(step);
    cursor.at = step.at(0).text();
    for (std::size_t i = 0; i < step.at(1).size(); ++i) {
      const std::string_view entry = step.at(1).at(i).text();
      if (const auto bucket = cluster_->bucket_of(entry)) entries.emplace_back(*bucket, entry);
    }
  }
  std::string next = "0";
  if (cursor.at == "0") {
    const auto after = std::upper_bound(masters.begin(), masters.end(), cursor.place);
    if (after != masters.end()) {
      cursor.place = *after;
      next = cursor.text();
    }
  } else {
    next = cursor.text();
  }
  request.rows = {{next}};
  judge(*given[0], std::move(entries), request);
  const auto now = cluster_->slots().epochs();
  if (now != epochs) throw moved();
}

void RedisClusterLink::judge(const std::string& action, std::vector<std::pair<std::uint32_t, std::string>> entries,
                             Query& request) {
  std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (std::size_t done = 0; done < entries.size(); done += kSurveyed) {
    const auto part = std::span(entries).subspan(done, std::min(kSurveyed, entries.size() - done));
    std::deque<Judgement> works;
    std::vector<RedisNodes::Task> tasks;
    for (auto& [bucket, entry] : part) {
      if (tasks.empty() || tasks.back().bucket != bucket) {
        tasks.emplace_back(bucket, &works.emplace_back(cluster_->bucket(bucket), action), true);
      }
      works.back().add(std::move(entry));
    }
    nodes_.run(tasks);
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      if (tasks[i].error) throw TierFailure(tasks[i].error);
      works[i].tell(request);
    }
  }
}

// Of each bucket the most used, as many as the parameter says ("0": all): a row for each, name and hits.
void RedisClusterLink::hits(Query& request) {
  long long most = 0;
  const std::string& given = *request.parameters[0];
  std::from_chars(given.data(), given.data() + given.size(), most);
  std::deque<Command> works;
  std::vector<RedisNodes::Task> tasks;
  for (std::uint32_t b = 0; b < RedisNames::kBuckets; ++b) {
    works.emplace_back(std::vector<std::string>{"ZREVRANGE", cluster_->bucket(b).names().hits, "0",
                                                std::to_string(most - 1), "WITHSCORES"});
    tasks.emplace_back(b, &works.back(), true);
  }
  nodes_.run(tasks);
  request.rows.clear();
  for (std::uint32_t b = 0; b < RedisNames::kBuckets; ++b) {
    if (tasks[b].error) throw TierFailure(tasks[b].error);
    const auto& told = works[b].told();
    for (std::size_t i = 0; i + 1 < told.size(); i += 2) request.rows.push_back({told[i], told[i + 1]});
  }
}

// The parameters are names as "hits" tells them.
void RedisClusterLink::forget_hits(const Query& request) {
  std::vector<std::optional<Command>> works(RedisNames::kBuckets);
  std::vector<RedisNodes::Task> tasks;
  for (const auto& name : request.parameters) {
    const auto colon = name->find(':');
    const std::uint32_t bucket = RedisNames::bucket(colon == name->npos ? *name : name->substr(colon + 1));
    auto& work = works[bucket];
    if (!work) {
      work.emplace(std::vector<std::string>{"ZREM", cluster_->bucket(bucket).names().hits});
      tasks.emplace_back(bucket, &*work, true);
    }
    work->add(*name);
  }
  nodes_.run(tasks);
  for (const auto& task : tasks) {
    if (task.error) throw TierFailure(task.error);
  }
}

// How many keys all masters have together, others' too.
void RedisClusterLink::size(Query& request) {
  long long keys = 0;
  for (const auto& master : cluster_->slots().masters()) {
    const OwnedReply told = nodes_.command(master, {"DBSIZE"});
    expect_ok(told);
    keys += told.integer();
  }
  request.rows = {{std::to_string(keys)}};
}

}  // namespace stillwarm
