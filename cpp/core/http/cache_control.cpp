// How Cache-Control is read. Thread rule and what this refuses to know: see fields.hpp.
#include <algorithm>

#include "core/http/fields.hpp"
#include "core/http/grammar.hpp"

namespace stillwarm::http {
namespace {

struct Directive {
  std::string_view name;
  std::string_view value;  // of a quoted string what is between the quotes, escapes and all
  bool has_value = false;
};

void keep_smaller(Seconds& kept, Seconds seen) noexcept { kept = kept == kNever ? seen : std::min(kept, seen); }

void read_seconds(const Directive& directive, Seconds& to, bool& malformed) noexcept {
  const auto seconds = parse_delta_seconds(directive.value);  // no value is no number
  if (seconds) {
    keep_smaller(to, *seconds);
  } else {
    malformed = true;
  }
}

// What restricts holds with an argument too. What permits does not: with an argument it is something else.
void read_permission(const Directive& directive, bool& to, bool& malformed) noexcept {
  (directive.has_value ? malformed : to) = true;
}

void apply(const Directive& directive, Directives& to) noexcept {
  const auto is = [&](std::string_view name) { return equal_in_any_case(directive.name, name); };
  if (is("max-age")) return read_seconds(directive, to.max_age, to.malformed);
  if (is("s-maxage")) return read_seconds(directive, to.s_maxage, to.malformed);
  if (is("no-store")) return static_cast<void>(to.no_store = true);
  if (is("no-cache")) return static_cast<void>(to.no_cache = true);
  if (is("private")) return static_cast<void>(to.private_ = true);
  if (is("public")) return read_permission(directive, to.public_, to.malformed);
  if (is("must-revalidate")) return read_permission(directive, to.must_revalidate, to.malformed);
  if (is("proxy-revalidate")) return static_cast<void>(to.proxy_revalidate = true);
  if (is("must-understand")) return read_permission(directive, to.must_understand, to.malformed);
  if (is("only-if-cached")) return static_cast<void>(to.only_if_cached = true);
  if (is("stale-while-revalidate")) return read_seconds(directive, to.stale_while_revalidate, to.malformed);
  if (is("stale-if-error")) return read_seconds(directive, to.stale_if_error, to.malformed);
  if (is("min-fresh")) {
    Seconds seen = kNever;
    read_seconds(directive, seen, to.malformed);
    to.min_fresh = std::max(to.min_fresh, seen);  // here more is stricter
  } else if (is("max-stale")) {
    if (directive.has_value) {
      read_seconds(directive, to.max_stale, to.malformed);
    } else {
      keep_smaller(to.max_stale, kMostSeconds);
    }
  }
}

// Takes one directive from the front of `rest`. False: what stands there is none.
bool take(std::string_view& rest, Directive& directive) noexcept {
  const std::size_t name = grammar::token_length(rest);
  directive = {rest.substr(0, name), {}, false};
  rest.remove_prefix(name);
  if (name == 0 || rest.empty() || rest.front() != '=') return name != 0;
  rest.remove_prefix(1);
  directive.has_value = true;
  if (!rest.empty() && rest.front() == '"') {
    const std::size_t quoted = grammar::quoted_length(rest);
    if (quoted != 0) directive.value = rest.substr(1, quoted - 2);
    rest.remove_prefix(quoted == 0 ? rest.size() : quoted);  // where the string should have ended is anyone's guess
    return quoted != 0;
  }
  const std::size_t value = grammar::token_length(rest);
  directive.value = rest.substr(0, value);
  rest.remove_prefix(value);
  return value != 0;
}

}  // namespace

Directives parse_cache_control(std::string_view text) noexcept {
  Directives result;
  std::string_view rest = text;
  while (true) {
    while (!rest.empty() && (grammar::is_space(rest.front()) || rest.front() == ',')) rest.remove_prefix(1);
    if (rest.empty()) return result;
    Directive directive;
    if (!take(rest, directive)) result.malformed = true;
    apply(directive, result);  // a directive that restricts counts even where its argument cannot be read
    rest.remove_prefix(grammar::space_length(rest));
    if (rest.empty()) return result;
    if (rest.front() == ',') continue;
    result.malformed = true;
    rest.remove_prefix(std::min(rest.find(','), rest.size()));
  }
}

std::optional<Seconds> parse_delta_seconds(std::string_view text) noexcept {
  if (text.empty()) return std::nullopt;
  Seconds result = 0;
  for (const char c : text) {
    if (!grammar::is_digit(c)) return std::nullopt;
    result = std::min(result * 10 + (c - '0'), kMostSeconds);
  }
  return result;
}

}  // namespace stillwarm::http
