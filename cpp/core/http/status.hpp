// The bytes of the headers that a cached answer gets: Cache-Status (RFC 9211), and the names of reasons.
//
// Thread rule: pure functions.
// Refuses to know: what led to them.
#pragma once

#include <string>

#include "core/http/policy.hpp"

namespace stillwarm::http {

std::string_view text_of(Why why) noexcept;          // "no-store", "set-cookie", ...
std::string_view text_of(Forward forward) noexcept;  // "uri-miss", ...

struct Status {
  bool hit = false;
  Forward forward = Forward::kNone;
  int forward_status = 0;  // of the app's answer, where it was asked and the two differ; 0: left out
  bool stored = false;
  bool collapsed = false;
  bool has_ttl = false;
  Seconds ttl = 0;         // negative when stale
  std::string_view key{};  // only for those who may see it
  std::string_view detail{};
};
// `stillwarm; hit; ttl=120`, or `stillwarm; fwd=uri-miss; stored; ttl=300`. `key` becomes an sf-string: a byte outside
// of printable ASCII becomes "?".
void append_cache_status(std::string& to, const Status& status);

}  // namespace stillwarm::http
