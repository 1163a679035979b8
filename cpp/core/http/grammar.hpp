// The characters of HTTP's grammar: tokens, white space, digits (RFC 9110, 5.6).
//
// Thread rule: pure functions.
// Refuses to know: which field is being read.
#pragma once

#include <cstddef>
#include <string_view>

namespace stillwarm::http::grammar {

constexpr bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }
constexpr bool is_alpha(char c) noexcept { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
constexpr bool is_space(char c) noexcept { return c == ' ' || c == '\t'; }
constexpr bool is_control(char c) noexcept { return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f; }
constexpr bool is_token_char(char c) noexcept {
  return is_digit(c) || is_alpha(c) || std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}
constexpr char lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// The length of the token, the white space, or the quoted string with its quotes, at the start of `text`. Of a quoted
// string 0 means: it does not end, or holds a byte that it must not.
constexpr std::size_t token_length(std::string_view text) noexcept {
  std::size_t n = 0;
  while (n < text.size() && is_token_char(text[n])) ++n;
  return n;
}
constexpr std::size_t space_length(std::string_view text) noexcept {
  std::size_t n = 0;
  while (n < text.size() && is_space(text[n])) ++n;
  return n;
}
constexpr std::size_t quoted_length(std::string_view text) noexcept {
  if (text.empty() || text.front() != '"') return 0;
  for (std::size_t at = 1; at < text.size(); ++at) {
    if (text[at] == '"') return at + 1;
    if (text[at] == '\\' && ++at == text.size()) return 0;
    if (is_control(text[at])) return 0;
  }
  return 0;
}

constexpr std::string_view trimmed(std::string_view text) noexcept {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

}  // namespace stillwarm::http::grammar
