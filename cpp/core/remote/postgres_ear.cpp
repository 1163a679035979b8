#include "core/remote/postgres_ear.hpp"

#include "core/remote/postgres_text.hpp"

namespace stillwarm {

void PostgresEar::renew(std::span<const HeldLease> leases, Nanos age) {
  std::vector<std::string> owners;
  owners.reserve(leases.size());
  for (const auto& lease : leases) owners.push_back(lease.owner);
  link_->run(
      tier_->sql()->renew_leases,
      {{tier_->options().namespace_name}, {array_of(std::span<const std::string>(owners))}, {milliseconds(age)}});
}

}  // namespace stillwarm
