// How durations and sizes are read. Thread rule, grammar and what this refuses to know: see the header.
//
// All arithmetic is in integers, so that "0.1s" is 100,000,000 ns exactly.
#include "core/base/duration.hpp"

#include <array>
#include <limits>
#include <optional>

namespace stillwarm {
namespace {

struct Unit {
  std::string_view name;
  std::int64_t factor;
};

// Falling: a later part of a duration must come from further down.
constexpr std::array<Unit, 5> kDurationUnits{{{"d", Nanos{86'400} * 1'000'000'000},
                                              {"h", Nanos{3'600} * 1'000'000'000},
                                              {"m", Nanos{60} * 1'000'000'000},
                                              {"s", 1'000'000'000},
                                              {"ms", 1'000'000}}};

constexpr std::array<Unit, 10> kSizeUnits{{{"", 1},
                                           {"b", 1},
                                           {"kb", std::int64_t{1} << 10},
                                           {"kib", std::int64_t{1} << 10},
                                           {"mb", std::int64_t{1} << 20},
                                           {"mib", std::int64_t{1} << 20},
                                           {"gb", std::int64_t{1} << 30},
                                           {"gib", std::int64_t{1} << 30},
                                           {"tb", std::int64_t{1} << 40},
                                           {"tib", std::int64_t{1} << 40}}};

constexpr bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }
constexpr bool is_letter(char c) noexcept { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

std::string lower(std::string_view s) {
  std::string out(s);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

// What is shown of a text that may be long or come from an environment variable.
std::string shown(std::string_view s) {
  constexpr std::size_t kShown = 40;
  return '"' + std::string(s.substr(0, kShown)) + (s.size() > kShown ? "...\"" : "\"");
}

// One number and its unit, taken from the front of a text.
struct Part {
  std::string_view whole;
  std::string_view fraction;  // digits behind the point
  std::string_view unit;

  // whole.fraction * factor, cut off; nothing if it does not fit.
  std::optional<std::int64_t> times(std::int64_t factor) const noexcept {
    std::int64_t sum = 0;
    for (const char c : whole) {
      if (__builtin_mul_overflow(sum, std::int64_t{10}, &sum)) return std::nullopt;
      if (__builtin_add_overflow(sum, std::int64_t{c - '0'}, &sum)) return std::nullopt;
    }
    if (__builtin_mul_overflow(sum, factor, &sum)) return std::nullopt;
    // From the last digit to the first, ((d_n * factor) / 10 + d_{n-1} * factor) / 10 ...: nested floors are the floor
    // of the whole, so cutting off at each step loses nothing, whatever the number of digits.
    std::int64_t below = 0;  // < factor
    for (auto c = fraction.rbegin(); c != fraction.rend(); ++c) below = (below + (*c - '0') * factor) / 10;
    if (__builtin_add_overflow(sum, below, &sum)) return std::nullopt;
    return sum;
  }
};

Part take_part(std::string_view& rest, std::string_view text, std::string_view accepted) {
  const auto take = [&rest](auto belongs) {
    std::size_t n = 0;
    while (n < rest.size() && belongs(rest[n])) ++n;
    const std::string_view taken = rest.substr(0, n);
    rest.remove_prefix(n);
    return taken;
  };
  Part part;
  part.whole = take(is_digit);
  if (part.whole.empty()) throw ParseError(text, "expected a digit at " + shown(rest), accepted);
  if (!rest.empty() && rest.front() == '.') {
    rest.remove_prefix(1);
    part.fraction = take(is_digit);
    if (part.fraction.empty()) throw ParseError(text, "expected a digit behind the point", accepted);
  }
  part.unit = take(is_letter);
  return part;
}

}  // namespace

ParseError::ParseError(std::string_view text, std::string_view reason, std::string_view accepted)
    : std::invalid_argument(shown(text) + ": " + std::string(reason) + "; accepted: " + std::string(accepted)),
      text_(text),
      reason_(reason),
      accepted_(accepted) {}

Nanos parse_duration(std::string_view text) {
  const auto refuse = [text](const std::string& reason) { return ParseError(text, reason, kDurationAccepted); };
  if (text.empty()) throw refuse("the text is empty");
  Nanos sum = 0;
  std::size_t next_unit = 0;
  bool fraction_seen = false;
  for (std::string_view rest = text; !rest.empty();) {
    if (fraction_seen) throw refuse("only the last number may have a fraction");
    const Part part = take_part(rest, text, kDurationAccepted);
    if (part.unit.empty()) throw refuse("the number " + shown(part.whole) + " has no unit");
    fraction_seen = !part.fraction.empty();

    std::size_t i = 0;
    while (i < kDurationUnits.size() && kDurationUnits[i].name != part.unit) ++i;
    if (i == kDurationUnits.size()) throw refuse("unknown unit " + shown(part.unit));
    if (i < next_unit) throw refuse("units must fall and come once each, but " + shown(part.unit) + " comes late");
    next_unit = i + 1;

    const auto nanos = part.times(kDurationUnits[i].factor);
    if (!nanos || *nanos > kLongestDuration - sum) throw refuse("longer than 100 years");
    sum += *nanos;
  }
  return sum;
}

std::int64_t parse_size(std::string_view text) {
  const auto refuse = [text](const std::string& reason) { return ParseError(text, reason, kSizeAccepted); };
  if (text.empty()) throw refuse("the text is empty");
  std::string_view rest = text;
  const Part part = take_part(rest, text, kSizeAccepted);
  if (!rest.empty()) throw refuse("unexpected " + shown(rest) + " at the end");
  const std::string unit = lower(part.unit);
  for (const Unit& known : kSizeUnits) {
    if (known.name != unit) continue;
    const auto bytes = part.times(known.factor);
    if (!bytes) throw refuse("larger than 2^63 - 1 bytes");
    return *bytes;
  }
  throw refuse("unknown unit " + shown(part.unit));
}

}  // namespace stillwarm
