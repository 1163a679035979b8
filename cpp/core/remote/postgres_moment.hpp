// A moment of the tier: a snapshot, and the life of the server in which it was taken: "725:728:726/life".
//
// Thread rule: pure functions.
// Refuses to know: statements, connections.
//
// A crash forgets the numbers of transactions that had written nothing to disk, and a promoted standby those that had
// not arrived; the next ones get them a second time. So a snapshot from before would hold for visible what came after.
// A life begins when tables that a crash empties are empty. The first connection names it, by a text that ends with the
// number of its own transaction: "name@731". Whatever this package writes in that life is numbered above.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>

namespace stillwarm {

struct Moment {
  std::string_view snapshot;
  std::string_view life;  // empty: unknown

  static Moment of(std::string_view text) noexcept {
    const auto slash = text.find('/');
    if (slash == std::string_view::npos) return {text, {}};
    return {text.substr(0, slash), text.substr(slash + 1)};
  }
};

inline std::string moment_text(std::string_view snapshot, std::string_view life) {
  std::string text(snapshot);
  if (!life.empty()) (text += '/') += life;
  return text;
}

// The number at the beginning, which is taken away.
inline std::uint64_t take_number(std::string_view& text) noexcept {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return number;
}

// Of the text of a pg_snapshot, xmin:xmax:list. 0: there is none.
inline std::uint64_t xmax_of(std::string_view snapshot) noexcept {
  const auto colon = snapshot.find(':');
  if (colon == std::string_view::npos) return 0;
  snapshot.remove_prefix(colon + 1);
  return take_number(snapshot);
}

// Of the name of a life, the first number that is its own; 0: it does not say.
inline std::uint64_t first_of(std::string_view life) noexcept {
  const auto at = life.rfind('@');
  if (at == std::string_view::npos) return 0;
  life.remove_prefix(at + 1);
  return take_number(life);
}

// What a snapshot of an earlier life says in one whose first number is `first`: of that and all above it, nothing.
inline std::string cut_at(std::string_view snapshot, std::uint64_t first) {
  constexpr std::uint64_t kFirstOfAll = 3;  // PostgreSQL refuses a snapshot with less
  first = std::max(first, kFirstOfAll);
  const std::uint64_t xmin = std::min(take_number(snapshot), first);
  if (!snapshot.empty()) snapshot.remove_prefix(1);
  const std::uint64_t xmax = std::min(take_number(snapshot), first);
  if (!snapshot.empty()) snapshot.remove_prefix(1);
  std::string text = std::to_string(xmin) + ':' + std::to_string(xmax) + ':';
  const std::size_t head = text.size();
  while (!snapshot.empty()) {
    const std::uint64_t running = take_number(snapshot);
    if (running < xmax) {
      if (text.size() > head) text += ',';
      text += std::to_string(running);
    }
    if (!snapshot.empty()) snapshot.remove_prefix(1);
  }
  return text;
}

}  // namespace stillwarm
