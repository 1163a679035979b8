#include "core/http/fields.hpp"

#include <algorithm>
#include <limits>

#include "core/http/grammar.hpp"

namespace stillwarm::http {
namespace {

constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();

// The length of the entity tag at the start of `text`; 0: there is none (RFC 9110, 8.8.3).
std::size_t tag_length(std::string_view text) noexcept {
  std::size_t at = text.substr(0, 2) == "W/" ? 2 : 0;
  if (at >= text.size() || text[at] != '"') return 0;
  for (++at; at < text.size(); ++at) {
    const auto c = static_cast<unsigned char>(text[at]);
    if (c == '"') return at + 1;
    if (c < 0x21 || c == 0x7f) return 0;
  }
  return 0;
}

std::string_view opaque(std::string_view tag) noexcept { return tag.substr(tag.front() == 'W' ? 2 : 0); }

template <std::size_t N>
bool is_one_of(std::string_view name, const std::array<std::string_view, N>& names) noexcept {
  return std::any_of(names.begin(), names.end(), [&](std::string_view each) { return equal_in_any_case(name, each); });
}

// Calls `each` with the members of a list of tokens. False: it is not such a list, or it holds "*".
template <typename Each>
bool for_each_name(std::string_view text, Each each) {
  while (true) {
    const std::size_t comma = std::min(text.find(','), text.size());
    const std::string_view name = grammar::trimmed(text.substr(0, comma));
    if (name == "*" || grammar::token_length(name) != name.size()) return false;
    if (!name.empty()) each(name);
    if (comma == text.size()) return true;
    text.remove_prefix(comma + 1);
  }
}

// Digits at the front of `text`, which loses them. nullopt: there are none.
std::optional<std::uint64_t> take_position(std::string_view& text) noexcept {
  if (text.empty() || !grammar::is_digit(text.front())) return std::nullopt;
  std::uint64_t result = 0;
  for (; !text.empty() && grammar::is_digit(text.front()); text.remove_prefix(1)) {
    const auto digit = static_cast<std::uint64_t>(text.front() - '0');
    result = result > (kMost - digit) / 10 ? kMost : result * 10 + digit;
  }
  return result;
}

constexpr ByteRange kNotSatisfiable{1, 0};

}  // namespace

bool equal_in_any_case(std::string_view a, std::string_view lower_case) noexcept {
  return std::equal(a.begin(), a.end(), lower_case.begin(), lower_case.end(),
                    [](char left, char right) { return grammar::lower(left) == right; });
}

bool any_tag_matches(std::string_view list, std::string_view etag) noexcept {
  std::string_view rest = grammar::trimmed(list);
  if (rest == "*") return true;
  const std::string_view own = grammar::trimmed(etag);
  if (own.empty() || tag_length(own) != own.size()) return false;
  bool matches = false;
  while (true) {
    while (!rest.empty() && (grammar::is_space(rest.front()) || rest.front() == ',')) rest.remove_prefix(1);
    if (rest.empty()) return matches;
    const std::size_t length = tag_length(rest);
    if (length == 0) return false;
    matches = matches || opaque(rest.substr(0, length)) == opaque(own);
    rest.remove_prefix(length);
    rest.remove_prefix(grammar::space_length(rest));
    if (!rest.empty() && rest.front() != ',') return false;
  }
}

bool is_strong_tag(std::string_view etag) noexcept {
  return !etag.empty() && etag.front() == '"' && tag_length(etag) == etag.size();
}

bool is_vary_usable(std::string_view text) noexcept {
  return for_each_name(text, [](std::string_view) {});
}

std::optional<std::vector<std::string>> parse_vary(std::string_view text) {
  std::vector<std::string> result;
  const bool usable = for_each_name(text, [&](std::string_view name) {
    std::string& added = result.emplace_back(name);
    std::transform(added.begin(), added.end(), added.begin(), grammar::lower);
  });
  if (!usable) return std::nullopt;
  std::sort(result.begin(), result.end());
  result.erase(std::unique(result.begin(), result.end()), result.end());
  return result;
}

std::string normalised(std::string_view value) {
  std::string result;
  std::string_view rest = grammar::trimmed(value);
  result.reserve(rest.size());
  while (!rest.empty()) {
    const std::size_t quoted = grammar::quoted_length(rest);
    if (quoted != 0) {  // in a quoted string all white space matters
      result.append(rest.substr(0, quoted));
      rest.remove_prefix(quoted);
      continue;
    }
    if (rest.front() == '"') return result.append(rest);  // it does not end: nothing is known of the rest
    const char c = rest.front();
    rest.remove_prefix(1);
    if (c == ',') {
      while (!result.empty() && grammar::is_space(result.back())) result.pop_back();
      rest.remove_prefix(grammar::space_length(rest));
    }
    result.push_back(c);
  }
  return result;
}

bool is_byte_range(std::string_view text) noexcept {
  return equal_in_any_case(grammar::trimmed(text).substr(0, 6), "bytes=");
}

std::optional<ByteRange> parse_range(std::string_view text, std::uint64_t size) noexcept {
  if (!is_byte_range(text)) return std::nullopt;
  std::string_view rest = grammar::trimmed(text).substr(6);
  const auto first = take_position(rest);
  if (rest.empty() || rest.front() != '-') return std::nullopt;
  rest.remove_prefix(1);
  const auto last = take_position(rest);
  if (!rest.empty() || (!first && !last)) return std::nullopt;
  if (!first) {  // the last so many bytes
    if (*last == 0) return kNotSatisfiable;
    if (size == 0) return std::nullopt;  // satisfiable, but no Content-Range can say so: the whole
    return ByteRange{size - std::min(*last, size), size - 1};
  }
  if (last && *last < *first) return std::nullopt;
  if (*first >= size) return kNotSatisfiable;
  return ByteRange{*first, std::min(last.value_or(kMost), size - 1)};
}

bool is_stored_field(std::string_view name) noexcept {
  static constexpr std::array<std::string_view, 14> kNotStored = {
      "connection", "keep-alive",   "proxy-connection",    "te",
      "trailer",    "upgrade",      "transfer-encoding",   "proxy-authenticate",
      "age",        "cache-status", "proxy-authorization", "proxy-authentication-info",
      "x-cache",    "set-cookie"};
  return !is_one_of(name, kNotStored);
}

bool is_in_304(std::string_view name) noexcept {
  static constexpr std::array<std::string_view, 8> kIn304 = {
      "cache-control", "content-location", "date", "etag", "expires", "vary", "last-modified", "age"};
  return is_one_of(name, kIn304);
}

// Content-Type too: frameworks put their default on every empty answer, and JSON would come back as HTML.
bool is_kept_on_304(std::string_view name) noexcept {
  static constexpr std::array<std::string_view, 5> kKept = {"content-length", "content-encoding", "content-type",
                                                            "content-range", "etag"};
  return is_one_of(name, kKept);
}

}  // namespace stillwarm::http
