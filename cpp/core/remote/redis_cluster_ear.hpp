// The ear of the Redis tier on a cluster: a subscription that hears of this package's writes on whatever node, and
// connections to all masters that ask.
//
// Thread rule: see ear.hpp.
// Refuses to know: when it is asked.
//
// What is published on one node of a cluster is heard on every other. So one subscription is enough, on any node; when
// that node is lost, another ear is opened on the next. Client tracking would need a subscription on every master and
// is not used: what writers without this package change is not heard of, and is in memory until its time is over.
#pragma once

#include <memory>
#include <string>

#include "core/remote/ear.hpp"
#include "core/remote/redis_cluster.hpp"

namespace stillwarm {

class RedisClusterEar : public Ear {
 public:
  RedisClusterEar(std::shared_ptr<RedisCluster> cluster, std::unique_ptr<RedisSession> hears);

  // Opens the connections that ask. Throws TierFailure.
  void open() { asks_.open(); }

  bool listens() const noexcept override { return true; }
  int heard() override;
  void poll() override;
  void tell() override {}  // the scripts have told
  void renew(std::span<const HeldLease> leases, Nanos age) override;
  void check() override;
  int descriptor() const noexcept override { return hears_->link().descriptor(); }
  void cut() noexcept override;
  void forget() noexcept override;

 private:
  const std::shared_ptr<RedisCluster> cluster_;
  RedisNodes asks_;
  const std::unique_ptr<RedisSession> hears_;
  std::string mine_;
  bool begun_ = false;
  Nanos pinged_at_ = 0;  // the subscription was asked for a sign of life, and has given none; 0: it has
};

class RedisClusterEars : public Ears {
 public:
  explicit RedisClusterEars(std::shared_ptr<RedisCluster> cluster) : cluster_(std::move(cluster)) {}

  std::unique_ptr<Ear> open_ear() override;
  bool mended(const TierError& /*error*/, Nanos /*since*/) override { return false; }
  void lost() noexcept override { cluster_->inbox()->lost(); }

 private:
  const std::shared_ptr<RedisCluster> cluster_;
  std::size_t next_ = 0;  // of the nodes, the one to subscribe on
};

}  // namespace stillwarm
