// The ear of the Redis tier: a subscription that hears of this package's writes and, by client tracking, of
// everybody's.
//
// Thread rule: see ear.hpp.
// Refuses to know: when it is asked.
//
// Two connections. One is subscribed: to the namespace's channel, on which every script that invalidates says so, and
// to the server's own messages about changed keys. The other asks: it polls, renews leases, and has tracking switched
// on for every key that begins like an entry, redirected to the first (RESP2 allows no other commands on that one).
//
// A tracked message names an entry that was written, deleted, evicted or has expired. Most are loads that were stored,
// which concern nobody; so the heads of those entries are looked at. One that is gone, or that this package did not
// write, is a message like any other. What was told while no ear was open is unknown: when one is opened, all that was
// read before becomes stale, and is asked for again. Where tracking is not allowed, only this package's own are heard.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/remote/ear.hpp"
#include "core/remote/redis_tier.hpp"

namespace stillwarm {

class RedisEar : public Ear {
 public:
  RedisEar(std::shared_ptr<RedisTier> tier, std::unique_ptr<RedisSession> asks, std::unique_ptr<RedisSession> hears,
           std::unique_ptr<RedisWatch> watch);

  bool listens() const noexcept override { return true; }
  int heard() override;
  void poll() override;
  void tell() override {}  // the scripts have told
  void renew(std::span<const HeldLease> leases, Nanos age) override;
  void check() override { asks_->link().run({"PING"}); }
  int descriptor() const noexcept override { return hears_->link().descriptor(); }
  void cut() noexcept override;
  void forget() noexcept override;

 private:
  void begin();
  void track();
  // Looks which of the entries still have the expected text at that place, and tells of the others.
  void examine(const std::vector<std::string>& entries, const std::vector<std::string>& expected, std::size_t at);

  const std::shared_ptr<RedisTier> tier_;
  const std::unique_ptr<RedisSession> asks_, hears_;
  const std::unique_ptr<RedisWatch> watch_;  // with sentinels
  std::string mine_;
  bool begun_ = false;
  bool tracks_ = false;
  Nanos pinged_at_ = 0;  // the subscription was asked for a sign of life, and has given none; 0: it has
};

class RedisEars : public Ears {
 public:
  explicit RedisEars(std::shared_ptr<RedisTier> tier) : tier_(std::move(tier)) {}

  std::unique_ptr<Ear> open_ear() override;
  bool mended(const TierError& /*error*/, Nanos /*since*/) override { return false; }
  void lost() noexcept override { tier_->inbox()->lost(); }

 private:
  const std::shared_ptr<RedisTier> tier_;
};

}  // namespace stillwarm
