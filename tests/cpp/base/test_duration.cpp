// Durations and sizes: every unit, exactness, every way to be wrong.
#include "core/base/duration.hpp"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "support.hpp"

namespace stillwarm {
namespace {

using test::kDay;

constexpr Nanos kMinute = 60 * kSecond;
constexpr Nanos kHour = 60 * kMinute;

TEST(Duration, EveryUnitAndTheirSums) {
  const std::vector<std::pair<std::string, Nanos>> cases{
      {"300ms", 300 * kMillisecond},
      {"30s", 30 * kSecond},
      {"5m", 5 * kMinute},
      {"6h", 6 * kHour},
      {"1d", kDay},
      {"2h30m", 2 * kHour + 30 * kMinute},
      {"1d2h3m4s5ms", kDay + 2 * kHour + 3 * kMinute + 4 * kSecond + 5 * kMillisecond},
      {"1m0.5s", kMinute + 500 * kMillisecond},
      {"90m", 90 * kMinute},
      {"0s", 0},
      {"007s", 7 * kSecond},
  };
  for (const auto& [text, nanos] : cases) EXPECT_EQ(parse_duration(text), nanos) << text;
}

TEST(Duration, FractionsAreExact) {
  EXPECT_EQ(parse_duration("1.5s"), 1'500'000'000);
  EXPECT_EQ(parse_duration("0.1s"), 100'000'000);
  EXPECT_EQ(parse_duration("0.000000001s"), 1);
  EXPECT_EQ(parse_duration("0.0000000019s"), 1);  // finer than a nanosecond: cut off
  EXPECT_EQ(parse_duration("0.9999999999999999999999999999s"), 999'999'999);
  EXPECT_EQ(parse_duration("1.123456789s"), 1'123'456'789);
  EXPECT_EQ(parse_duration("0.5d"), 12 * kHour);
}

TEST(Duration, HundredYearsIsTheEnd) {
  EXPECT_EQ(parse_duration("36525d"), kLongestDuration);
  for (const char* text : {"36525d1ms", "36526d", "99999999999999999999d", "9223372036854775808ms", "300000000h"}) {
    EXPECT_THROW(parse_duration(text), ParseError) << text;
  }
}

TEST(Duration, RefusalsSayWhatIsWrong) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"", "the text is empty"},
      {"300", "the number \"300\" has no unit"},
      {"2h30", "the number \"30\" has no unit"},
      {"-5s", "expected a digit at \"-5s\""},
      {" 5s", "expected a digit at \" 5s\""},
      {"5 s", "the number \"5\" has no unit"},
      {"5s ", "expected a digit at \" \""},
      {"s", "expected a digit at \"s\""},
      {"5M", "unknown unit \"M\""},
      {"5min", "unknown unit \"min\""},
      {"1w", "unknown unit \"w\""},
      {"1us", "unknown unit \"us\""},
      {"1.s", "expected a digit behind the point"},
      {".5s", "expected a digit at \".5s\""},
      {"1,5s", "the number \"1\" has no unit"},
      {"1e3s", "unknown unit \"e\""},
      {"1.5h30m", "only the last number may have a fraction"},
      {"30m2h", "units must fall and come once each, but \"h\" comes late"},
      {"1s1s", "units must fall and come once each, but \"s\" comes late"},
      {"inf", "expected a digit at \"inf\""},
  };
  for (const auto& [text, reason] : cases) {
    try {
      parse_duration(text);
      ADD_FAILURE() << '"' << text << "\" was accepted";
    } catch (const ParseError& e) {
      EXPECT_EQ(e.reason(), reason) << text;
      EXPECT_EQ(e.text(), text);
      EXPECT_EQ(e.accepted(), kDurationAccepted);
      EXPECT_EQ(std::string(e.what()), '"' + text + "\": " + reason + "; accepted: " + std::string(kDurationAccepted));
    }
  }
}

TEST(Duration, ALongTextIsNotRepeatedInFull) {
  try {
    parse_duration(std::string(10'000, 'x'));
    FAIL();
  } catch (const ParseError& e) {
    EXPECT_LT(std::string(e.what()).size(), 300u);
  }
}

TEST(Duration, AnEmbeddedNulIsRefused) { EXPECT_THROW(parse_duration(std::string_view("5s\0", 3)), ParseError); }

TEST(Size, EveryUnitOf1024InAnyCase) {
  const std::vector<std::pair<std::string, std::int64_t>> cases{
      {"1048576", 1'048'576},
      {"12B", 12},
      {"64KB", 65'536},
      {"64kb", 65'536},
      {"64KiB", 65'536},
      {"256MB", 268'435'456},
      {"1GB", 1'073'741'824},
      {"1TB", 1'099'511'627'776},
      {"1.5KB", 1'536},
      {"0.5B", 0},
      {"0", 0},
      {"8388607TB", 8'388'607 * (std::int64_t{1} << 40)},
  };
  for (const auto& [text, bytes] : cases) EXPECT_EQ(parse_size(text), bytes) << text;
}

TEST(Size, RefusalsSayWhatIsWrong) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"", "the text is empty"},
      {"MB", "expected a digit at \"MB\""},
      {"-1MB", "expected a digit at \"-1MB\""},
      {"1 MB", "unexpected \" MB\" at the end"},
      {"1MB2KB", "unexpected \"2KB\" at the end"},
      {"1PB", "unknown unit \"PB\""},
      {"1M", "unknown unit \"M\""},
      {"8388608TB", "larger than 2^63 - 1 bytes"},
      {"9223372036854775808", "larger than 2^63 - 1 bytes"},
  };
  for (const auto& [text, reason] : cases) {
    try {
      parse_size(text);
      ADD_FAILURE() << '"' << text << "\" was accepted";
    } catch (const ParseError& e) {
      EXPECT_EQ(e.reason(), reason) << text;
      EXPECT_EQ(e.accepted(), kSizeAccepted);
    }
  }
}

}  // namespace
}  // namespace stillwarm
