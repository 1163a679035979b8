// The HTTP policy: may this request be answered from the store, may this response be stored and for how long, may that
// stored answer be used. RFC 9111 (caching), RFC 5861 (stale-while-revalidate, stale-if-error), RFC 9110 (validators,
// ranges).
//
// Thread rule: pure functions; the time comes as an argument. None of them allocates for the common request.
// Refuses to know: frameworks, keys, flights, bytes of bodies.
//
//   before  request, route            -> pass | look           and how a cached answer may be used
//   after   request, response, route  -> stored or not, how long, and whether those who waited may have it
//   use     before, stored            -> serve | reload | pass | gateway timeout (only-if-cached)
//   answer  request, stored           -> 200 | 304 | 206 | 416
//
// Bypass is the default: what a rule does not clearly allow is not stored.
#pragma once

#include "core/http/facts.hpp"

namespace stillwarm::http {

// Why the policy keeps an answer from the store. The text of each is in status.hpp; who serves has reasons of its own,
// such as the size of a body, and gives their texts.
enum class Why : std::uint8_t {
  kNone,
  kMethod,       // not GET or HEAD
  kRequestBody,  // a GET with content
  kUpgrade,
  kPrecondition,   // If-Match or If-Unmodified-Since: the app's business
  kRangeMiss,      // a range, and the whole is not stored
  kCookie,         // a cookie, and the route does not say what it depends on
  kAuthorization,  // credentials, and neither the response nor the route allows to share
  kRequestNoStore,
  kRequestNoCache,  // also max-age, min-fresh
  kKeyTooLong,
  kNoStore,  // the response's directives from here on
  kNoCache,
  kPrivate,
  kSetCookie,
  kVaryStar,
  kStatus,
  kPartial,
  kNoLifetime,  // neither the response nor the route says how long
  kExpired,
  kMalformed,  // a header that cannot be read
};

// RFC 9211, 2.2: why the request went to the app.
enum class Forward : std::uint8_t { kNone, kBypass, kMethod, kUriMiss, kVaryMiss, kMiss, kRequest, kStale, kPartial };

struct Before {
  bool look = false;  // false: straight to the app, and nothing is stored
  bool store = true;  // false (no-store, HEAD, range): the app's answer is not stored
  bool head = false;
  bool invalidates = false;  // unsafe: a non-error response invalidates the URI (RFC 9111, 4.4)
  bool reload = false;       // no-cache, or max-age=0: a stored answer is used only after the app was asked
  bool only_if_cached = false;
  bool authorization = false;
  Nanos max_age = kUnset;  // the request's limits on a stored answer
  Nanos min_fresh = kUnset;
  Why why = Why::kNone;
  Forward forward = Forward::kNone;
};
Before before(const Request& request, const Route& route) noexcept;

struct After {
  bool store = false;
  bool shareable = false;                  // with those who asked for the same at the same time, stored or not
  bool shared_with_authorization = false;  // public, s-maxage or must-revalidate: RFC 9111, 3.5
  bool transient_error = false;            // 500, 502, 503, 504: a stale answer may stand in (RFC 5861, 4)
  Why why = Why::kNone;
  Nanos ttl = 0;
  Nanos stale_while_revalidate = 0;
  Nanos stale_if_error = 0;
  Seconds age = 0;  // what it was old when it came (RFC 9111, 4.2.3)
};
After after(const Request& request, const Response& response, const Route& route, Seconds wall) noexcept;

enum class Use : std::uint8_t { kServe, kReload, kPass };
Use use(const Before& before, const Stored& stored, const Route& route) noexcept;

struct Answer {
  int status = 200;         // that of what is stored, 304, 206 or 416
  std::uint64_t first = 0;  // 206: the bytes from first to last
  std::uint64_t last = 0;
};
// `wall` places two-digit years; without it a date that has one is ignored.
Answer answer(const Request& request, const Stored& stored, Seconds wall = kNever) noexcept;

}  // namespace stillwarm::http
