// Durations and sizes as people write them: "300ms", "2h30m", "1.5s"; "64KB", "256MB", "1GB".
//
// Thread rule: pure functions, any thread.
// Refuses to know: which limits an argument has (10 ms, not 0): that is the caller's, who can name the argument.
//
// Grammar, without white space and without sign:
//   duration = 1*(number unit), units falling and each at most once; unit = "d" | "h" | "m" | "s" | "ms"
//   size     = number [unit];   unit = "B" | "KB" | "MB" | "GB" | "TB" (or KiB ...), in any case, of 1024 each
//   number   = 1*DIGIT ["." 1*DIGIT]; a fraction only in the last number; what is finer than a ns or a byte is cut off
// Units of durations are lower case only: "5M" could be meant as months.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

#include "core/base/entry.hpp"

namespace stillwarm {

// 100 years: far above any sensible setting, far below the 292 years of 64-bit nanoseconds, so that now + d is safe.
inline constexpr Nanos kLongestDuration = Nanos{36'525} * 86'400 * 1'000'000'000;

inline constexpr std::string_view kDurationAccepted =
    "a duration like \"300ms\", \"30s\", \"5m\", \"6h\", \"1d\", \"2h30m\" or \"1.5s\"";
inline constexpr std::string_view kSizeAccepted = "a size like \"64KB\", \"256MB\", \"1.5GB\" or \"1048576\" (bytes)";

// what() is "<reason>; accepted: <accepted>"; the parts are there for who can name the argument as well.
class ParseError : public std::invalid_argument {
 public:
  ParseError(std::string_view text, std::string_view reason, std::string_view accepted);

  const std::string& text() const noexcept { return text_; }          // as given
  const std::string& reason() const noexcept { return reason_; }      // what is wrong with it
  const std::string& accepted() const noexcept { return accepted_; }  // what would be right

 private:
  std::string text_;
  std::string reason_;
  std::string accepted_;
};

// Nanoseconds, 0 to kLongestDuration. Throws ParseError.
Nanos parse_duration(std::string_view text);

// Bytes, 0 to 2^63 - 1. Throws ParseError.
std::int64_t parse_size(std::string_view text);

}  // namespace stillwarm
