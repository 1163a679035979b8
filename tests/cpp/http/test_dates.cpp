// HTTP-date: its three forms (RFC 9110, 5.6.7), the calendar against the C library's, and the texts that are no date.
#include <gtest/gtest.h>

#include <ctime>
#include <random>
#include <string>

#include "core/http/fields.hpp"
#include "http/rows.hpp"

namespace stillwarm::http {
namespace {

constexpr Seconds kEndOfYear9999 = 253402300799;

std::string text_of_date(Seconds at) {
  const auto text = format_date(at);
  return {text.data(), text.size()};
}

constexpr const char* kFixed = "%a, %d %b %Y %H:%M:%S GMT";

// By the C library, in the "C" locale in which the tests run.
std::string by_library(const char* format, Seconds at) {
  const std::time_t seconds = at;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[64];
  return {text, std::strftime(text, sizeof text, format, &parts)};
}

TEST(HttpDate, TheThreeFormsOfTheStandardsExample) {
  constexpr Seconds kExample = 784111777;
  EXPECT_EQ(parse_date("Sun, 06 Nov 1994 08:49:37 GMT", kWall), kExample);
  EXPECT_EQ(parse_date("Sunday, 06-Nov-94 08:49:37 GMT", kWall), kExample);
  EXPECT_EQ(parse_date("Sun Nov  6 08:49:37 1994", kWall), kExample);
  EXPECT_EQ(parse_date(" \tSun, 06 Nov 1994 08:49:37 GMT\t ", kWall), kExample) << "white space around a field value";
  EXPECT_EQ(text_of_date(kExample), "Sun, 06 Nov 1994 08:49:37 GMT");
}

TEST(HttpDate, RandomInstantsAgreeWithTheLibraryInEachForm) {
  std::mt19937_64 random(20250615);
  for (int i = 0; i < 20'000; ++i) {
    const auto at = static_cast<Seconds>(random() % static_cast<std::uint64_t>(kEndOfYear9999 + 1));
    const std::string text = by_library(kFixed, at);
    ASSERT_EQ(text_of_date(at), text);
    ASSERT_EQ(parse_date(text, kNever), at) << text;
    ASSERT_EQ(parse_date(by_library("%a %b %e %H:%M:%S %Y", at), kNever), at) << text;
    // Within 50 years ahead and 49 back, two digits are enough.
    const Seconds wall = at + static_cast<Seconds>(random() % (99ull * 31'556'952)) - 50ll * 31'550'000;
    if (wall < 0 || wall > kEndOfYear9999) continue;
    ASSERT_EQ(parse_date(by_library("%A, %d-%b-%y %H:%M:%S GMT", at), wall), at) << text << " seen at " << wall;
  }
}

TEST(HttpDate, EveryDayOfFourCenturiesIsThatOfTheLibrary) {
  for (Seconds day = 0; day < 146'097 + 400; ++day) {
    const Seconds at = day * 86'400 + day % 86'400;
    ASSERT_EQ(text_of_date(at), by_library(kFixed, at));
  }
}

TEST(HttpDate, LeapDaysAndTheEndsOfMonths) {
  EXPECT_EQ(parse_date("Tue, 29 Feb 2000 00:00:00 GMT", kWall), 951782400);
  EXPECT_EQ(parse_date("Thu, 29 Feb 2024 23:59:59 GMT", kWall), 1709251199);
  EXPECT_EQ(parse_date("Thu, 01 Jan 1970 00:00:00 GMT", kWall), 0);
  EXPECT_EQ(parse_date("Wed, 31 Dec 1969 23:59:59 GMT", kWall), -1);
  EXPECT_EQ(parse_date("Fri, 31 Dec 9999 23:59:59 GMT", kWall), kEndOfYear9999);
  EXPECT_EQ(parse_date("Mon, 01 Jan 0001 00:00:00 GMT", kWall), -62135596800);
  for (const std::string_view weekday : {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}) {
    const auto on = [&](std::string_view rest) {
      return parse_date(std::string(weekday).append(", ").append(rest).append(" 00:00:00 GMT"), kWall);
    };
    EXPECT_EQ(on("29 Feb 2025"), std::nullopt);
    EXPECT_EQ(on("29 Feb 1900"), std::nullopt);
    EXPECT_EQ(on("29 Feb 2100"), std::nullopt);
    EXPECT_EQ(on("31 Apr 2025"), std::nullopt);
    EXPECT_EQ(on("32 Jan 2025"), std::nullopt);
    EXPECT_EQ(on("00 Jan 2025"), std::nullopt);
  }
}

TEST(HttpDate, TwoDigitYearsLieAtMostFiftyYearsAhead) {
  struct Row {
    const char* text;
    const char* meant;
  };
  const Row rows[] = {
      {"Sunday, 15-Jun-25 15:06:40 GMT", "Sun, 15 Jun 2025 15:06:40 GMT"},
      {"Saturday, 15-Jun-75 15:06:40 GMT", "Sat, 15 Jun 2075 15:06:40 GMT"},  // 50 years to the second
      {"Sunday, 15-Jun-75 15:06:41 GMT", "Sun, 15 Jun 1975 15:06:41 GMT"},    // and one more
      {"Monday, 31-Dec-74 00:00:00 GMT", "Mon, 31 Dec 2074 00:00:00 GMT"},
      {"Thursday, 01-Jan-76 00:00:00 GMT", "Thu, 01 Jan 1976 00:00:00 GMT"},
      {"Saturday, 01-Jan-00 00:00:00 GMT", "Sat, 01 Jan 2000 00:00:00 GMT"},
      {"Friday, 31-Dec-99 23:59:59 GMT", "Fri, 31 Dec 1999 23:59:59 GMT"},
      {"Tuesday, 29-Feb-00 00:00:00 GMT", "Tue, 29 Feb 2000 00:00:00 GMT"},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.text);
    EXPECT_EQ(parse_date(row.text, kWall), parse_date(row.meant, kWall));
    EXPECT_NE(parse_date(row.text, kWall), std::nullopt);
  }
  EXPECT_EQ(parse_date("Sunday, 15-Jun-75 15:06:40 GMT", kWall), std::nullopt)
      << "the day is that of 1975: not guessed";
  EXPECT_EQ(parse_date("Sunday, 06-Nov-94 08:49:37 GMT", kNever), std::nullopt) << "nothing places the year";
}

TEST(HttpDate, ALeapSecondCountsAsTheSecondBeforeIt) {
  EXPECT_EQ(parse_date("Sat, 31 Dec 2016 23:59:60 GMT", kWall), parse_date("Sat, 31 Dec 2016 23:59:59 GMT", kWall));
  EXPECT_EQ(parse_date("Sat, 31 Dec 2016 23:59:61 GMT", kWall), std::nullopt);
}

TEST(HttpDate, WhatIsNoDate) {
  const std::string_view bad[] = {
      "",
      "0",
      "-1",
      "never",
      "784111777",
      "1994-11-06T08:49:37Z",
      "Mon, 06 Nov 1994 08:49:37 GMT",  // it was a Sunday
      "Mon Nov  6 08:49:37 1994",
      "Monday, 06-Nov-94 08:49:37 GMT",
      "SUN, 06 Nov 1994 08:49:37 GMT",  // 5.6.7: case-sensitive
      "Sun, 06 nov 1994 08:49:37 GMT",
      "Sun, 06 Nov 1994 08:49:37 gmt",
      "Sun, 06 Nov 1994 08:49:37 UTC",
      "Sun, 06 Nov 1994 08:49:37 +0000",
      "Sun, 06 Nov 1994 08:49:37",
      "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
      "Sun, 06 Nov 1994 08:49:37 GMT0",
      "Sun, 06 Nov 1994 08:49:37  GMT",
      "Sun,06 Nov 1994 08:49:37 GMT",
      "Sun, 6 Nov 1994 08:49:37 GMT",
      "Sun,  6 Nov 1994 08:49:37 GMT",
      "Sun, 06-Nov-1994 08:49:37 GMT",
      "Sun, 06 Nov 94 08:49:37 GMT",
      "Sun, 06 Nov 19940 08:49:37 GMT",
      "Sun, +6 Nov 1994 08:49:37 GMT",
      "Sun, 06 Nov 1994 24:00:00 GMT",
      "Sun, 06 Nov 1994 08:60:37 GMT",
      "Sun, 06 Nov 1994 8:49:37 GMT",
      "Sun, 06 Nov 1994 08:49 GMT",
      "Sun, 06 November 1994 08:49:37 GMT",
      "Sunday, 06 Nov 1994 08:49:37 GMT",
      "Sunday, 06-Nov-1994 08:49:37 GMT",
      "Sunday, 06-Nov-9 08:49:37 GMT",
      "Sun Nov 6 08:49:37 1994",
      "Sun Nov 06 08:49:37 94",
      "Sun Nov  6 08:49:37 1994 GMT",
      "Sun Nov   6 08:49:37 1994",
      "Xyz, 06 Nov 1994 08:49:37 GMT",
      "Sun, 06 Xyz 1994 08:49:37 GMT",
      "Sun, \xd9\xa1 Nov 1994 08:49:37 GMT",
  };
  for (const std::string_view text : bad) EXPECT_EQ(parse_date(text, kWall), std::nullopt) << text;
  EXPECT_EQ(parse_date(std::string_view("Sun, 06 Nov 1994 08:49:37 GMT\0", 30), kWall), std::nullopt);
}

TEST(HttpDate, EveryPrefixAndEveryChangedByteOfADateIsReadAsItStandsOrNotAtAll) {
  const std::string date = "Sun, 06 Nov 1994 08:49:37 GMT";
  for (std::size_t n = 0; n < date.size(); ++n) EXPECT_EQ(parse_date(date.substr(0, n), kWall), std::nullopt);
  for (std::size_t n = 0; n < date.size(); ++n) {
    for (int byte = 0; byte < 256; ++byte) {
      std::string changed = date;
      changed[n] = static_cast<char>(byte);
      const auto at = parse_date(changed, kWall);
      if (at) {
        EXPECT_EQ(by_library(kFixed, *at), changed);
      }
    }
  }
}

TEST(HttpDate, WhatIsNoInstantOfTheseYearsIsWrittenAsTheNearest) {
  EXPECT_EQ(text_of_date(-1), "Thu, 01 Jan 1970 00:00:00 GMT");
  EXPECT_EQ(text_of_date(kEndOfYear9999 + 1), "Fri, 31 Dec 9999 23:59:59 GMT");
}

}  // namespace
}  // namespace stillwarm::http
