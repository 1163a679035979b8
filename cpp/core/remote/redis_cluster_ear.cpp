#include "core/remote/redis_cluster_ear.hpp"

#include <map>
#include <utility>

#include "core/base/clock.hpp"
#include "core/remote/guarded.hpp"

namespace stillwarm {

namespace {

constexpr Nanos kSilence = 1'000'000'000;

class Renewal : public RedisScriptWork {
 public:
  explicit Renewal(Nanos age) : RedisScriptWork({RedisScript::kRenew, {}, {std::to_string(age / 1'000'000)}}) {}
  void add(std::string name, const std::string& owner) {
    call_.keys.push_back(std::move(name));
    call_.arguments.push_back(owner);
  }
};

}  // namespace

RedisClusterEar::RedisClusterEar(std::shared_ptr<RedisCluster> cluster, std::unique_ptr<RedisSession> hears)
    : cluster_(std::move(cluster)), asks_(*cluster_), hears_(std::move(hears)) {}

int RedisClusterEar::heard() {
  if (!begun_) {
    mine_ = cluster_->bucket(0).process();
    hears_->link().run({"SUBSCRIBE", cluster_->bucket(0).names().channel});
    for (std::uint32_t b = 0; b < RedisNames::kBuckets; ++b) cluster_->bucket(b).note_ear();
    begun_ = true;
  }
  int heard = 0;
  while (const auto message = hears_->link().read_if_there()) {
    expect_ok(*message);
    if (!message->array() || message->size() < 2) continue;
    if (message->at(0).text() == "pong") {
      pinged_at_ = 0;
    } else if (message->size() == 3 && message->at(0).text() == "message" && message->at(2).text() != mine_) {
      ++heard;
    }
  }
  return heard;
}

void RedisClusterEar::poll() {
  // A subscription that does not answer hears nothing any more.
  if (pinged_at_ != 0 && steady_now() - pinged_at_ > kSilence) {
    throw TierFailure({TierFault::kTimeout, "", "the subscription does not answer"});
  }
  cluster_->poll(asks_);
  if (pinged_at_ != 0) return;
  hears_->link().append({"PING"});
  hears_->link().send();
  pinged_at_ = steady_now();
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
  asks_.run(tasks);
  for (const auto& task : tasks) {
    if (task.error) throw TierFailure(task.error);
  }
}

void RedisClusterEar::check() {
  if (!asks_.ping()) throw TierFailure({TierFault::kUnavailable, "", "no node of the cluster answers"});
}

void RedisClusterEar::cut() noexcept {
  asks_.cut();
  hears_->cut();
}

void RedisClusterEar::forget() noexcept {
  asks_.forget();
  hears_->forget();
}

std::unique_ptr<Ear> RedisClusterEars::open_ear() {
  const RedisAddress& account = cluster_->options().account;
  const auto places = cluster_->slots().candidates();
  // The next at each attempt: one that is lost may be half gone.
  const RedisAddress address = account.at(places[next_++ % places.size()], account.connect_timeout);
  auto hears = std::make_unique<RedisSession>(address);
  Watchdog watchdog;
  guarded(watchdog, *hears, address.connect_timeout, [&] { hears->begin(address); });
  auto ear = std::make_unique<RedisClusterEar>(cluster_, std::move(hears));
  ear->open();
  return ear;
}

}  // namespace stillwarm
