// A result becomes an entry with tags or durations of its own.
//
// Thread rule: pure functions.
// Refuses to know: everything but one entry.
#include "core/decision.hpp"

#include <memory>

namespace stillwarm {

Entry make_entry_with_extra(const Result& result, Entry e, Nanos now) {
  const Durations& d = result.durations;
  auto extra = std::make_unique<Extra>();
  extra->tags.assign(result.tags.begin(), result.tags.end());
  extra->ttl = d.ttl;
  extra->fresh_until = e.next_at;
  extra->stale_while_revalidate = d.stale_while_revalidate;
  extra->stale_if_error = d.stale_if_error;
  if (d.early > 0 && !result.negative && e.next_at != kForever) {
    e.next_at = now + static_cast<Nanos>(static_cast<double>(e.next_at - now) * d.early);
  }
  e.extra = extra.release();
  return e;
}

}  // namespace stillwarm
