// What PostgreSQL's texts mean: durations, moments, arrays, and which errors are worth another attempt.
//
// Thread rule: pure functions.
// Refuses to know: statements, connections, requests.
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/life.hpp"
#include "core/remote/remote_tier.hpp"

namespace stillwarm {

inline constexpr double kLongest = 100.0 * 365 * 86400;  // s: a clock that jumped cannot promise more

inline std::string milliseconds(Nanos duration) {
  if (duration >= kForever) return "Infinity";
  return std::to_string(duration / 1'000'000);
}

inline Nanos nanos(std::string_view ms) {
  if (ms == "Infinity") return kForever;
  double value = 0;
  std::from_chars(ms.data(), ms.data() + ms.size(), value);
  return static_cast<Nanos>(std::min(std::max(value, -kLongest * 1e3), kLongest * 1e3) * 1e6);
}

// From now to a moment, both in s since 1970.
inline Nanos until(std::string_view moment, std::string_view now) {
  if (moment == "Infinity") return kForever;
  double at = 0, from = 0;
  std::from_chars(moment.data(), moment.data() + moment.size(), at);
  std::from_chars(now.data(), now.data() + now.size(), from);
  return static_cast<Nanos>(std::min(std::max(at - from, -kLongest), kLongest) * 1e9);
}

// The texts in an array literal without NULLs.
inline std::vector<std::string> texts_of(std::string_view literal) {
  std::vector<std::string> texts;
  std::size_t i = 1;
  while (i + 1 < literal.size()) {
    std::string text;
    if (literal[i] == '"') {
      for (++i; i < literal.size() && literal[i] != '"'; ++i) {
        if (literal[i] == '\\') ++i;
        if (i < literal.size()) text += literal[i];
      }
      ++i;
    } else {
      while (i + 1 < literal.size() && literal[i] != ',') text += literal[i++];
    }
    texts.push_back(std::move(text));
    ++i;  // the comma
  }
  return texts;
}

inline bool is_missing_table(const TierError& error) {
  return error.state == "42P01" || error.state == "3F000" || error.state == "42703";
}

// One of the requests is at fault, and not the statement or the server.
inline bool is_about_data(const TierError& error) {
  return error.fault == TierFault::kRejected &&
         (error.state.starts_with("21") || error.state.starts_with("22") || error.state.starts_with("23") ||
          error.state.starts_with("54"));  // too long for an index
}

// What may succeed the next moment: a deadlock, a serialization failure.
inline bool is_collision(const TierError& error) { return error.state == "40P01" || error.state == "40001"; }

}  // namespace stillwarm
