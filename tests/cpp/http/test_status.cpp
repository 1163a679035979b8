// Cache-Status (RFC 9211) as bytes, and the names of reasons.
#include "core/http/status.hpp"

#include <gtest/gtest.h>

#include <set>

namespace stillwarm::http {
namespace {

std::string written(const Status& status) {
  std::string result;
  append_cache_status(result, status);
  return result;
}

TEST(HttpStatus, AHit) {
  Status status;
  status.hit = true;
  EXPECT_EQ(written(status), "stillwarm; hit");
  status.has_ttl = true;
  status.ttl = 120;
  EXPECT_EQ(written(status), "stillwarm; hit; ttl=120");
  status.ttl = -3;
  EXPECT_EQ(written(status), "stillwarm; hit; ttl=-3") << "RFC 9211, 2.4: stale";
  status.ttl = 0;
  EXPECT_EQ(written(status), "stillwarm; hit; ttl=0");
  status.forward = Forward::kStale;
  status.forward_status = 304;
  status.stored = status.collapsed = true;
  EXPECT_EQ(written(status), "stillwarm; hit; ttl=0") << "RFC 9211, 2.1: what was forwarded is no hit";
}

TEST(HttpStatus, AForwardedRequest) {
  Status status;
  status.forward = Forward::kUriMiss;
  EXPECT_EQ(written(status), "stillwarm; fwd=uri-miss");
  status.stored = true;
  status.has_ttl = true;
  status.ttl = 300;
  EXPECT_EQ(written(status), "stillwarm; fwd=uri-miss; stored; ttl=300");
  status.collapsed = true;
  status.forward = Forward::kStale;
  status.forward_status = 304;
  EXPECT_EQ(written(status), "stillwarm; fwd=stale; fwd-status=304; stored; collapsed; ttl=300");
  status = {};
  status.forward = Forward::kBypass;
  status.detail = "set-cookie";
  EXPECT_EQ(written(status), "stillwarm; fwd=bypass; detail=set-cookie");
  for (const int no_status : {0, 99, 1000, -304}) {
    status.forward_status = no_status;
    EXPECT_EQ(written(status), "stillwarm; fwd=bypass; detail=set-cookie");
  }
}

TEST(HttpStatus, NeitherAnsweredNorForwarded) {  // 504 to only-if-cached
  Status status;
  status.stored = status.collapsed = true;
  EXPECT_EQ(written(status), "stillwarm");
}

TEST(HttpStatus, ItIsAppended) {
  std::string value = "upstream; hit, ";
  Status status;
  status.hit = true;
  append_cache_status(value, status);
  EXPECT_EQ(value, "upstream; hit, stillwarm; hit") << "RFC 9211, 2";
}

TEST(HttpStatus, TheKeyIsAStringThatNothingBreaksOutOf) {  // RFC 8941, 3.3.3
  Status status;
  status.hit = true;
  status.key = "GET:https://example.org/a?b=c";
  EXPECT_EQ(written(status), R"(stillwarm; hit; key="GET:https://example.org/a?b=c")");
  status.key = R"(a"; hit; x="\)";
  EXPECT_EQ(written(status), R"(stillwarm; hit; key="a\"; hit; x=\"\\")");
  status.key = std::string_view("a\r\nSet-Cookie: x\0\x7f\xc3\xa9", 20);
  EXPECT_EQ(written(status), R"(stillwarm; hit; key="a??Set-Cookie: x????")");
}

TEST(HttpStatus, TheDetailIsATokenOrAString) {  // RFC 9211, 2.8
  struct Row {
    std::string_view detail;
    const char* expected;
  };
  const Row rows[] = {{"no-store", "no-store"},       {"*x", "*x"},        {"a:b/c", "a:b/c"},
                      {"too large", "\"too large\""}, {"5xx", "\"5xx\""},  {"a;b", "\"a;b\""},
                      {"a\"b", R"("a\"b")"},          {"a\nb", "\"a?b\""}, {"-a", "\"-a\""}};
  for (const Row& row : rows) {
    Status status;
    status.forward = Forward::kMiss;
    status.detail = row.detail;
    EXPECT_EQ(written(status), std::string("stillwarm; fwd=miss; detail=").append(row.expected));
  }
}

TEST(HttpStatus, EachReasonHasANameOfItsOwn) {
  std::set<std::string_view> names;
  const auto last = static_cast<int>(Why::kMalformed);
  for (int i = 1; i <= last; ++i) {
    const std::string_view name = text_of(static_cast<Why>(i));
    EXPECT_FALSE(name.empty()) << i;
    EXPECT_TRUE(names.insert(name).second) << name;
    EXPECT_EQ(name.find_first_not_of("abcdefghijklmnopqrstuvwxyz-"), std::string_view::npos) << name;
  }
  EXPECT_EQ(text_of(Why::kNone), "");
  EXPECT_EQ(text_of(static_cast<Why>(last + 1)), "");
}

TEST(HttpStatus, TheReasonsForForwardingAreThoseOfTheStandard) {  // RFC 9211, 2.2
  const char* names[] = {"", "bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial", ""};
  for (int i = 0; i < 10; ++i) EXPECT_EQ(text_of(static_cast<Forward>(i)), names[i]);
}

}  // namespace
}  // namespace stillwarm::http
