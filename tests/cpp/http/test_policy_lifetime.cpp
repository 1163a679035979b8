// After the app answered: how long the response is fresh, how old it came, and how long it may be used when stale.
#include "http/rows.hpp"

namespace stillwarm::http {
namespace {

// kWall is Sun, 15 Jun 2025 15:06:40 GMT.
constexpr std::string_view kTenBefore = "Sun, 15 Jun 2025 15:06:30 GMT";
constexpr std::string_view kTenAfter = "Sun, 15 Jun 2025 15:06:50 GMT";
constexpr std::string_view kMinuteAfter = "Sun, 15 Jun 2025 15:07:40 GMT";

struct LifetimeRow {
  const char* rule;
  std::string_view cache_control;
  std::string_view expires;
  std::string_view date;
  std::string_view age;
  Why why;
  Nanos ttl;
  Seconds aged;
};

void expect_lifetime(const LifetimeRow& row, const Route& declared = {}) {
  SCOPED_TRACE(row.rule);
  const Response response = changed(ok(row.cache_control), [&](Response& r) {
    r.expires = row.expires;
    r.date = row.date;
    r.age = row.age;
  });
  const After result = after(get(), response, declared, kWall);
  EXPECT_EQ(result.store, row.why == Why::kNone);
  EXPECT_EQ(result.why, row.why);
  EXPECT_EQ(result.ttl, row.ttl);
  EXPECT_EQ(result.age, row.aged);
  // Who waited may have what nobody spoke of; what is expired by its own words must be asked for again (RFC 9111, 4).
  EXPECT_EQ(result.shareable, row.why == Why::kNone || row.why == Why::kNoLifetime);
}

TEST(HttpLifetime, WhatTheResponseSays) {
  const LifetimeRow rows[] = {
      {"4.2.1 nothing", "", "", "", "", Why::kNoLifetime, 0, 0},
      {"4.2.1 nothing", "public, must-revalidate, immutable", "", kWallDate, "", Why::kNoLifetime, 0, 0},
      {"5.2.2.1", "max-age=60", "", "", "", Why::kNone, 60 * kSecond, 0},
      {"5.2.2.10 before max-age", "max-age=60, s-maxage=5", "", "", "", Why::kNone, 5 * kSecond, 0},
      {"5.2.2.10 before max-age", "s-maxage=60, max-age=0", "", "", "", Why::kNone, 60 * kSecond, 0},
      {"5.3 less Date", "", kTenAfter, kTenBefore, "", Why::kNone, 10 * kSecond, 10},
      {"5.3 without Date: less the time it came", "", kTenAfter, "", "", Why::kNone, 10 * kSecond, 0},
      {"5.3 with an unreadable Date: the same", "", kTenAfter, "yesterday", "", Why::kNone, 10 * kSecond, 0},
      {"5.3 not beside max-age", "max-age=60", kTenAfter, kWallDate, "", Why::kNone, 60 * kSecond, 0},
      {"5.3 not beside max-age", "max-age=60", "0", kWallDate, "", Why::kNone, 60 * kSecond, 0},
      {"5.3 not beside max-age", "max-age=0", kTenAfter, kWallDate, "", Why::kExpired, 0, 0},
      {"5.3 not beside s-maxage", "s-maxage=60", kTenBefore, kWallDate, "", Why::kNone, 60 * kSecond, 0},
      {"5.3 in the past", "", kTenBefore, kWallDate, "", Why::kExpired, 0, 0},
      {"5.3 now", "", kWallDate, kWallDate, "", Why::kExpired, 0, 0},
      {"5.3 not readable means expired", "", "0", "", "", Why::kExpired, 0, 0},
      {"5.3 not readable means expired", "", "-1", "", "", Why::kExpired, 0, 0},
      {"5.3 twice", "", "Sun, 15 Jun 2025 15:07:40 GMT, Sun, 15 Jun 2025 15:07:40 GMT", "", "", Why::kExpired, 0, 0},
      {"5.3 in the old form", "", "Sunday, 15-Jun-25 15:07:40 GMT", kWallDate, "", Why::kNone, 60 * kSecond, 0},
      {"5.3 the end of the calendar", "", "Fri, 31 Dec 9999 23:59:59 GMT", "", "", Why::kNone, kMostSeconds * kSecond,
       0},
      {"1.2.2 too many", "max-age=99999999999999999999", "", "", "", Why::kNone, kMostSeconds * kSecond, 0},
      {"4.2 zero", "max-age=0", "", "", "", Why::kExpired, 0, 0},
      {"4.2 zero", "s-maxage=0, max-age=60", "", "", "", Why::kExpired, 0, 0},
      {"4.2.1 not readable", "max-age=1.5", "", "", "", Why::kMalformed, 0, 0},
  };
  for (const LifetimeRow& row : rows) expect_lifetime(row);
}

TEST(HttpLifetime, TheAgeWithWhichItCame) {
  const LifetimeRow rows[] = {
      {"5.1", "max-age=60", "", "", "20", Why::kNone, 40 * kSecond, 20},
      {"5.1", "s-maxage=60", "", "", "20", Why::kNone, 40 * kSecond, 20},
      {"4.2.3 apparent age", "max-age=60", "", kTenBefore, "", Why::kNone, 50 * kSecond, 10},
      {"4.2.3 the larger", "max-age=60", "", kTenBefore, "20", Why::kNone, 40 * kSecond, 20},
      {"4.2.3 the larger", "max-age=60", "", kTenBefore, "5", Why::kNone, 50 * kSecond, 10},
      {"4.2.3 a Date that is to come", "max-age=60", "", kMinuteAfter, "", Why::kNone, 60 * kSecond, 0},
      {"4.2 as old as it may be", "max-age=60", "", "", "60", Why::kExpired, 0, 60},
      {"4.2 older", "max-age=60", "", "", "61", Why::kExpired, 0, 61},
      {"4.2 one second left", "max-age=60", "", "", "59", Why::kNone, kSecond, 59},
      {"4.2.3 very old", "max-age=60", "", "Thu, 01 Jan 1970 00:00:00 GMT", "", Why::kExpired, 0, kWall},
      {"4.2.3 older than the calendar of computers", "max-age=60", "", "Mon, 01 Jan 0001 00:00:00 GMT", "",
       Why::kExpired, 0, kMostSeconds},
      {"1.2.2 too many", "max-age=60", "", "", "99999999999999999999", Why::kExpired, 0, kMostSeconds},
      {"5.1 of a list the first", "max-age=60", "", "", "20, 50", Why::kNone, 40 * kSecond, 20},
      {"5.1 of a list the first", "max-age=60", "", "", " 20 ,x", Why::kNone, 40 * kSecond, 20},
      {"5.1 not readable is ignored", "max-age=60", "", "", "-20", Why::kNone, 60 * kSecond, 0},
      {"5.1 not readable is ignored", "max-age=60", "", "", "20s", Why::kNone, 60 * kSecond, 0},
      {"5.1 not readable is ignored", "max-age=60", "", "", "1.5", Why::kNone, 60 * kSecond, 0},
      {"5.1 not readable is ignored", "max-age=60", "", "", ", 20", Why::kNone, 60 * kSecond, 0},
      {"5.1 not readable: Date still counts", "max-age=60", "", kTenBefore, "x", Why::kNone, 50 * kSecond, 10},
  };
  for (const LifetimeRow& row : rows) expect_lifetime(row);
}

TEST(HttpLifetime, TheRoutesTimeFillsInAndWinsWhereItIsDeclaredTo) {
  Route declared;
  declared.ttl = 7 * kSecond + 1;
  expect_lifetime({"fills in", "", "", "", "", Why::kNone, 7 * kSecond + 1, 0}, declared);
  expect_lifetime({"fills in, less the age", "", "", "", "3", Why::kNone, 4 * kSecond + 1, 3}, declared);
  expect_lifetime({"fills in, too old", "", "", "", "8", Why::kExpired, 0, 8}, declared);
  expect_lifetime({"the response first", "max-age=60", "", "", "", Why::kNone, 60 * kSecond, 0}, declared);
  expect_lifetime({"the response first", "max-age=0", "", "", "", Why::kExpired, 0, 0}, declared);
  expect_lifetime({"the response first", "", "0", "", "", Why::kExpired, 0, 0}, declared);
  declared.ttl_wins = true;
  expect_lifetime({"wins", "max-age=60", "", "", "", Why::kNone, 7 * kSecond + 1, 0}, declared);
  expect_lifetime({"wins", "max-age=0, s-maxage=1", "", "", "", Why::kNone, 7 * kSecond + 1, 0}, declared);
  expect_lifetime({"wins", "", "0", "", "", Why::kNone, 7 * kSecond + 1, 0}, declared);
  declared.ttl = kUnset;
  expect_lifetime({"nothing to win with", "max-age=60", "", "", "", Why::kNone, 60 * kSecond, 0}, declared);
  expect_lifetime({"nothing at all", "", "", "", "", Why::kNoLifetime, 0, 0}, declared);
  declared.ttl = 0;
  expect_lifetime({"zero is a time", "max-age=60", "", "", "", Why::kExpired, 0, 0}, declared);
  declared.ttl = kForever;
  expect_lifetime({"for ever", "max-age=60", "", "", "", Why::kNone, kForever, 0}, declared);
  expect_lifetime({"for ever, less the age", "max-age=60", "", "", "5", Why::kNone, kForever - 5 * kSecond, 5},
                  declared);
}

TEST(HttpLifetime, ATenthOfTheTimeSinceItChangedWhereTheRouteAllowsIt) {  // RFC 9111, 4.2.2
  struct Guess {
    std::string_view last_modified;
    std::string_view date;
    Nanos ttl;
  };
  const Guess guesses[] = {
      {"Sun, 15 Jun 2025 15:05:00 GMT", kWallDate, 10 * kSecond},
      {"Sun, 15 Jun 2025 15:05:00 GMT", "", 10 * kSecond},
      {"Thu, 01 Jan 1970 00:00:00 GMT", kWallDate, 86'400 * kSecond},  // at most a day
      {"Sun, 15 Jun 2025 15:06:31 GMT", kWallDate, 0},                 // a tenth of 9 s is none
      {kWallDate, kWallDate, kUnset},
      {kTenAfter, kWallDate, kUnset},
      {"", kWallDate, kUnset},
      {"long ago", kWallDate, kUnset},
  };
  const Route allowed = route([](Route& r) { r.heuristic = true; });
  for (const Guess& guess : guesses) {
    SCOPED_TRACE(guess.last_modified);
    const Response response = changed(ok(""), [&](Response& r) {
      r.last_modified = guess.last_modified;
      r.date = guess.date;
    });
    const After result = after(get(), response, allowed, kWall);
    EXPECT_EQ(result.why, guess.ttl == kUnset ? Why::kNoLifetime : guess.ttl == 0 ? Why::kExpired : Why::kNone);
    EXPECT_EQ(result.ttl, std::max<Nanos>(guess.ttl, 0));
    EXPECT_EQ(after(get(), response, {}, kWall).why, Why::kNoLifetime) << "off by default";
    Route known = allowed;
    known.ttl = 5 * kSecond;
    EXPECT_EQ(after(get(), response, known, kWall).ttl, 5 * kSecond) << "no guess where the time is known";
    const Response said = changed(response, [](Response& r) { r.cache_control = "max-age=3"; });
    EXPECT_EQ(after(get(), said, allowed, kWall).ttl, 3 * kSecond);
  }
}

struct StaleRow {
  const char* rule;
  std::string_view cache_control;
  Nanos route_swr;
  Nanos route_sie;
  bool ttl_wins;
  Nanos swr;
  Nanos sie;
};

TEST(HttpLifetime, HowLongAStaleAnswerMayBeUsed) {
  constexpr Nanos kTtl = 60 * kSecond;
  const StaleRow rows[] = {
      {"nobody says", "max-age=60", kUnset, kUnset, false, 0, kTtl},
      {"5861, 3", "max-age=60, stale-while-revalidate=30", kUnset, kUnset, false, 30 * kSecond, kTtl},
      {"5861, 4", "max-age=60, stale-if-error=90", kUnset, kUnset, false, 0, 90 * kSecond},
      {"5861, 4: none", "max-age=60, stale-if-error=0", kUnset, kUnset, false, 0, 0},
      {"the route's", "max-age=60", 5, 6, false, 5, 6},
      {"the route's: none", "max-age=60", 0, 0, false, 0, 0},
      {"the response's first", "max-age=60, stale-while-revalidate=1, stale-if-error=2", 5, 6, false, kSecond,
       2 * kSecond},
      {"the response's first: none", "max-age=60, stale-while-revalidate=0, stale-if-error=0", 5, 6, false, 0, 0},
      {"each by itself", "max-age=60, stale-while-revalidate=1", 5, 6, false, kSecond, 6},
      {"the route's, which wins", "max-age=60, stale-while-revalidate=1, stale-if-error=2", 5, 6, true, 5, 6},
      {"nothing to win with", "max-age=60, stale-while-revalidate=1, stale-if-error=2", kUnset, kUnset, true, kSecond,
       2 * kSecond},
      {"5.2.2.2", "max-age=60, must-revalidate", kUnset, kUnset, false, 0, 0},
      {"5.2.2.2 whatever else", "max-age=60, must-revalidate, stale-while-revalidate=9, stale-if-error=9", 5, 6, false,
       0, 0},
      {"5.2.2.2 whatever wins", "max-age=60, must-revalidate", 5, 6, true, 0, 0},
      {"5.2.2.8", "max-age=60, proxy-revalidate", kUnset, kUnset, false, 0, 0},
      {"5.2.2.8 whatever else", "max-age=60, proxy-revalidate, stale-while-revalidate=9, stale-if-error=9", 5, 6, true,
       0, 0},
      {"5.2.2.10 alone", "s-maxage=60", kUnset, kUnset, false, 0, 0},
      {"5.2.2.10 alone", "s-maxage=60, max-age=1", kUnset, kUnset, true, 0, 0},
      {"5.2.2.10 the response means it", "s-maxage=60, stale-while-revalidate=1, stale-if-error=2", kUnset, kUnset,
       false, kSecond, 2 * kSecond},
      {"5.2.2.10 each by itself", "s-maxage=60, stale-while-revalidate=1", kUnset, kUnset, false, kSecond, 0},
      {"5.2.2.10 the route means it", "s-maxage=60", 5, 6, false, 5, 6},
      {"1.2.2", "max-age=60, stale-while-revalidate=99999999999, stale-if-error=99999999999", kUnset, kUnset, false,
       kMostSeconds * kSecond, kMostSeconds * kSecond},
  };
  for (const StaleRow& row : rows) {
    SCOPED_TRACE(std::string(row.rule).append(": ").append(row.cache_control));
    Route declared;
    declared.stale_while_revalidate = row.route_swr;
    declared.stale_if_error = row.route_sie;
    declared.ttl_wins = row.ttl_wins;
    const After result = after(get(), ok(row.cache_control), declared, kWall);
    EXPECT_TRUE(result.store);
    EXPECT_EQ(result.ttl, kTtl);
    EXPECT_EQ(result.stale_while_revalidate, row.swr);
    EXPECT_EQ(result.stale_if_error, row.sie);
  }
}

TEST(HttpLifetime, StaleIfErrorIsAsLongAsTheTimeThatWasLeft) {
  const Response response = changed(ok("max-age=60"), [](Response& r) { r.age = "20"; });
  EXPECT_EQ(after(get(), response, {}, kWall).stale_if_error, 40 * kSecond);
}

}  // namespace
}  // namespace stillwarm::http
