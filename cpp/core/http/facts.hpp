// What the HTTP policy is told: facts of a request, of a response, of what is stored, and what the route declares.
//
// Thread rule: plain data. Texts are views into the caller's: they live as long as the call.
// Refuses to know: frameworks, header containers, keys, where an answer is kept.
//
// A field that came several times is given joined with ", " (RFC 9110, 5.3), and one that did not come is empty.
#pragma once

#include <cstdint>
#include <string_view>

#include "core/base/entry.hpp"

namespace stillwarm::http {

using Seconds = std::int64_t;  // delta-seconds of RFC 9111, 1.2.2, or since 1970; kNever where there is none

inline constexpr Seconds kNever = -1;
inline constexpr Seconds kMostSeconds = std::int64_t{1} << 31;  // more counts as this (RFC 9111, 1.2.2)

struct Request {
  std::string_view method;
  bool authorization = false;
  bool cookie = false;   // one that the route does not ignore
  bool body = false;     // Content-Length above 0, or Transfer-Encoding
  bool upgrade = false;  // a protocol switch
  std::string_view cache_control;
  std::string_view pragma;
  std::string_view if_none_match;
  std::string_view if_modified_since;
  std::string_view if_match;
  std::string_view if_unmodified_since;
  std::string_view range;
  std::string_view if_range;
};

struct Response {
  int status = 200;
  bool set_cookie = false;
  bool content_range = false;
  std::string_view cache_control;
  std::string_view expires;
  std::string_view date;
  std::string_view age;
  std::string_view last_modified;
  std::string_view vary;
};

// What the developer said. Durations in ns; kUnset: nothing was said.
inline constexpr Nanos kUnset = -1;
struct Route {
  Nanos ttl = kUnset;
  Nanos stale_while_revalidate = kUnset;
  Nanos stale_if_error = kUnset;  // kUnset: as long again as it was fresh
  Nanos absent_ttl = 0;           // of 404 and 410; 0: they are not stored, unless the response says how long
  bool ttl_wins = false;          // over the response's own max-age (decorators); no-store and private always hold
  bool obeys_request = true;      // the request's Cache-Control and Pragma
  bool per_user = false;          // the key names the user
  bool declares_cookies = false;  // what the answer depends on is in the key, so a cookie does not matter
  bool heuristic = false;         // a tenth of the time since Last-Modified, at most a day (RFC 9111, 4.2.2)
};

// What is stored, as one request finds it.
struct Stored {
  int status = 200;
  Nanos age = 0;
  Nanos fresh_left = 0;  // negative: stale for so long
  bool shared_with_authorization = false;
  std::string_view etag;
  std::string_view last_modified;
  std::string_view date;   // of the response; empty: not known, and then Last-Modified is no strong validator
  std::uint64_t size = 0;  // of the body, bytes
};

}  // namespace stillwarm::http
