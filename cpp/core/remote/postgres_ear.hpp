// The ear of the PostgreSQL tier: LISTEN and NOTIFY on a connection of its own; polls read the table of invalidations.
//
// Thread rule: see ear.hpp.
// Refuses to know: when it is asked.
//
// Notifications are sent from here and never from a transaction that writes, because NOTIFY takes a lock of the whole
// instance at commit. Behind a pooler in transaction mode there is no LISTEN: then it is polled only.
#pragma once

#include <memory>

#include "core/remote/ear.hpp"
#include "core/remote/postgres_tier.hpp"

namespace stillwarm {

class PostgresEar : public Ear {
 public:
  PostgresEar(std::shared_ptr<PostgresTier> tier, std::unique_ptr<PostgresLink> link)
      : tier_(std::move(tier)), link_(std::move(link)), channel_("stillwarm_" + tier_->options().schema) {}

  bool listens() const noexcept override { return !tier_->options().pooler; }
  int heard() override { return link_->notifications(channel_); }
  void poll() override { tier_->poll(*link_, {}); }
  void tell() override {
    if (listens()) link_->run("NOTIFY " + quoted_identifier(channel_));
  }
  void renew(std::span<const HeldLease> leases, Nanos age) override;
  void check() override { link_->run(std::string("SELECT 1")); }
  int descriptor() const noexcept override { return link_->descriptor(); }
  void cut() noexcept override { link_->cut(); }
  void forget() noexcept override { link_->forget(); }

 private:
  const std::shared_ptr<PostgresTier> tier_;
  const std::unique_ptr<PostgresLink> link_;
  const std::string channel_;
};

class PostgresEars : public Ears {
 public:
  explicit PostgresEars(std::shared_ptr<PostgresTier> tier) : tier_(std::move(tier)) {}

  std::unique_ptr<Ear> open_ear() override { return std::make_unique<PostgresEar>(tier_, tier_->open()); }
  bool mended(const TierError& error, Nanos since) override {
    return (error.state == "42P01" || error.state == "3F000") && tier_->set_up(since);
  }
  void lost() noexcept override { tier_->inbox()->lost(); }

 private:
  const std::shared_ptr<PostgresTier> tier_;
};

}  // namespace stillwarm
