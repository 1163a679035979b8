// After the app answered: what is stored, and who may have it. One test for each rule that keeps users apart.
#include <initializer_list>

#include "http/rows.hpp"

namespace stillwarm::http {
namespace {

const Route kPerUser = route([](Route& r) { r.per_user = true; });
const Route kDeclares = route([](Route& r) { r.declares_cookies = true; });
const Route kWins = route([](Route& r) { r.ttl_wins = true, r.ttl = 60 * kSecond, r.obeys_request = false; });

void expect_stored(const Request& request, const Response& response, const Route& declared = {}) {
  const After result = after(request, response, declared, kWall);
  EXPECT_TRUE(result.store) << response.cache_control;
  EXPECT_TRUE(result.shareable) << response.cache_control;
  EXPECT_EQ(result.why, Why::kNone) << response.cache_control;
  EXPECT_GT(result.ttl, 0) << response.cache_control;
}

// Not stored, nor given to those who waited for the same.
void expect_for_nobody_else(const Request& request, const Response& response, Why why, const Route& declared = {}) {
  const After result = after(request, response, declared, kWall);
  EXPECT_FALSE(result.store) << response.cache_control;
  EXPECT_FALSE(result.shareable) << response.cache_control;
  EXPECT_EQ(result.why, why) << response.cache_control;
  EXPECT_EQ(result.ttl, 0);
  EXPECT_EQ(result.stale_while_revalidate, 0);
  EXPECT_EQ(result.stale_if_error, 0);
}

TEST(HttpPrivacy, NoStore) {  // RFC 9111, 5.2.2.5
  for (const std::string_view text : {"no-store", "No-Store", "max-age=60,no-store", "public , \tNO-STORE",
                                      "no-store=1", "no-store, s-maxage=60, must-revalidate"}) {
    expect_for_nobody_else(get(), ok(text), Why::kNoStore);
    expect_for_nobody_else(get(), ok(text), Why::kNoStore, kPerUser);
    expect_for_nobody_else(get(), ok(text), Why::kNoStore, kWins);
  }
}

TEST(HttpPrivacy, NoStoreBesideMustUnderstandCountsWhereTheStatusIsNotUnderstood) {  // RFC 9111, 5.2.2.3
  expect_stored(get(), ok("must-understand, no-store, max-age=60"));
  const Response other = changed(ok("must-understand, no-store, max-age=60"), [](Response& r) { r.status = 299; });
  expect_for_nobody_else(get(), other, Why::kStatus);
  expect_for_nobody_else(get(), ok("must-understand, no-store, private, max-age=60"), Why::kPrivate);
  expect_for_nobody_else(get(), ok("must-understand=x, no-store, max-age=60"), Why::kNoStore);
}

TEST(HttpPrivacy, Private) {  // RFC 9111, 5.2.2.7
  for (const std::string_view text : {"private, max-age=60", "Private,max-age=60", "max-age=60 ,\tPRIVATE ",
                                      "private=\"x, y\", max-age=60", "public, private, max-age=60"}) {
    expect_for_nobody_else(get(), ok(text), Why::kPrivate);
    expect_for_nobody_else(get(), ok(text), Why::kPrivate, kDeclares);
    expect_for_nobody_else(get(), ok(text), Why::kPrivate, kWins);
    expect_stored(get(), ok(text), kPerUser);
  }
}

TEST(HttpPrivacy, SetCookie) {  // RFC 9111, 7.3
  const Response response = changed(ok("public, s-maxage=60"), [](Response& r) { r.set_cookie = true; });
  for (const Route& declared : {Route{}, kPerUser, kDeclares, kWins}) {
    expect_for_nobody_else(get(), response, Why::kSetCookie, declared);
  }
}

TEST(HttpPrivacy, VaryStar) {  // RFC 9111, 4.1
  for (const std::string_view vary : {"*", " *", "Accept, *", "*,Accept", "Accept Encoding", "Accept;"}) {
    const Response response = changed(ok("public, max-age=60"), [&](Response& r) { r.vary = vary; });
    for (const Route& declared : {Route{}, kPerUser, kDeclares, kWins}) {
      expect_for_nobody_else(get(), response, Why::kVaryStar, declared);
    }
  }
  for (const std::string_view vary : {"", "Accept", "accept-encoding ,Cookie,"}) {
    expect_stored(get(), changed(ok(), [&](Response& r) { r.vary = vary; }));
  }
}

TEST(HttpPrivacy, Credentials) {  // RFC 9111, 3.5
  const Request request = get([](Request& r) { r.authorization = true; });
  for (const std::string_view text : {"max-age=60", "proxy-revalidate, max-age=60", "max-age=60, immutable"}) {
    expect_for_nobody_else(request, ok(text), Why::kAuthorization);
    expect_for_nobody_else(request, ok(text), Why::kAuthorization, kDeclares);
    expect_for_nobody_else(request, ok(text), Why::kAuthorization, kWins);
    expect_stored(request, ok(text), kPerUser);
    EXPECT_FALSE(after(get(), ok(text), {}, kWall).shared_with_authorization);
  }
  for (const std::string_view text : {"public, max-age=60", "s-maxage=60", "must-revalidate, max-age=60"}) {
    expect_stored(request, ok(text));
    EXPECT_TRUE(after(request, ok(text), {}, kWall).shared_with_authorization);
    EXPECT_TRUE(after(get(), ok(text), {}, kWall).shared_with_authorization) << "for the next, who may have them";
  }
  expect_for_nobody_else(request, ok("public=x, max-age=60"), Why::kAuthorization);
  expect_for_nobody_else(request, ok("s-maxage=x, max-age=60"), Why::kAuthorization);
}

TEST(HttpPrivacy, Cookies) {
  const Request request = get([](Request& r) { r.cookie = true; });
  expect_for_nobody_else(request, ok("public, s-maxage=60"), Why::kCookie);
  expect_for_nobody_else(request, ok("public, s-maxage=60"), Why::kCookie, kWins);
  expect_stored(request, ok(), kDeclares);
  expect_stored(request, ok(), kPerUser);
}

TEST(HttpPrivacy, TheRequestsNoStore) {  // RFC 9111, 5.2.1.5
  const Request request = get([](Request& r) { r.cache_control = "No-Store"; });
  expect_for_nobody_else(request, ok(), Why::kRequestNoStore);
  expect_for_nobody_else(request, ok(), Why::kRequestNoStore, kPerUser);
}

TEST(HttpPrivacy, NoCache) {  // RFC 9111, 5.2.2.4: for nobody without being asked for again
  for (const std::string_view text : {"no-cache, max-age=60", "No-Cache", "no-cache=\"x\", max-age=60"}) {
    expect_for_nobody_else(get(), ok(text), Why::kNoCache);
    expect_for_nobody_else(get(), ok(text), Why::kNoCache, kWins);
    expect_for_nobody_else(get(), ok(text), Why::kNoCache, kPerUser);
  }
}

TEST(HttpPrivacy, WhatCannotBeRead) {  // RFC 9111, 4.2.1: might have said any of these
  for (const std::string_view text : {"max-age=x", "max-age=60, s-maxage=", "max-age=60; private", "max-age=60, x=\"",
                                      "max-age=60, stale-if-error=-1", "public max-age=60"}) {
    expect_for_nobody_else(get(), ok(text), Why::kMalformed);
    expect_for_nobody_else(get(), ok(text), Why::kMalformed, kWins);
  }
}

TEST(HttpPrivacy, OtherMethods) {  // RFC 9111, 3; a GET is never answered with what a POST or a HEAD got
  for (const std::string_view method : {"POST", "HEAD", "PUT", "DELETE", "OPTIONS", "get", ""}) {
    expect_for_nobody_else(get([&](Request& r) { r.method = method; }), ok("public, s-maxage=60"), Why::kMethod);
  }
}

TEST(HttpPrivacy, Parts) {  // RFC 9111, 3.3
  expect_for_nobody_else(get(), changed(ok(), [](Response& r) { r.status = 206; }), Why::kPartial);
  expect_for_nobody_else(get(), changed(ok(), [](Response& r) { r.content_range = true; }), Why::kPartial);
}

TEST(HttpPrivacy, WhatAnswersThisCallersRequestAlone) {
  for (const int status :
       {0,   100, 101, 103, 199, 226, 304, 305, 306, 400, 401, 402, 403, 406, 407, 408, 409, 411, 412, 413,
        414, 415, 416, 417, 421, 422, 423, 425, 426, 428, 429, 431, 451, 499, 505, 507, 511, 600, 999, -1}) {
    SCOPED_TRACE(status);
    const Response response = changed(ok("public, s-maxage=60"), [&](Response& r) { r.status = status; });
    expect_for_nobody_else(get(), response, Why::kStatus);
    expect_for_nobody_else(get(), response, Why::kStatus, kWins);
    expect_for_nobody_else(get(), response, Why::kStatus, kPerUser);
  }
}

TEST(HttpAfter, StatusesThatAreStored) {  // RFC 9110, 15.1, less 206, 405, 414 and 501
  for (const int status : {200, 203, 204, 300, 301, 308, 404, 410}) {
    SCOPED_TRACE(status);
    expect_stored(get(), changed(ok(), [&](Response& r) { r.status = status; }));
  }
}

TEST(HttpAfter, StatusesThatAreOnlySharedWithThoseWhoWait) {
  for (const int status : {201, 202, 205, 207, 208, 302, 303, 307, 405, 500, 501, 502, 503, 504}) {
    SCOPED_TRACE(status);
    const After result = after(get(), changed(ok(), [&](Response& r) { r.status = status; }), kWins, kWall);
    EXPECT_FALSE(result.store);
    EXPECT_TRUE(result.shareable);
    EXPECT_EQ(result.why, Why::kStatus);
    EXPECT_EQ(result.ttl, 0);
    EXPECT_EQ(result.stale_if_error, 0);
    const Response own = changed(ok("private"), [&](Response& r) { r.status = status; });
    EXPECT_FALSE(after(get(), own, {}, kWall).shareable);
  }
}

TEST(HttpAfter, ErrorsForWhichAStaleAnswerMayStandIn) {  // RFC 5861, 4
  for (int status = 100; status < 600; ++status) {
    const bool expected = status == 500 || status == 502 || status == 503 || status == 504;
    const Response response = changed(ok(), [&](Response& r) { r.status = status; });
    EXPECT_EQ(after(get(), response, {}, kWall).transient_error, expected) << status;
  }
}

TEST(HttpAfter, AbsenceIsStoredWithALifetimeOfItsOwn) {  // H1
  struct Row {
    const char* rule;
    std::string_view cache_control;
    std::string_view expires;
    Nanos absent_ttl;
    bool ttl_wins;
    Why why;
    Nanos ttl;
  };
  const Row rows[] = {
      {"nobody says how long", "", "", 0, false, Why::kStatus, 0},
      {"the route's time is of 200", "", "", 0, true, Why::kStatus, 0},
      {"the route's own", "", "", 7 * kSecond, false, Why::kNone, 7 * kSecond},
      {"the response's", "max-age=60", "", 0, false, Why::kNone, 60 * kSecond},
      {"the response's", "s-maxage=60", "", 0, true, Why::kNone, 60 * kSecond},
      {"the response's Expires", "", "Sun, 15 Jun 2025 15:06:50 GMT", 0, false, Why::kNone, 10 * kSecond},
      {"the response's before the route's", "max-age=60", "", 7 * kSecond, false, Why::kNone, 60 * kSecond},
      {"the route's, which wins", "max-age=60", "", 7 * kSecond, true, Why::kNone, 7 * kSecond},
      {"the response's, expired", "max-age=0", "", 7 * kSecond, false, Why::kExpired, 0},
      {"the response's, not readable", "", "0", 7 * kSecond, false, Why::kExpired, 0},
  };
  for (const int status : {404, 410}) {
    for (const Row& row : rows) {
      SCOPED_TRACE(row.rule);
      const Response response = changed(ok(row.cache_control), [&](Response& r) {
        r.status = status;
        r.expires = row.expires;
        r.last_modified = "Sun, 15 Jun 2014 15:06:40 GMT";
      });
      Route declared;
      declared.ttl = 300 * kSecond;
      declared.absent_ttl = row.absent_ttl;
      declared.ttl_wins = row.ttl_wins;
      declared.heuristic = true;
      const After result = after(get(), response, declared, kWall);
      EXPECT_EQ(result.store, row.why == Why::kNone);
      EXPECT_EQ(result.why, row.why);
      EXPECT_EQ(result.ttl, row.ttl);
      EXPECT_EQ(result.shareable, row.why != Why::kExpired);
    }
  }
}

}  // namespace
}  // namespace stillwarm::http
