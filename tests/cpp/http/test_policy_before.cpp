// Before anything is looked up: which requests the store answers, which go past it, and what they ask of an answer.
#include <initializer_list>

#include "http/rows.hpp"

namespace stillwarm::http {
namespace {

struct PassedRow {
  const char* rule;
  Request request;
  Why why;
  Forward forward = Forward::kBypass;
};

void expect_passed(const PassedRow& row, const Route& declared = {}) {
  SCOPED_TRACE(row.rule);
  const Before result = before(row.request, declared);
  EXPECT_FALSE(result.look);
  EXPECT_FALSE(result.store);
  EXPECT_EQ(result.why, row.why);
  EXPECT_EQ(result.forward, row.forward);
}

TEST(HttpBefore, APlainGetIsLookedUpAndStored) {
  const Before result = before(get(), {});
  EXPECT_TRUE(result.look);
  EXPECT_TRUE(result.store);
  EXPECT_FALSE(result.head || result.invalidates || result.reload || result.only_if_cached || result.authorization);
  EXPECT_EQ(result.max_age, kUnset);
  EXPECT_EQ(result.min_fresh, kUnset);
  EXPECT_EQ(result.why, Why::kNone);
  EXPECT_EQ(result.forward, Forward::kNone);
}

TEST(HttpBefore, MethodsOtherThanGetAndHeadPass) {
  struct Method {
    std::string_view name;
    bool invalidates;
  };
  const Method methods[] = {
      {"POST", true},
      {"PUT", true},
      {"PATCH", true},
      {"DELETE", true},
      {"MKCOL", true},
      {"PROPPATCH", true},
      {"CONNECT", true},
      {"OPTIONS", false},
      {"TRACE", false},
      {"PROPFIND", false},
      {"REPORT", false},
      {"SEARCH", false},
      {"QUERY", false},
      {"get", true},  // RFC 9110, 9.1: methods are
                      // case-sensitive, and 9111, 4.4: an
                      // unknown one counts as unsafe
      {"Head", true},
      {"GETX", true},
      {"GE", true},
      {"", true},
  };
  for (const Method& method : methods) {
    SCOPED_TRACE(method.name);
    const Request request = get([&](Request& r) { r.method = method.name; });
    expect_passed({"RFC 9111, 3 and 4.4", request, Why::kMethod, Forward::kMethod});
    EXPECT_EQ(before(request, {}).invalidates, method.invalidates);
  }
}

TEST(HttpBefore, AHeadIsAnsweredFromTheStoreAndNeverStored) {
  const Before result = before(get([](Request& r) { r.method = "HEAD"; }), {});
  EXPECT_TRUE(result.look);
  EXPECT_TRUE(result.head);
  EXPECT_FALSE(result.store);
  EXPECT_FALSE(result.invalidates);
}

TEST(HttpBefore, WhatDependsOnMoreThanTheKeyPasses) {
  const PassedRow rows[] = {
      {"9110, 9.3.1: content of a GET has no meaning that a cache knows", get([](Request& r) { r.body = true; }),
       Why::kRequestBody},
      {"9110, 7.8", get([](Request& r) { r.upgrade = true; }), Why::kUpgrade},
      {"9111, 4.3.2: the origin's", get([](Request& r) { r.if_match = "\"1\""; }), Why::kPrecondition},
      {"9111, 4.3.2: the origin's", get([](Request& r) { r.if_match = "*"; }), Why::kPrecondition},
      {"9111, 4.3.2: the origin's", get([](Request& r) { r.if_unmodified_since = kWallDate; }), Why::kPrecondition},
      {"a cookie", get([](Request& r) { r.cookie = true; }), Why::kCookie},
      {"9111, 5.2.1.5", get([](Request& r) { r.cache_control = "no-store"; }), Why::kRequestNoStore, Forward::kRequest},
      {"9111, 5.2.1.5", get([](Request& r) { r.cache_control = "max-age=60, No-Store"; }), Why::kRequestNoStore,
       Forward::kRequest},
  };
  for (PassedRow row : rows) {
    expect_passed(row);
    row.request.method = "HEAD";
    expect_passed(row);
  }
}

TEST(HttpBefore, ACookieIsHarmlessWhereTheRouteSaysWhatItsAnswersDependOn) {
  const Request request = get([](Request& r) { r.cookie = true; });
  EXPECT_TRUE(before(request, route([](Route& r) { r.declares_cookies = true; })).look);
  EXPECT_TRUE(before(request, route([](Route& r) { r.per_user = true; })).look);
  EXPECT_FALSE(before(request, route([](Route& r) { r.ttl_wins = true; })).look);
}

TEST(HttpBefore, CredentialsAreLookedUpBecauseTheStoredAnswerMayBeForAll) {
  const Before result = before(get([](Request& r) { r.authorization = true; }), {});
  EXPECT_TRUE(result.look);
  EXPECT_TRUE(result.authorization) << "use() decides";
}

struct DirectivesRow {
  const char* rule;
  std::string_view cache_control;
  std::string_view pragma;
  bool reload;
  bool only_if_cached;
  Nanos max_age;
  Nanos min_fresh;
};

TEST(HttpBefore, TheRequestsDirectives) {
  const DirectivesRow rows[] = {
      {"5.2.1.4", "no-cache", "", true, false, kUnset, kUnset},
      {"5.2.1.1", "max-age=0", "", true, false, 0, kUnset},
      {"5.2.1.1", "max-age=60", "", false, false, 60 * kSecond, kUnset},
      {"5.2.1.1", "max-age=99999999999", "", false, false, kMostSeconds * kSecond, kUnset},
      {"5.2.1.3", "min-fresh=60", "", false, false, kUnset, 60 * kSecond},
      {"5.2.1.7", "only-if-cached", "", false, true, kUnset, kUnset},
      {"5.2.1.7", "only-if-cached, no-cache", "", true, true, kUnset, kUnset},
      {"5.2.1.2: nothing staler than promised", "max-stale=60", "", false, false, kUnset, kUnset},
      {"5.4", "", "no-cache", true, false, kUnset, kUnset},
      {"5.4", "", "x, No-Cache", true, false, kUnset, kUnset},
      {"5.4: another pragma", "", "x=no-cache", false, false, kUnset, kUnset},
      {"5.4: not beside Cache-Control", "max-age=60", "no-cache", false, false, 60 * kSecond, kUnset},
      {"5.4: not beside Cache-Control", "x", "no-cache", false, false, kUnset, kUnset},
      {"4.2.1: no number is ignored", "max-age=x", "", false, false, kUnset, kUnset},
      {"4.2.1: no number is ignored", "max-age=-1, min-fresh=1.5", "", false, false, kUnset, kUnset},
      {"4.2.1: the others hold", "max-age=x, no-cache", "", true, false, kUnset, kUnset},
      {"a response's directives say nothing", "private, public, s-maxage=0, must-revalidate", "", false, false, kUnset,
       kUnset},
  };
  for (const DirectivesRow& row : rows) {
    SCOPED_TRACE(std::string(row.rule).append(": ").append(row.cache_control));
    const Request request = get([&](Request& r) {
      r.cache_control = row.cache_control;
      r.pragma = row.pragma;
    });
    const Before result = before(request, {});
    EXPECT_TRUE(result.look);
    EXPECT_TRUE(result.store);
    EXPECT_EQ(result.reload, row.reload);
    EXPECT_EQ(result.only_if_cached, row.only_if_cached);
    EXPECT_EQ(result.max_age, row.max_age);
    EXPECT_EQ(result.min_fresh, row.min_fresh);
    EXPECT_EQ(result.why, row.reload ? Why::kRequestNoCache : Why::kNone);
    EXPECT_EQ(result.forward, row.reload ? Forward::kRequest : Forward::kNone);

    const Before deaf = before(request, route([](Route& r) { r.obeys_request = false; }));
    EXPECT_TRUE(deaf.look && !deaf.reload && !deaf.only_if_cached);
    EXPECT_EQ(deaf.max_age, kUnset);
    EXPECT_EQ(deaf.min_fresh, kUnset);
  }
}

TEST(HttpBefore, ARouteThatDoesNotObeyStoresInSpiteOfNoStore) {
  const Request request = get([](Request& r) { r.cache_control = "no-store"; });
  const Route deaf = route([](Route& r) { r.obeys_request = false; });
  EXPECT_TRUE(before(request, deaf).look);
  EXPECT_TRUE(after(request, ok(), deaf, kWall).store);
  EXPECT_FALSE(after(request, ok(), {}, kWall).store);
}

TEST(HttpBefore, ARangeOfBytesIsLookedUpAndItsAnswerNotStored) {
  for (const std::string_view range : {"bytes=0-4", "Bytes=-5", "bytes=0-1,3-4", "bytes=x"}) {
    const Before result = before(get([&](Request& r) { r.range = range; }), {});
    EXPECT_TRUE(result.look) << range;
    EXPECT_FALSE(result.store) << range;
    EXPECT_EQ(result.why, Why::kRangeMiss) << range;
  }
  for (const std::string_view range : {"items=0-4", "bytes", ""}) {  // RFC 9110, 14.2: another unit is ignored
    const Before result = before(get([&](Request& r) { r.range = range; }), {});
    EXPECT_TRUE(result.look && result.store) << range;
    EXPECT_EQ(result.why, Why::kNone) << range;
  }
  const Before head = before(get([](Request& r) { r.method = "HEAD", r.range = "bytes=0-4"; }), {});
  EXPECT_EQ(head.why, Why::kNone) << "RFC 9110, 14.2: Range is for GET";
}

// ---- use

struct UseRow {
  const char* rule;
  std::string_view cache_control;
  Nanos age;
  Nanos fresh_left;
  Use expected;
};

TEST(HttpUse, TheRequestsLimits) {
  const UseRow rows[] = {
      {"none", "", 100 * kSecond, -5 * kSecond, Use::kServe},
      {"5.2.1.4", "no-cache", 0, 60 * kSecond, Use::kReload},
      {"5.2.1.1", "max-age=0", 0, 60 * kSecond, Use::kReload},
      {"5.2.1.1 up to", "max-age=60", 60 * kSecond, 1, Use::kServe},
      {"5.2.1.1 above", "max-age=60", 60 * kSecond + 1, 1, Use::kReload},
      {"5.2.1.3 at least", "min-fresh=60", 0, 60 * kSecond, Use::kServe},
      {"5.2.1.3 less", "min-fresh=60", 0, 60 * kSecond - 1, Use::kReload},
      {"5.2.1.3 stale is not fresh for 0 s", "min-fresh=0", 0, -1, Use::kReload},
      {"both", "max-age=60, min-fresh=10", 61 * kSecond, 20 * kSecond, Use::kReload},
      {"both", "max-age=60, min-fresh=10", 59 * kSecond, 9 * kSecond, Use::kReload},
      {"both", "max-age=60, min-fresh=10", 59 * kSecond, 20 * kSecond, Use::kServe},
  };
  for (const UseRow& row : rows) {
    SCOPED_TRACE(row.rule);
    Stored stored;
    stored.age = row.age;
    stored.fresh_left = row.fresh_left;
    EXPECT_EQ(use(before(get([&](Request& r) { r.cache_control = row.cache_control; }), {}), stored, {}), row.expected);
  }
}

TEST(HttpUse, CredentialsNeedAnAnswerThatIsForAll) {
  const Before with = before(get([](Request& r) { r.authorization = true; }), {});
  const Before with_reload = before(get([](Request& r) { r.authorization = true, r.cache_control = "no-cache"; }), {});
  Stored stored;
  EXPECT_EQ(use(with, stored, {}), Use::kPass) << "RFC 9111, 3.5";
  EXPECT_EQ(use(with_reload, stored, {}), Use::kPass) << "what is asked for anew is not for all either";
  EXPECT_EQ(use(with, stored, route([](Route& r) { r.per_user = true; })), Use::kServe);
  EXPECT_EQ(use(before(get(), {}), stored, {}), Use::kServe);
  stored.shared_with_authorization = true;
  EXPECT_EQ(use(with, stored, {}), Use::kServe);
  EXPECT_EQ(use(with_reload, stored, {}), Use::kReload);
}

}  // namespace
}  // namespace stillwarm::http
