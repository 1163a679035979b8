#include "core/http/policy.hpp"

#include <algorithm>
#include <array>

#include "core/http/fields.hpp"
#include "core/http/grammar.hpp"

namespace stillwarm::http {
namespace {

constexpr Seconds kHeuristicMost = 86'400;

constexpr Nanos nanos(Seconds seconds) noexcept { return seconds == kNever ? kUnset : seconds * kSecond; }
constexpr Seconds limited(Seconds seconds) noexcept { return std::clamp<Seconds>(seconds, 0, kMostSeconds); }

// Safe and not ours to answer (RFC 9110, 9.2.1, and the registry of methods). A method in another case, or one that
// nobody knows, counts as unsafe (RFC 9111, 4.4).
bool is_safe_method(std::string_view method) noexcept {
  static constexpr std::array<std::string_view, 6> kSafe = {"OPTIONS", "TRACE",  "PROPFIND",
                                                            "REPORT",  "SEARCH", "QUERY"};
  return std::find(kSafe.begin(), kSafe.end(), method) != kSafe.end();
}

Before passed(Why why, Forward forward) noexcept {
  Before result;
  result.store = false;
  result.why = why;
  result.forward = forward;
  return result;
}

// What depends on more than the key, and so is not looked up at all.
Why why_not_to_look(const Request& request, const Route& route) noexcept {
  if (request.upgrade) return Why::kUpgrade;
  if (request.body) return Why::kRequestBody;
  if (!request.if_match.empty() || !request.if_unmodified_since.empty()) return Why::kPrecondition;
  if (request.cookie && !route.declares_cookies && !route.per_user) return Why::kCookie;
  return Why::kNone;
}

void read_request_directives(const Request& request, Before& to) noexcept {
  const Directives directives = parse_cache_control(request.cache_control);
  const bool pragma = request.cache_control.empty() && parse_cache_control(request.pragma).no_cache;
  if (directives.no_store) {
    to = passed(Why::kRequestNoStore, Forward::kRequest);
    return;
  }
  to.only_if_cached = directives.only_if_cached;
  to.reload = directives.no_cache || directives.max_age == 0 || pragma;
  to.max_age = nanos(directives.max_age);
  to.min_fresh = nanos(directives.min_fresh);
  // max-stale allows what the response and the route do not promise: nothing here serves that.
  if (to.reload) {
    to.why = Why::kRequestNoCache;
    to.forward = Forward::kRequest;
  }
}

bool is_absence(int status) noexcept { return status == 404 || status == 410; }

bool is_storable_status(int status) noexcept {
  return status == 200 || status == 203 || status == 204 || status == 300 || status == 301 || status == 308 ||
         is_absence(status);
}

// A status that says the same to everyone who asked the same. Of those of the client's fault only what is about the
// resource: the others judge this request's fields, its rights or its rate.
bool is_shareable_status(int status) noexcept {
  if (status >= 200 && status <= 299) return status != 206 && status != 226;
  if (status >= 300 && status <= 399) return status < 304 || status > 306;
  return is_absence(status) || status == 405 || (status >= 500 && status <= 504);
}

bool is_transient_error(int status) noexcept {
  return status == 500 || status == 502 || status == 503 || status == 504;
}

bool allows_authorization(const Directives& directives) noexcept {
  return directives.public_ || directives.must_revalidate || directives.s_maxage != kNever;
}

// Why nobody but who asked may have this response (RFC 9111, 3 and 3.5).
Why why_not_for_others(const Request& request, const Response& response, const Route& route,
                       const Directives& directives) noexcept {
  const bool understood = directives.must_understand && is_storable_status(response.status);
  if (directives.no_store && !understood) return Why::kNoStore;
  if (directives.private_ && !route.per_user) return Why::kPrivate;
  if (response.set_cookie) return Why::kSetCookie;
  if (!is_vary_usable(response.vary)) return Why::kVaryStar;
  if (request.authorization && !route.per_user && !allows_authorization(directives)) return Why::kAuthorization;
  if (request.cookie && !route.declares_cookies && !route.per_user) return Why::kCookie;
  if (route.obeys_request && parse_cache_control(request.cache_control).no_store) return Why::kRequestNoStore;
  if (directives.no_cache) return Why::kNoCache;  // may not even satisfy those who waited (5.2.2.4)
  if (directives.malformed) return Why::kMalformed;
  return Why::kNone;
}

// When the response was made; a Date that cannot be read counts as one that did not come (RFC 9110, 6.6.1).
Seconds date_of(const Response& response, Seconds wall) noexcept {
  return parse_date(response.date, wall).value_or(wall);
}

// RFC 9111, 4.2.3, without the delay of the response, which the app in the same process does not have. Of a list the
// first Age counts, and one that cannot be read is ignored (5.1).
Seconds age_of(const Response& response, Seconds wall) noexcept {
  const std::string_view first = response.age.substr(0, response.age.find(','));
  const Seconds apparent = wall - date_of(response, wall);
  return limited(std::max(apparent, parse_delta_seconds(grammar::trimmed(first)).value_or(0)));
}

// What the response itself says (RFC 9111, 4.2.1); kUnset: nothing.
Nanos explicit_lifetime(const Response& response, const Directives& directives, Seconds wall) noexcept {
  if (directives.s_maxage != kNever) return nanos(directives.s_maxage);
  if (directives.max_age != kNever) return nanos(directives.max_age);
  if (response.expires.empty()) return kUnset;
  const auto expires = parse_date(response.expires, wall);
  return expires ? nanos(limited(*expires - date_of(response, wall))) : 0;  // 5.3: not readable means expired
}

Nanos heuristic_lifetime(const Response& response, Seconds wall) noexcept {
  const auto modified = parse_date(response.last_modified, wall);
  if (!modified) return kUnset;
  const Seconds unchanged = date_of(response, wall) - *modified;
  return unchanged <= 0 ? kUnset : std::min(unchanged / 10, kHeuristicMost) * kSecond;
}

Nanos lifetime(const Response& response, const Route& route, const Directives& directives, Seconds wall) noexcept {
  const bool absent = is_absence(response.status);
  const Nanos declared = !absent ? route.ttl : route.absent_ttl > 0 ? route.absent_ttl : kUnset;
  if (route.ttl_wins && declared != kUnset) return declared;
  const Nanos own = explicit_lifetime(response, directives, wall);
  if (own != kUnset) return own;
  if (declared != kUnset) return declared;
  return route.heuristic && !absent ? heuristic_lifetime(response, wall) : kUnset;
}

void set_stale_times(const Route& route, const Directives& directives, After& to) noexcept {
  if (directives.must_revalidate || directives.proxy_revalidate) return;  // RFC 9111, 4.2.4: not stale, ever
  const auto chosen = [&](Seconds own, Nanos declared, Nanos otherwise) {
    const Nanos first = route.ttl_wins ? declared : nanos(own);
    const Nanos second = route.ttl_wins ? nanos(own) : declared;
    return first != kUnset ? first : second != kUnset ? second : otherwise;
  };
  // s-maxage alone means proxy-revalidate (5.2.2.10); with an explicit stale time beside it, that time was meant.
  const Nanos otherwise = directives.s_maxage == kNever ? to.ttl : 0;
  to.stale_while_revalidate = chosen(directives.stale_while_revalidate, route.stale_while_revalidate, 0);
  to.stale_if_error = chosen(directives.stale_if_error, route.stale_if_error, otherwise);
}

std::string_view value_or(std::string_view first, std::string_view second) noexcept {
  return first.empty() ? second : first;
}

// RFC 9111, 4.3.2: is what the client has still good?
bool is_not_modified(const Request& request, const Stored& stored, Seconds wall) noexcept {
  if (!request.if_none_match.empty()) return any_tag_matches(request.if_none_match, stored.etag);
  if (request.if_modified_since.empty()) return false;
  const auto since = parse_date(request.if_modified_since, wall);
  const auto modified = parse_date(value_or(stored.last_modified, stored.date), wall);
  return since && modified && *modified <= *since;
}

// RFC 9110, 13.1.5: are the bytes that the client has of the same representation? Only strong validators say that.
bool is_same_representation(const Request& request, const Stored& stored, Seconds wall) noexcept {
  const std::string_view condition = grammar::trimmed(request.if_range);
  if (condition.empty()) return true;
  if (is_strong_tag(condition)) return condition == grammar::trimmed(stored.etag);
  const auto had = parse_date(condition, wall);
  const auto modified = parse_date(stored.last_modified, wall);
  const auto date = parse_date(stored.date, wall);
  return had && modified && date && *had == *modified && *modified < *date;
}

}  // namespace

Before before(const Request& request, const Route& route) noexcept {
  const bool head = request.method == "HEAD";
  if (!head && request.method != "GET") {
    Before result = passed(Why::kMethod, Forward::kMethod);
    result.invalidates = !is_safe_method(request.method);
    return result;
  }
  const Why why = why_not_to_look(request, route);
  if (why != Why::kNone) return passed(why, Forward::kBypass);
  Before result;
  result.look = true;
  result.head = head;
  result.authorization = request.authorization;
  if (route.obeys_request) read_request_directives(request, result);
  if (!result.look) return result;
  if (head) result.store = false;
  if (!head && is_byte_range(request.range)) {
    result.store = false;
    result.why = Why::kRangeMiss;
  }
  return result;
}

After after(const Request& request, const Response& response, const Route& route, Seconds wall) noexcept {
  After result;
  const Directives directives = parse_cache_control(response.cache_control);
  const bool partial = response.status == 206 || response.content_range;
  const Why privacy = why_not_for_others(request, response, route, directives);
  result.transient_error = is_transient_error(response.status);
  result.shared_with_authorization = allows_authorization(directives);
  result.age = age_of(response, wall);
  const Nanos life = lifetime(response, route, directives, wall);
  const Nanos left = life - result.age * kSecond;
  if (request.method != "GET") {  // nor is the answer to a HEAD that to a GET
    result.why = Why::kMethod;
    return result;
  }
  if (partial) {
    result.why = Why::kPartial;
    return result;
  }
  result.shareable = privacy == Why::kNone && is_shareable_status(response.status);
  if (!is_storable_status(response.status)) {
    result.why = Why::kStatus;
  } else if (privacy != Why::kNone) {
    result.why = privacy;
  } else if (life == kUnset) {
    result.why = is_absence(response.status) ? Why::kStatus : Why::kNoLifetime;
  } else if (left <= 0) {
    result.why = Why::kExpired;
    result.shareable = false;  // it may satisfy nobody without being asked for again (4.2)
  } else {
    result.store = true;
    result.ttl = left;
    set_stale_times(route, directives, result);
  }
  return result;
}

Use use(const Before& before, const Stored& stored, const Route& route) noexcept {
  if (before.authorization && !stored.shared_with_authorization && !route.per_user) return Use::kPass;
  if (before.reload) return Use::kReload;
  if (before.max_age != kUnset && stored.age > before.max_age) return Use::kReload;
  if (before.min_fresh != kUnset && stored.fresh_left < before.min_fresh) return Use::kReload;
  return Use::kServe;
}

Answer answer(const Request& request, const Stored& stored, Seconds wall) noexcept {
  Answer result;
  result.status = stored.status;
  const bool get = request.method == "GET";
  if (!get && request.method != "HEAD") return result;
  if (stored.status < 200 || stored.status > 299) return result;  // 13.2.1: no precondition is looked at
  if (is_not_modified(request, stored, wall)) {                   // 13.2.2: before the range
    result.status = 304;
    return result;
  }
  if (!get || stored.status != 200 || request.range.empty()) return result;
  if (!is_same_representation(request, stored, wall)) return result;
  const auto range = parse_range(request.range, stored.size);
  if (!range) return result;
  if (range->first > range->last) {
    result.status = 416;
    return result;
  }
  return {206, range->first, range->last};
}

}  // namespace stillwarm::http
