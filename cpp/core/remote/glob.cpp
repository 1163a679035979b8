// The matcher of globs. Thread rule and grammar: see the header.
#include "core/remote/glob.hpp"

#include <cstddef>
#include <cstdint>

namespace stillwarm {
namespace {

constexpr std::size_t kNowhere = std::string_view::npos;

struct Character {
  std::uint32_t code;
  std::size_t end;  // one past its last byte
};

// The character at `at`, which lies within the text.
Character character(std::string_view text, std::size_t at) noexcept {
  constexpr std::uint32_t kByte = 0x110000;  // above every character: bytes that belong to none
  const auto byte = [text](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const std::uint32_t first = byte(at);
  if (first < 0x80) return {first, at + 1};
  const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() - at < length) return {kByte + first, at + 1};
  std::uint32_t code = first & (0x7Fu >> length);
  for (std::size_t i = at + 1; i < at + length; ++i) {
    if ((byte(i) & 0xC0u) != 0x80u) return {kByte + first, at + 1};
    code = code << 6 | (byte(i) & 0x3Fu);
  }
  return {code, at + length};
}

// The ']' that closes the class whose '[' is at `open`.
std::size_t close_of(std::string_view pattern, std::size_t open) noexcept {
  std::size_t from = open + 1;
  if (from < pattern.size() && pattern[from] == '!') ++from;
  if (from < pattern.size() && pattern[from] == ']') ++from;
  return pattern.find(']', from);
}

// `inside`: what stands between the brackets.
bool in_class(std::string_view inside, std::uint32_t code) noexcept {
  const bool negated = inside.front() == '!';
  bool found = false;
  for (std::size_t at = negated ? 1 : 0; at < inside.size();) {
    const Character low = character(inside, at);
    Character high = low;
    if (low.end + 1 < inside.size() && inside[low.end] == '-') high = character(inside, low.end + 1);
    found = found || (low.code <= code && code <= high.code);
    at = high.end;
  }
  return found != negated;
}

// Where the pattern goes on if what stands at `at` (no '*') takes that character; kNowhere: it does not.
std::size_t take_one(std::string_view pattern, std::size_t at, std::uint32_t code) noexcept {
  if (pattern[at] == '?') return at + 1;
  if (pattern[at] == '[') {
    const std::size_t close = close_of(pattern, at);
    if (close != kNowhere) return in_class(pattern.substr(at + 1, close - at - 1), code) ? close + 1 : kNowhere;
  }
  const Character own = character(pattern, at);
  return own.code == code ? own.end : kNowhere;
}

}  // namespace

bool glob_matches(std::string_view pattern, std::string_view text) noexcept {
  std::size_t p = 0;
  std::size_t t = 0;
  std::size_t after_star = kNowhere;  // the pattern behind the last '*'
  std::size_t star_from = 0;          // the text from which it is tried
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      after_star = ++p;
      star_from = t;
      continue;
    }
    const Character one = character(text, t);
    const std::size_t next = p < pattern.size() ? take_one(pattern, p, one.code) : kNowhere;
    if (next != kNowhere) {
      p = next;
      t = one.end;
      continue;
    }
    if (after_star == kNowhere) return false;
    star_from = character(text, star_from).end;
    p = after_star;
    t = star_from;
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace stillwarm
