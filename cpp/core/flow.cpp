#include "core/flow.hpp"

namespace stillwarm {

Entry make_entry(const Result& result, std::uint64_t hash, ScopeId scope, Nanos now) {
  const Durations& d = result.durations;
  Entry e;
  e.hash = hash;
  e.scope = scope;
  e.weight = static_cast<std::uint32_t>(result.weight);
  if (result.negative) {
    e.flags = kFlagNegative;
    e.next_at = add(now, d.negative_ttl);
  } else {
    Nanos ttl = d.ttl;
    if (ttl != kForever) ttl -= static_cast<Nanos>(static_cast<double>(ttl) * d.jitter * result.random);
    e.next_at = add(now, ttl);
  }
  const bool early = d.early > 0 && !result.negative && e.next_at != kForever;
  if (!early && !result.own_durations && result.tags.empty()) return e;
  auto extra = std::make_unique<Extra>();
  extra->tags.assign(result.tags.begin(), result.tags.end());
  extra->committed_at = now;
  extra->fresh_until = e.next_at;
  extra->stale_while_revalidate = d.stale_while_revalidate;
  extra->stale_if_error = d.stale_if_error;
  if (early) e.next_at = now + static_cast<Nanos>(static_cast<double>(e.next_at - now) * d.early);
  e.extra = extra.release();
  return e;
}

}  // namespace stillwarm
