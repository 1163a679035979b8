// An identifier as it stands in SQL.
//
// Thread rule: pure functions.
// Refuses to know: statements, connections, and whether such a thing exists.
#pragma once

#include <string>
#include <string_view>

namespace stillwarm {

inline std::string quoted_identifier(std::string_view identifier) {
  std::string out = "\"";
  for (const char c : identifier) {
    if (c == '"') out += '"';
    out += c;
  }
  return out += '"';
}

}  // namespace stillwarm
