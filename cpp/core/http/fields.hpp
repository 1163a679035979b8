// The grammar of the header fields that caching reads: Cache-Control, Vary, entity tags, dates, ranges.
//
// Thread rule: pure functions on views.
// Refuses to know: what follows from what they read (policy.hpp).
//
// What cannot be read is never guessed: it says so, and the policy then does the safe thing.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/http/facts.hpp"

namespace stillwarm::http {

// Cache-Control of a request or a response (RFC 9111, 5.2). Names in any case; a value may be a quoted string. The
// strictest of repeated directives holds: the smallest number, of min-fresh the largest. `private="x"` and
// `no-cache="x"` count as unqualified; what permits (public, must-revalidate, must-understand) takes no argument.
struct Directives {
  bool no_store = false;
  bool no_cache = false;
  bool private_ = false;
  bool public_ = false;
  bool must_revalidate = false;
  bool proxy_revalidate = false;
  bool must_understand = false;
  bool only_if_cached = false;
  bool malformed = false;  // a lifetime that is no number, or something that is no directive
  Seconds max_age = kNever;
  Seconds s_maxage = kNever;
  Seconds stale_while_revalidate = kNever;
  Seconds stale_if_error = kNever;
  Seconds max_stale = kNever;  // without a value: kMostSeconds
  Seconds min_fresh = kNever;
};
Directives parse_cache_control(std::string_view text) noexcept;

// Decimal digits, saturated at kMostSeconds; nothing else is accepted.
std::optional<Seconds> parse_delta_seconds(std::string_view text) noexcept;

// Seconds since 1970 of an HTTP-date in its three forms (RFC 9110, 5.6.7). `wall` places two-digit years;
// kNever: they are not readable. A date whose day of the week is wrong is not readable. A leap second counts as the
// 59th.
std::optional<Seconds> parse_date(std::string_view text, Seconds wall) noexcept;
// "Sun, 06 Nov 1994 08:49:37 GMT", 29 bytes. `at` from 0 to the end of the year 9999.
std::array<char, 29> format_date(Seconds at) noexcept;

// Does the list of entity tags (or "*") hold `etag`, by weak comparison (RFC 9110, 8.8.3.2)?
bool any_tag_matches(std::string_view list, std::string_view etag) noexcept;
bool is_strong_tag(std::string_view etag) noexcept;

// Is Vary a list of field names without "*"? What parse_vary reads, without an allocation.
bool is_vary_usable(std::string_view text) noexcept;
// The field names of Vary, in lower case, sorted, each once. nullopt: "*", or not readable.
std::optional<std::vector<std::string>> parse_vary(std::string_view text);
// A field value without the white space that does not matter: around it and around its commas, but not in a quoted
// string (RFC 9111, 4.1).
std::string normalised(std::string_view value);

// One range of bytes (RFC 9110, 14.1.2). nullopt: not a single readable byte range, so the field is ignored.
// `first` > `last`: not satisfiable. The last bytes of nothing are the whole: no Content-Range could name them.
struct ByteRange {
  std::uint64_t first = 0;
  std::uint64_t last = 0;
};
bool is_byte_range(std::string_view text) noexcept;  // the unit is "bytes"; another unit is ignored
std::optional<ByteRange> parse_range(std::string_view text, std::uint64_t size) noexcept;

// Fields of a response that are not stored: those of the connection, and those that each answer gets anew (RFC 9111,
// 3.1). `name` in any case. What Connection itself names is the caller's to leave out.
bool is_stored_field(std::string_view name) noexcept;
// Fields that a 304 carries (RFC 9110, 15.4.5).
bool is_in_304(std::string_view name) noexcept;
// Fields of a stored answer that a 304 from the app does not replace (RFC 9111, 3.2): they describe the stored bytes.
// Nor does it bring what is_stored_field keeps out.
bool is_kept_on_304(std::string_view name) noexcept;

bool equal_in_any_case(std::string_view a, std::string_view lower_case) noexcept;

}  // namespace stillwarm::http
