#include "core/remote/redis_cluster_ear.hpp"

#include <map>
#include <optional>
#include <utility>

#include "core/base/clock.hpp"

namespace stillwarm {

namespace {

class Renewal : public RedisScriptWork {
 public:
  explicit Renewal(Nanos age) : RedisScriptWork({RedisScript::kRenew, {}, {std::to_string(age / 1'000'000)}}) {}
  void add(std::string name, const std::string& owner) {
    call_.keys.push_back(std::move(name));
    call_.arguments.push_back(owner);
  }
};

// Entries of one bucket, and what each is expected to have; empty: the head that the bucket gives.
class Examination : public RedisWork {
 public:
  Examination(const RedisTier& tier, std::size_t at) : marks_(tier.names().marks), first_(std::to_string(at)) {}

  void add(std::string_view entry, std::string_view expected) {
    entries_.push_back(entry);
    expected_.push_back(expected);
    const std::size_t size = expected.empty() ? RedisHead::kBorn : expected.size();
    last_.push_back(std::to_string(std::stoul(first_) + size - 1));
  }

  std::size_t ask(RedisSession& session) override {
    RedisLink& link = session.link();
    link.append({"HGET", marks_, "i"});
    for (std::size_t i = 0; i < entries_.size(); ++i) link.append({"GETRANGE", entries_[i], first_, last_[i]});
    return 1 + entries_.size();
  }

  void take(RedisSession& /*session*/, std::span<const OwnedReply> replies) override {
    expect_ok(replies[0]);
    const std::string head = "1" + (replies[0].nil() ? std::string() : std::string(replies[0].text()));
    std::vector<std::string_view> changed;
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      const RedisReply& there = replies[1 + i];
      const std::string_view wanted = expected_[i].empty() ? std::string_view(head) : expected_[i];
      if (there.error() || there.nil() || !there.text().starts_with(wanted)) changed.push_back(entries_[i]);
    }
    changed_ = std::move(changed);
  }

  // Before it was taken: all of them, for nobody knows.
  const std::vector<std::string_view>& changed() const noexcept { return changed_ ? *changed_ : entries_; }

 private:
  const std::string& marks_;
  const std::string first_;
  std::vector<std::string_view> entries_, expected_;
  std::vector<std::string> last_;
  std::optional<std::vector<std::string_view>> changed_;
};

}  // namespace

RedisClusterEar::RedisClusterEar(std::shared_ptr<RedisCluster> cluster)
    : cluster_(std::move(cluster)), mine_(cluster_->bucket(0).process()), asks_(*cluster_), hears_(*cluster_) {
  asks_.set_probing();
}

void RedisClusterEar::open() {
  asks_.open();
  follow();
  if (hears_.empty()) throw TierFailure({TierFault::kUnavailable, "", "no master of the cluster lets anybody listen"});
}

void RedisClusterEar::follow() {
  const auto masters = cluster_->slots().masters();
  hears_.keep(masters);
  for (const auto& master : masters) {
    if (hears_.has(master) || !asks_.answers(master)) continue;
    bool tracks = false;
    try {
      tracks = hears_.open(master, cluster_->options().account.connect_timeout);
    } catch (const TierFailure&) {  // the others are heard; the next poll tries again
      continue;
    }
    note_heard(master, tracks);
  }
}

// Only now nothing escapes: what was read or stored before may have been changed by somebody whom no poll knows of.
void RedisClusterEar::note_heard(const RedisPlace& master, bool tracks) {
  std::vector<Doubt> doubts;
  bool all = false;
  for (std::uint32_t b = 0; b < RedisNames::kBuckets; ++b) {
    if (!cluster_->slots().is_at(b, master)) continue;
    auto unheard = cluster_->bucket(b).note_ear();
    all = all || unheard.all;
    for (auto& [entry, version] : unheard.entries) doubts.push_back({std::move(entry), std::move(version)});
  }
  if (!tracks) return;
  if (all) return cluster_->inbox()->post({"all", true});
  examine(doubts, RedisHead::kVersion);
}

int RedisClusterEar::heard() {
  const RedisHearing::News news = hears_.read(mine_);
  if (news.all) {
    cluster_->inbox()->post({"all", true});
  } else {
    std::vector<Doubt> doubts;
    doubts.reserve(news.entries.size());
    for (const auto& entry : news.entries) doubts.push_back({entry, {}});
    examine(doubts, 0);
  }
  return news.told;
}

void RedisClusterEar::examine(const std::vector<Doubt>& doubts, std::size_t at) {
  std::map<std::uint32_t, Examination> works;
  for (const auto& [entry, expected] : doubts) {
    const auto bucket = cluster_->bucket_of(entry);
    if (!bucket) continue;
    works.try_emplace(*bucket, cluster_->bucket(*bucket), at).first->second.add(entry, expected);
  }
  std::vector<RedisNodes::Task> tasks;
  tasks.reserve(works.size());
  for (auto& [bucket, work] : works) tasks.emplace_back(bucket, &work, true);
  limit();
  if (!tasks.empty()) asks_.run(tasks);
  for (const auto& [bucket, work] : works) {
    for (const auto entry : work.changed()) tell_of(entry);
  }
}

void RedisClusterEar::tell_of(std::string_view entry) {
  const auto bucket = cluster_->bucket_of(entry);
  const auto key = cluster_->bucket(*bucket).names().key_of(entry);
  if (key) cluster_->inbox()->post({"key:" + std::string(*key), false});
}

// The listener gives an operation the timeout; a poll may need two rounds, and the second some time of its own.
void RedisClusterEar::limit() { asks_.set_limit(steady_now() + cluster_->options().timeout / 5 * 3); }

void RedisClusterEar::poll() {
  hears_.ping();
  limit();
  try {
    cluster_->poll(asks_);
  } catch (const TierFailure&) {  // what the others said counts, of their keys
    if (!cluster_->parts().some_answer) throw;
  }
  follow();
}

void RedisClusterEar::renew(std::span<const HeldLease> leases, Nanos age) {
  std::map<std::uint32_t, Renewal> works;
  for (const auto& lease : leases) {
    const std::uint32_t bucket = RedisNames::bucket_of_lease(lease.key);
    works.try_emplace(bucket, age).first->second.add(cluster_->bucket(bucket).names().lease(lease.key), lease.owner);
  }
  std::vector<RedisNodes::Task> tasks;
  tasks.reserve(works.size());
  for (auto& [bucket, work] : works) tasks.emplace_back(bucket, &work, true);
  limit();
  asks_.run(tasks);
  const bool some_answer = cluster_->parts().some_answer;
  for (const auto& task : tasks) {
    if (task.error && !some_answer) throw TierFailure(task.error);
  }
}

void RedisClusterEar::check() {
  if (!asks_.ping()) throw TierFailure({TierFault::kUnavailable, "", "no node of the cluster answers"});
}

void RedisClusterEar::cut() noexcept {
  asks_.cut();
  hears_.cut();
}

void RedisClusterEar::forget() noexcept {
  asks_.forget();
  hears_.forget();
}

std::unique_ptr<Ear> RedisClusterEars::open_ear() {
  auto ear = std::make_unique<RedisClusterEar>(cluster_);
  ear->open();
  return ear;
}

}  // namespace stillwarm
