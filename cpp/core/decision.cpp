// A result becomes an entry with tags or durations of its own.
//
// Thread rule: pure functions.
// Refuses to know: everything but one entry.
#include "core/decision.hpp"

namespace stillwarm {

std::unique_ptr<Extra> make_extra(const Result& result) {
  auto extra = std::make_unique<Extra>();
  extra->tags.assign(result.tags.begin(), result.tags.end());
  extra->ttl = result.durations.ttl;
  extra->stale_while_revalidate = result.durations.stale_while_revalidate;
  extra->stale_if_error = result.durations.stale_if_error;
  extra->keep = result.durations.keep;
  return extra;
}

}  // namespace stillwarm
