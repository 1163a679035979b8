// The ear of the Redis tier on a cluster: subscriptions on all masters that hear of this package's writes and, by
// client tracking, of everybody's; and connections to all masters that ask.
//
// Thread rule: see ear.hpp.
// Refuses to know: when it is asked; how subscriptions are kept (redis_hearing).
//
// A subscription that is lost is a lost link: this ear ends with it, nothing is trusted before the next poll, and
// another ear is opened. A master that does not answer has none and does not hold the others up: it gets one when it is
// back, and so does one that becomes a master. What it told meanwhile is unknown, so all that was read before becomes
// stale then. Which entries are examined, and why: see redis_ear.hpp.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/remote/ear.hpp"
#include "core/remote/redis_cluster.hpp"
#include "core/remote/redis_hearing.hpp"

namespace stillwarm {

class RedisClusterEar : public Ear {
 public:
  explicit RedisClusterEar(std::shared_ptr<RedisCluster> cluster);

  // Opens the connections that ask, and subscribes. Throws TierFailure.
  void open();

  bool listens() const noexcept override { return true; }
  int heard() override;
  void poll() override;
  void tell() override {}  // the scripts have told
  void renew(std::span<const HeldLease> leases, Nanos age) override;
  void check() override;
  int descriptor() const noexcept override { return hears_.descriptor(); }
  void cut() noexcept override;
  void forget() noexcept override;

 private:
  struct Doubt {
    std::string entry, expected;
  };

  // A subscription on every master that answers, and on no other node.
  void follow();
  // From here on this master tells what happens.
  void note_heard(const RedisPlace& master, bool tracks);
  // Looks which of the entries still have what is expected at that place, or in an empty one the head that its bucket
  // gives now, and tells of the others.
  void examine(const std::vector<Doubt>& doubts, std::size_t at);
  void tell_of(std::string_view entry);
  void limit();

  const std::shared_ptr<RedisCluster> cluster_;
  const std::string mine_;
  RedisNodes asks_;
  RedisHearing hears_;
};

class RedisClusterEars : public Ears {
 public:
  explicit RedisClusterEars(std::shared_ptr<RedisCluster> cluster) : cluster_(std::move(cluster)) {}

  std::unique_ptr<Ear> open_ear() override;
  bool mended(const TierError& /*error*/, Nanos /*since*/) override { return false; }
  void lost() noexcept override { cluster_->inbox()->lost(); }

 private:
  const std::shared_ptr<RedisCluster> cluster_;
};

}  // namespace stillwarm
