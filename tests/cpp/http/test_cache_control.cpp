// Cache-Control: what each text says, and that a text which cannot be read never permits more than one that can.
#include <gtest/gtest.h>

#include <string>

#include "core/http/fields.hpp"

namespace stillwarm::http {
namespace {

// Every directive that was read, in one text: "no-store max-age=5 malformed".
std::string summary(const Directives& directives) {
  std::string result;
  const auto flag = [&](bool is, std::string_view name) {
    if (is) result.append(result.empty() ? "" : " ").append(name);
  };
  const auto number = [&](Seconds seconds, std::string_view name) {
    if (seconds != kNever) flag(true, std::string(name).append("=").append(std::to_string(seconds)));
  };
  flag(directives.no_store, "no-store");
  flag(directives.no_cache, "no-cache");
  flag(directives.private_, "private");
  flag(directives.public_, "public");
  flag(directives.must_revalidate, "must-revalidate");
  flag(directives.proxy_revalidate, "proxy-revalidate");
  flag(directives.must_understand, "must-understand");
  flag(directives.only_if_cached, "only-if-cached");
  number(directives.max_age, "max-age");
  number(directives.s_maxage, "s-maxage");
  number(directives.stale_while_revalidate, "swr");
  number(directives.stale_if_error, "sie");
  number(directives.max_stale, "max-stale");
  number(directives.min_fresh, "min-fresh");
  flag(directives.malformed, "malformed");
  return result;
}

struct DirectiveRow {
  const char* rule;
  std::string_view text;
  const char* expected;
};

void expect_directives(const DirectiveRow& row) {
  SCOPED_TRACE(std::string(row.rule).append(": ").append(row.text));
  EXPECT_EQ(summary(parse_cache_control(row.text)), row.expected);
}

TEST(HttpCacheControl, EachDirective) {
  const DirectiveRow rows[] = {
      {"5.2 nothing", "", ""},
      {"5.2.1.1", "max-age=60", "max-age=60"},
      {"5.2.1.2", "max-stale=60", "max-stale=60"},
      {"5.2.1.2 any staleness", "max-stale", "max-stale=2147483648"},
      {"5.2.1.3", "min-fresh=60", "min-fresh=60"},
      {"5.2.1.4", "no-cache", "no-cache"},
      {"5.2.1.5", "no-store", "no-store"},
      {"5.2.1.6", "no-transform", ""},
      {"5.2.1.7", "only-if-cached", "only-if-cached"},
      {"5.2.2.2", "must-revalidate", "must-revalidate"},
      {"5.2.2.3", "must-understand, no-store", "no-store must-understand"},
      {"5.2.2.7", "private", "private"},
      {"5.2.2.8", "proxy-revalidate", "proxy-revalidate"},
      {"5.2.2.9", "public", "public"},
      {"5.2.2.10", "s-maxage=60", "s-maxage=60"},
      {"RFC 5861, 3", "stale-while-revalidate=30", "swr=30"},
      {"RFC 5861, 4", "stale-if-error=30", "sie=30"},
      {"5.2.3 what is not known is ignored", "max-age=5, community=\"UCI\", x, y=z, immutable", "max-age=5"},
  };
  for (const DirectiveRow& row : rows) expect_directives(row);
}

TEST(HttpCacheControl, NamesInAnyCaseAndWhiteSpaceInAnyPlace) {
  const DirectiveRow rows[] = {
      {"5.2 case", "Private", "private"},
      {"5.2 case", "NO-STORE,Max-Age=5,S-MAXAGE=6", "no-store max-age=5 s-maxage=6"},
      {"5.6.1.2 empty members", ",, ,no-store,,\t, max-age=5 ,,", "no-store max-age=5"},
      {"5.6.3 tabs", "\tno-store\t,\tmax-age=5\t", "no-store max-age=5"},
      {"a part of a name is another name", "xprivate, private-, no-stor, no-storee, max-agee=1", ""},
  };
  for (const DirectiveRow& row : rows) expect_directives(row);
}

TEST(HttpCacheControl, QuotedStrings) {
  const DirectiveRow rows[] = {
      {"5.2 both forms", "max-age=\"60\"", "max-age=60"},
      {"5.2.2.4 qualified counts as unqualified", "no-cache=\"set-cookie\"", "no-cache"},
      {"5.2.2.7 qualified counts as unqualified", "private=\"x, y\", max-age=5", "private max-age=5"},
      {"5.2.2.7 as a token", "private=x", "private"},
      {"5.6.4 a comma inside", "ext=\"a, no-store\", max-age=5", "max-age=5"},
      {"5.6.4 an escaped quote inside", R"(ext="a\", no-store", max-age=5)", "max-age=5"},
      {"5.6.4 an escaped backslash at the end", R"(ext="a\\", no-store)", "no-store"},
      {"5.6.4 empty", "ext=\"\", max-age=5", "max-age=5"},
      {"5.6.4 bytes above ASCII", "ext=\"\xc3\xa9\", max-age=5", "max-age=5"},
      {"5.6.4 a tab", "ext=\"\t\", max-age=5", "max-age=5"},
  };
  for (const DirectiveRow& row : rows) expect_directives(row);
}

TEST(HttpCacheControl, TheStricterOfTwoHolds) {
  const DirectiveRow rows[] = {
      {"4.2.1", "max-age=60, max-age=5", "max-age=5"},
      {"4.2.1", "max-age=5, max-age=60", "max-age=5"},
      {"4.2.1", "s-maxage=60, s-maxage=0", "s-maxage=0"},
      {"4.2.1 one cannot be read", "max-age=60, max-age=x", "max-age=60 malformed"},
      {"RFC 5861", "stale-while-revalidate=9, stale-while-revalidate=3", "swr=3"},
      {"RFC 5861", "stale-if-error=3, stale-if-error=9", "sie=3"},
      {"5.2.1.3 more is stricter", "min-fresh=5, min-fresh=60, min-fresh=7", "min-fresh=60"},
      {"5.2.1.2", "max-stale, max-stale=3", "max-stale=3"},
  };
  for (const DirectiveRow& row : rows) expect_directives(row);
}

TEST(HttpCacheControl, WhatIsNoNumberIsMalformed) {
  const std::string_view bad[] = {"max-age",
                                  "max-age=",
                                  "max-age=\"\"",
                                  "max-age=-1",
                                  "max-age=+1",
                                  "max-age=1.5",
                                  "max-age=1e3",
                                  "max-age=0x10",
                                  "max-age=60s",
                                  "max-age=\"6 0\"",
                                  "max-age= 60",
                                  "max-age =60",
                                  "max-age=\" 60\"",
                                  "max-age=60 s",
                                  "max-age=60;private",
                                  "s-maxage=x",
                                  "stale-while-revalidate",
                                  "stale-if-error=never",
                                  "min-fresh",
                                  R"(max-age="6\0")",
                                  "max-age=\"60"};
  for (const std::string_view text : bad) {
    const Directives directives = parse_cache_control(text);
    EXPECT_TRUE(directives.malformed) << text;
    if (text != "max-age=60 s" && text != "max-age=60;private") {
      EXPECT_EQ(summary(directives), "malformed") << text;
    }
  }
}

TEST(HttpCacheControl, WhatIsNoListIsMalformedAndWhatRestrictsStillHolds) {
  const DirectiveRow rows[] = {
      {"no comma", "no-store private", "no-store malformed"},
      {"semicolons", "max-age=60; no-store", "max-age=60 malformed"},
      {"a string that does not end", "max-age=60, x=\"no-store", "max-age=60 malformed"},
      {"a string that does not end, of a directive", "private=\"x, max-age=60", "private malformed"},
      {"a string that ends in an escape", R"(no-cache="x\)", "no-cache malformed"},
      {"a string before a name", "\"no-store\", private", "private malformed"},
      {"something after a string", "private=\"x\"y, no-store", "no-store private malformed"},
      {"an argument that is missing", "no-store=, private", "no-store private malformed"},
      {"= alone", "=, no-store", "no-store malformed"},
      {"a byte above ASCII", "\xc3\xa9, no-store", "no-store malformed"},
      {"what permits takes no argument", "public=x", "malformed"},
      {"what permits takes no argument", "must-revalidate=\"\"", "malformed"},
      {"what permits takes no argument", "must-understand=1, no-store", "no-store malformed"},
      {"what restricts may have one", "no-store=1, proxy-revalidate=1", "no-store proxy-revalidate"},
  };
  for (const DirectiveRow& row : rows) expect_directives(row);
}

TEST(HttpCacheControl, ControlCharactersAreMalformedWhereverTheyStand) {
  for (int byte = 0; byte < 0x20; ++byte) {
    if (byte == '\t') continue;
    const std::string control(1, static_cast<char>(byte));
    EXPECT_TRUE(parse_cache_control("max-age=60" + control).malformed) << byte;
    EXPECT_TRUE(parse_cache_control(control + "max-age=60").malformed) << byte;
    EXPECT_TRUE(parse_cache_control("max-age=6" + control + "0").malformed) << byte;
    EXPECT_TRUE(parse_cache_control("x=\"" + control + "\", max-age=60").malformed) << byte;
    EXPECT_TRUE(parse_cache_control("x=\"\\" + control + "\", max-age=60").malformed) << byte;
  }
  EXPECT_TRUE(parse_cache_control("max-age=60\x7f").malformed);
}

TEST(HttpDeltaSeconds, DigitsAloneAndNoneTooMany) {
  EXPECT_EQ(parse_delta_seconds("0"), 0);
  EXPECT_EQ(parse_delta_seconds("007"), 7);
  EXPECT_EQ(parse_delta_seconds("2147483647"), 2147483647);
  EXPECT_EQ(parse_delta_seconds("2147483648"), kMostSeconds) << "RFC 9111, 1.2.2";
  EXPECT_EQ(parse_delta_seconds("2147483649"), kMostSeconds);
  EXPECT_EQ(parse_delta_seconds("18446744073709551617"), kMostSeconds);
  EXPECT_EQ(parse_delta_seconds(std::string(1000, '9')), kMostSeconds);
  for (const std::string_view bad : {"", " ", "-1", "+1", " 1", "1 ", "1.0", "1,2", "0x1", "\xd9\xa1"}) {
    EXPECT_EQ(parse_delta_seconds(bad), std::nullopt) << bad;
  }
  EXPECT_EQ(parse_delta_seconds(std::string_view("1\0", 2)), std::nullopt);
}

}  // namespace
}  // namespace stillwarm::http
