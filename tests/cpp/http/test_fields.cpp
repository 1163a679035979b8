// Entity tags, Vary, normalised values, byte ranges, and the lists of fields.
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "core/http/fields.hpp"

namespace stillwarm::http {
namespace {

constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();

struct TagRow {
  const char* rule;
  std::string_view list;
  std::string_view etag;
  bool matches;
};

TEST(HttpTags, WeakComparison) {
  const TagRow rows[] = {
      {"8.8.3.2", "W/\"1\"", "W/\"1\"", true},
      {"8.8.3.2", "W/\"1\"", "W/\"2\"", false},
      {"8.8.3.2", "W/\"1\"", "\"1\"", true},
      {"8.8.3.2", "\"1\"", "W/\"1\"", true},
      {"8.8.3.2", "\"1\"", "\"1\"", true},
      {"8.8.3 the opaque part in its own case", "\"a\"", "\"A\"", false},
      {"8.8.3 an empty tag is one", "\"\"", "\"\"", true},
      {"8.8.3 a comma inside", "\"a,b\"", "\"a,b\"", true},
      {"8.8.3 a comma inside does not part", "\"a,b\"", "\"a\"", false},
      {"8.8.3 a backslash is a backslash", R"("a\")", R"("a\")", true},
      {"8.8.3 bytes above ASCII", "\"\xc3\xa9\"", "\"\xc3\xa9\"", true},
      {"13.1.2 a list", "\"x\", W/\"y\" ,\"1\"", "\"1\"", true},
      {"13.1.2 a list without white space", "\"x\",\"1\"", "\"1\"", true},
      {"5.6.1.2 empty members", ", ,\"1\",,", "\"1\"", true},
      {"13.1.2 any", "*", "\"1\"", true},
      {"13.1.2 any, of what has no tag", " * ", "", true},
      {"no tag stored", "\"1\"", "", false},
      {"no tag asked for", "", "\"1\"", false},
      {"no tag at all", "", "", false},
  };
  for (const TagRow& row : rows) {
    SCOPED_TRACE(row.rule);
    EXPECT_EQ(any_tag_matches(row.list, row.etag), row.matches) << row.list << " against " << row.etag;
  }
}

TEST(HttpTags, AListThatCannotBeReadMatchesNothing) {
  for (const std::string_view list :
       {"1",        "\"1",      "1\"",       "\"1\" \"2\"", "\"1\";", "\"1\", 2",       "2, \"1\"",
        "\"1\", *", "*, \"1\"", "**",        "w/\"1\"",     "W\"1\"", "W/ \"1\"",       "W/1",
        "'1'",      "\"1\"x",   "\"1\", \"", "\"1\n\"",     "\"1 \"", "\"\x7f\", \"1\""}) {
    EXPECT_FALSE(any_tag_matches(list, "\"1\"")) << list;
  }
  for (const std::string_view etag : {"1", "\"1", "1\"", "\"1\"x", "w/\"1\"", "\"1\", \"1\"", "W/", "W/\"1"}) {
    EXPECT_FALSE(any_tag_matches("\"1\"", etag)) << etag;
    EXPECT_FALSE(any_tag_matches(etag, etag)) << etag << (etag.find(',') == std::string_view::npos ? "" : " is a list");
    EXPECT_FALSE(is_strong_tag(etag)) << etag;
  }
  EXPECT_TRUE(is_strong_tag("\"1\""));
  EXPECT_TRUE(is_strong_tag("\"\""));
  EXPECT_FALSE(is_strong_tag("W/\"1\""));
  EXPECT_FALSE(is_strong_tag(""));
  EXPECT_FALSE(is_strong_tag("*"));
}

TEST(HttpVary, NamesInLowerCaseSortedEachOnce) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(parse_vary(""), Names{});
  EXPECT_EQ(parse_vary(" , ,"), Names{});
  EXPECT_EQ(parse_vary("Accept-Encoding"), Names{"accept-encoding"});
  EXPECT_EQ(parse_vary("\tcookie , Accept,ACCEPT,, Cookie "), (Names{"accept", "cookie"}));
  EXPECT_TRUE(is_vary_usable(""));
  EXPECT_TRUE(is_vary_usable("\tcookie , Accept,,"));
}

TEST(HttpVary, AStarAnywhereOrWhatIsNoNameIsNotUsable) {
  for (const std::string_view text :
       {"*", " * ", "Accept, *", "*,Accept", "Accept,\t*\t,Cookie", "Accept Encoding", "Accept; Cookie", "\"Accept\"",
        "Accept:", "Accept,(", "\xc3\xa9", "Accept\n", "Accept\x7f"}) {
    EXPECT_EQ(parse_vary(text), std::nullopt) << text;
    EXPECT_FALSE(is_vary_usable(text)) << text;
  }
  EXPECT_FALSE(is_vary_usable(std::string_view("Accept\0", 7)));
  // A "*" inside a name is a character of it.
  EXPECT_EQ(parse_vary("X*"), std::vector<std::string>{"x*"});
}

TEST(HttpNormalised, WhiteSpaceThatDoesNotMatter) {
  struct Row {
    std::string_view value;
    const char* expected;
  };
  const Row rows[] = {
      {"", ""},
      {" \t ", ""},
      {" gzip , br\t,deflate ", "gzip,br,deflate"},
      {"gzip, br", "gzip,br"},
      {"gzip,br", "gzip,br"},
      {"a  b", "a  b"},         // inside of a member it may matter
      {"GZIP", "GZIP"},         // case too
      {"br, gzip", "br,gzip"},  // and the order
      {R"("a, b" , c)", R"("a, b",c)"},
      {R"("a\" , b" , c)", R"("a\" , b",c)"},
      {R"(x="a , b" , c)", R"(x="a , b",c)"},
      {R"(a , "b , c)", R"(a,"b , c)"},  // it does not end: the rest stays as it is
      {", ,a", ",,a"},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(normalised(row.value), row.expected) << row.value;
    EXPECT_EQ(normalised(row.expected), row.expected) << "once is enough: " << row.value;
  }
}

struct RangeRow {
  const char* rule;
  std::string_view text;
  std::uint64_t size;
  std::uint64_t first;
  std::uint64_t last;
};

TEST(HttpRange, ByteRangesWithinTheBody) {
  const RangeRow rows[] = {
      {"14.1.2", "bytes=0-499", 10'000, 0, 499},
      {"14.1.2", "bytes=500-999", 10'000, 500, 999},
      {"14.1.2 last bytes", "bytes=-500", 10'000, 9500, 9999},
      {"14.1.2 open", "bytes=9500-", 10'000, 9500, 9999},
      {"14.1.2 one byte", "bytes=0-0", 10'000, 0, 0},
      {"14.1.2 the last byte", "bytes=-1", 10'000, 9999, 9999},
      {"14.1.2 cut to the size", "bytes=9000-20000", 10'000, 9000, 9999},
      {"14.1.2 more than all", "bytes=-20000", 10'000, 0, 9999},
      {"14.1 units in any case", "Bytes=1-2", 10, 1, 2},
      {"5.5 white space around the value", " bytes=1-2\t", 10, 1, 2},
      {"leading zeros", "bytes=0001-0002", 10, 1, 2},
      {"a number above 64 bits", "bytes=1-99999999999999999999999", 10, 1, 9},
      {"a suffix above 64 bits", "bytes=-99999999999999999999999", 10, 0, 9},
      {"the largest body", "bytes=18446744073709551614-", kMost, kMost - 1, kMost - 1},
  };
  for (const RangeRow& row : rows) {
    SCOPED_TRACE(row.rule);
    const auto range = parse_range(row.text, row.size);
    ASSERT_TRUE(range.has_value()) << row.text;
    EXPECT_EQ(range->first, row.first) << row.text;
    EXPECT_EQ(range->last, row.last) << row.text;
  }
}

TEST(HttpRange, RangesThatCannotBeSatisfied) {
  const RangeRow rows[] = {
      {"14.1.2 from the end", "bytes=10-", 10, 0, 0},
      {"14.1.2 beyond", "bytes=11-12", 10, 0, 0},
      {"14.1.2 no last bytes", "bytes=-0", 10, 0, 0},
      {"14.1.2 of nothing", "bytes=0-", 0, 0, 0},
      {"14.1.2 of nothing", "bytes=0-0", 0, 0, 0},
      {"14.1.2 no last bytes of nothing", "bytes=-0", 0, 0, 0},
      {"a number above 64 bits", "bytes=18446744073709551616-", kMost, 0, 0},
  };
  for (const RangeRow& row : rows) {
    SCOPED_TRACE(row.rule);
    const auto range = parse_range(row.text, row.size);
    ASSERT_TRUE(range.has_value()) << row.text;
    EXPECT_GT(range->first, range->last) << row.text;
  }
}

TEST(HttpRange, WhatIsNoSingleByteRangeIsIgnored) {
  for (const std::string_view text :
       {"",           "bytes",         "bytes=",     "bytes=-",    "bytes=a-b",     "bytes=1",
        "bytes=2-1",  "bytes=1-2-3",   "bytes=--1",  "bytes=+1-2", "bytes=1-2,4-5", "bytes=1-2,",
        "bytes=,1-2", "bytes= 1-2",    "bytes=1 -2", "bytes=1- 2", "bytes =1-2",    "bytes:1-2",
        "bytes 1-2",  "bytes=0x1-0x2", "bytes=1-2;", "items=1-2",  "byte=1-2",      "xbytes=1-2",
        "bytes=1-2 x"}) {
    EXPECT_EQ(parse_range(text, 100), std::nullopt) << text;
  }
  EXPECT_EQ(parse_range(std::string_view("bytes=1-2\0", 10), 100), std::nullopt);
  EXPECT_EQ(parse_range("bytes=-5", 0), std::nullopt) << "the last bytes of nothing are the whole";
  EXPECT_TRUE(is_byte_range("bytes=x"));
  EXPECT_TRUE(is_byte_range(" BYTES=1-2,3-4"));
  EXPECT_FALSE(is_byte_range("items=1-2"));
  EXPECT_FALSE(is_byte_range("bytes"));
  EXPECT_FALSE(is_byte_range(""));
}

TEST(HttpFields, WhatIsNotStored) {
  for (const std::string_view name :
       {"Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade",
        "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Authentication-Info", "Age", "Set-Cookie", "X-Cache",
        "Cache-Status", "SET-COOKIE", "age"}) {
    EXPECT_FALSE(is_stored_field(name)) << name;
  }
  for (const std::string_view name : {"Content-Type", "ETag", "Date", "Vary", "Cache-Control", "X-Own", "Link", "Agee",
                                      "", "Content-Security-Policy", "Access-Control-Allow-Origin"}) {
    EXPECT_TRUE(is_stored_field(name)) << name;
  }
}

TEST(HttpFields, WhatA304CarriesAndWhatItDoesNotReplace) {
  for (const std::string_view name :
       {"Cache-Control", "Content-Location", "Date", "ETag", "Expires", "Vary", "Last-Modified", "Age"}) {
    EXPECT_TRUE(is_in_304(name)) << name;
  }
  for (const std::string_view name : {"Content-Type", "Content-Length", "Content-Encoding", "Set-Cookie", "X-Own"}) {
    EXPECT_FALSE(is_in_304(name)) << name;
  }
  for (const std::string_view name : {"Content-Length", "content-encoding", "Content-Type", "Content-Range", "ETag"}) {
    EXPECT_TRUE(is_kept_on_304(name)) << name;
  }
  for (const std::string_view name : {"Date", "Cache-Control", "Expires", "X-Own", "Last-Modified"}) {
    EXPECT_FALSE(is_kept_on_304(name)) << name;
  }
}

TEST(HttpFields, NamesInAnyCase) {
  EXPECT_TRUE(equal_in_any_case("CONTENT-Type", "content-type"));
  EXPECT_TRUE(equal_in_any_case("", ""));
  EXPECT_FALSE(equal_in_any_case("content-typ", "content-type"));
  EXPECT_FALSE(equal_in_any_case("content-typee", "content-type"));
  EXPECT_FALSE(equal_in_any_case("content_type", "content-type"));
  EXPECT_FALSE(equal_in_any_case("K", "\xe2\x84\xaa")) << "ASCII alone has cases";
  EXPECT_FALSE(equal_in_any_case("[", "{")) << "which differ by the same bit as letters do";
}

}  // namespace
}  // namespace stillwarm::http
