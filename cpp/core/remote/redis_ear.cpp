#include "core/remote/redis_ear.hpp"

#include <utility>

#include "core/base/clock.hpp"
#include "core/remote/redis_tracking.hpp"

namespace stillwarm {

RedisEar::RedisEar(std::shared_ptr<RedisTier> tier, std::unique_ptr<RedisSession> asks,
                   std::unique_ptr<RedisSession> hears, std::unique_ptr<RedisWatch> watch)
    : tier_(std::move(tier)), asks_(std::move(asks)), hears_(std::move(hears)), watch_(std::move(watch)) {}

void RedisEar::begin() {
  mine_ = tier_->process();
  track();
  RedisLink& hears = hears_->link();
  hears.append({"SUBSCRIBE", tier_->names().channel, kTracked});
  for (int i = 0; i < 2; ++i) expect_ok(hears.read());
  begun_ = true;
  // Only now nothing escapes: what was read or stored before may have been changed by somebody whom no poll knows of.
  const auto unheard = tier_->note_ear();
  if (!tracks_) return;
  if (unheard.all) return tier_->inbox()->post({"all", true});
  std::vector<std::string> entries, heads;
  for (const auto& [entry, version] : unheard.entries) entries.push_back(entry), heads.push_back(version);
  examine(entries, heads, RedisHead::kVersion);
}

// Without the right, or on an old server, it does without.
void RedisEar::track() {
  RedisLink& asks = asks_->link();
  if (asks.server_version() < kTracks) return;
  hears_->link().append({"CLIENT", "ID"});
  const OwnedReply id = hears_->link().read();
  if (id.error()) return;
  asks.append({"CLIENT", "TRACKING", "ON", "REDIRECT", std::to_string(id.integer()), "BCAST", "PREFIX",
               tier_->names().entries});
  tracks_ = !asks.read().error();
}

int RedisEar::heard() {
  if (!begun_) begin();
  int heard = 0;
  bool all = false;
  std::vector<std::string> changed;
  while (const auto message = hears_->link().read_if_there()) {
    expect_ok(*message);
    if (!message->array() || message->size() < 2) continue;
    if (message->at(0).text() == "pong") {
      pinged_at_ = 0;
      continue;
    }
    if (message->size() < 3 || message->at(0).text() != "message") continue;
    const RedisReply what = message->at(2);
    if (message->at(1).text() != kTracked) {
      if (what.text() != mine_) ++heard;
    } else if (!what.array()) {  // FLUSHALL
      all = true;
    } else {
      for (std::size_t i = 0; i < what.size() && !all; ++i) changed.emplace_back(what.at(i).text());
    }
    if (changed.size() > kMostExamined) all = true;
  }
  if (all) {
    tier_->inbox()->post({"all", true});
  } else if (!changed.empty()) {
    const OwnedReply incarnation = asks_->link().run({"HGET", tier_->names().marks, "i"});
    const std::string head = "1" + (incarnation.nil() ? std::string() : std::string(incarnation.text()));
    examine(changed, std::vector<std::string>(changed.size(), head), 0);
  }
  return heard;
}

void RedisEar::examine(const std::vector<std::string>& entries, const std::vector<std::string>& expected,
                       std::size_t at) {
  if (entries.empty()) return;
  RedisLink& asks = asks_->link();
  const std::string first = std::to_string(at);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    asks.append({"GETRANGE", entries[i], first, std::to_string(at + expected[i].size() - 1)});
  }
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const OwnedReply there = asks.read();
    if (!there.error() && !there.nil() && there.text() == expected[i]) continue;
    const auto key = tier_->names().key_of(entries[i]);
    if (key) tier_->inbox()->post({"key:" + std::string(*key), false});
  }
}

void RedisEar::poll() {
  if (watch_ != nullptr && watch_->moved()) {
    tier_->note_another_server();
    throw TierFailure({TierFault::kUnavailable, "", "another server is the master by now"});
  }
  // A subscription that does not answer hears nothing any more.
  if (pinged_at_ != 0 && steady_now() - pinged_at_ > kSilence) {
    throw TierFailure({TierFault::kTimeout, "", "the subscription does not answer"});
  }
  tier_->poll(*asks_);
  if (pinged_at_ != 0) return;
  RedisLink& hears = hears_->link();
  hears.append({"PING"});
  hears.send();
  pinged_at_ = steady_now();
}

void RedisEar::renew(std::span<const HeldLease> leases, Nanos age) {
  RedisCall call{RedisScript::kRenew, {}, {std::to_string(age / 1'000'000)}};
  for (const auto& lease : leases) {
    call.keys.push_back(tier_->names().lease(lease.key));
    call.arguments.push_back(lease.owner);
  }
  asks_->run(call);
}

void RedisEar::cut() noexcept {
  asks_->cut();
  hears_->cut();
}

void RedisEar::forget() noexcept {
  asks_->forget();
  hears_->forget();
  if (watch_ != nullptr) watch_->forget();
}

std::unique_ptr<Ear> RedisEars::open_ear() {
  RedisTier::Where where = tier_->look();
  auto asks = tier_->open(where.address);
  auto hears = tier_->open(where.address);
  return std::make_unique<RedisEar>(tier_, std::move(asks), std::move(hears), std::move(where.watch));
}

}  // namespace stillwarm
