// Globs: what Python's fnmatch says of the same rows, a random comparison with a matcher by recursion, and the time
// bound.
#include "core/remote/glob.hpp"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace stillwarm {
namespace {

struct GlobRow {
  const char* pattern;
  const char* text;
  bool matches;
};

// Each row was given to fnmatch.fnmatchcase of Python 3.11.
constexpr GlobRow kRows[] = {
    {"", "", true},
    {"", "a", false},
    {"*", "", true},
    {"*", "a\nb", true},
    {"a*", "abc", true},
    {"a*", "ba", false},
    {"*c", "abc", true},
    {"a*c", "ac", true},
    {"a**c", "abbc", true},
    {"*a*b*", "xxaxxbxx", true},
    {"*a*b*", "xxbxxaxx", false},
    {"*ab", "aab", true},
    {"*aab*b", "aaabab", true},
    {"?", "", false},
    {"?", "\n", true},
    {"??", "a", false},
    {"?*?", "ab", true},
    {"a.c", "abc", false},
    {"a\\*", "a\\b", true},
    {"[abc]", "b", true},
    {"[abc]", "d", false},
    {"[a-c]x", "bx", true},
    {"[c-a]", "b", false},
    {"[c-ab]", "b", true},
    {"[!c-a]", "b", true},
    {"[!a-c]", "b", false},
    {"[!a-c]", "d", true},
    {"[!a]", "", false},
    {"[]]", "]", true},
    {"[!]]", "]", false},
    {"[!]]", "a", true},
    {"[]a]", "a", true},
    {"[a-]", "-", true},
    {"[-a]", "-", true},
    {"[--a]", ".", true},
    {"[a-c-e]", "-", true},
    {"[a-c-e]", "d", false},
    {"[^a]", "^", true},
    {"[^a]", "b", false},
    {"[a!]", "!", true},
    {"[", "[", true},
    {"[a", "[a", true},
    {"[!", "[!", true},
    {"[]", "[]", true},
    {"[!]", "[!]", true},
    {"[\\]", "\\", true},
    {"[[]x", "[x", true},
    {"[a]*[b]", "axxb", true},
    {"]", "]", true},
    {"caf?", "caf\u00e9", true},
    {"[\u00e0-\u00ff]", "\u00e9", true},
    {"[!\u00e9]", "\u00e9", false},
    {"?", "\U0001F600", true},
    {"scope:*:7", "scope:'a b':7", true},
    {"Scope:*", "scope:1", false},
};

TEST(Glob, MatchesAsFnmatchDoes) {
  for (const GlobRow& row : kRows)
    EXPECT_EQ(glob_matches(row.pattern, row.text), row.matches) << row.pattern << ' ' << row.text;
}

TEST(Glob, ABrokenByteIsACharacter) {
  EXPECT_TRUE(glob_matches("?", "\xff"));
  EXPECT_TRUE(glob_matches("??", "\xe2\x82"));  // cut off
  EXPECT_TRUE(glob_matches("a\xff*", "a\xff\xfe"));
  EXPECT_FALSE(glob_matches("[!\xff]", "\xff"));
  EXPECT_FALSE(glob_matches("\xff", "\u00ff"));
  EXPECT_TRUE(glob_matches("[\xc3", "[\xc3"));
}

// Exponential, and plain to see. No classes with '!' inside, no broken bytes.
bool slow(const std::string& p, const std::string& t) {
  if (p.empty()) return t.empty();
  if (p[0] == '*') return slow(p.substr(1), t) || (!t.empty() && slow(p, t.substr(1)));
  if (t.empty()) return false;
  if (p[0] == '[') {
    const bool negated = p[1] == '!';
    const std::size_t close = p.find(']');
    const bool in = p.substr(0, close).find(t[0], negated ? 2 : 1) != std::string::npos;
    return in != negated && slow(p.substr(close + 1), t.substr(1));
  }
  return (p[0] == '?' || p[0] == t[0]) && slow(p.substr(1), t.substr(1));
}

TEST(Glob, RandomPatternsAsByRecursion) {
  std::mt19937_64 engine(5);
  const std::string parts[] = {"a", "b", "*", "*", "?", "[ab]", "[!a]"};
  int matched = 0;
  for (int i = 0; i < 50'000; ++i) {
    std::string pattern;
    std::string text;
    for (std::uint64_t n = engine() % 7; n > 0; --n) pattern += parts[engine() % 7];
    for (std::uint64_t n = engine() % 8; n > 0; --n) text += "abc"[engine() % 3];
    ASSERT_EQ(glob_matches(pattern, text), slow(pattern, text)) << pattern << ' ' << text;
    matched += slow(pattern, text) ? 1 : 0;
  }
  EXPECT_GT(matched, 2'000);
  EXPECT_LT(matched, 48'000);
}

TEST(Glob, ManyStarsEnd) {
  std::string pattern;
  for (int i = 0; i < 100; ++i) pattern += "*a";
  EXPECT_FALSE(glob_matches(pattern + "*b", std::string(5'000, 'a')));  // by recursion: not in our time
}

}  // namespace
}  // namespace stillwarm
