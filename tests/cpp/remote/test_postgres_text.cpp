// Texts of PostgreSQL: array literals, bytea, quoted names, globs as regular expressions.
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "core/remote/postgres_link.hpp"
#include "core/remote/postgres_sql.hpp"

namespace stillwarm {
namespace {

using Texts = std::vector<std::string>;
using Maybe = std::vector<std::optional<std::string>>;

std::string array(const Texts& t) { return array_of(std::span<const std::string>(t)); }
std::string array(const Maybe& t) { return array_of(std::span<const std::optional<std::string>>(t)); }

TEST(PostgresText, ArraysQuoteEverything) {
  EXPECT_EQ(array(Texts{}), "{}");
  EXPECT_EQ(array(Texts{"a"}), R"({"a"})");
  EXPECT_EQ(array(Texts{"", ""}), R"({"",""})") << "two empty texts, and not {,}";
  EXPECT_EQ(array(Texts{"a,b", "{c}", "NULL", " d "}), R"({"a,b","{c}","NULL"," d "})");
  EXPECT_EQ(array(Texts{R"(a"b)", R"(c\d)"}), R"({"a\"b","c\\d"})");
  EXPECT_EQ(array(Texts{"\n\t\xc3\xa9"}), "{\"\n\t\xc3\xa9\"}");
}

TEST(PostgresText, ArraysTellNullFromItsName) {
  EXPECT_EQ(array(Maybe{std::nullopt, "NULL", ""}), R"({NULL,"NULL",""})");
  EXPECT_EQ(array(Maybe{std::nullopt}), "{NULL}");
}

TEST(PostgresText, AnArrayInAnArrayIsQuotedTwice) {
  EXPECT_EQ(array(Texts{array(Texts{R"(a"b)"})}), R"({"{\"a\\\"b\"}"})");
}

TEST(PostgresText, BytesAreHexadecimal) {
  EXPECT_EQ(hex_of(""), "\\x");
  EXPECT_EQ(hex_of(std::string_view("\x00\x0a\xff", 3)), "\\x000aff");
  EXPECT_EQ(bytes_of("\\x000aff"), std::string("\x00\x0a\xff", 3));
  EXPECT_EQ(bytes_of("\\x0AFF"), std::string("\x0a\xff", 2));
  EXPECT_EQ(bytes_of("\\x"), "");
  EXPECT_EQ(bytes_of(""), "");
  EXPECT_EQ(bytes_of("abc"), "") << "the escape format of old servers";
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  EXPECT_EQ(bytes_of(hex_of(all)), all);
}

TEST(PostgresText, NamesAreQuoted) {
  EXPECT_EQ(quoted_identifier("stillwarm"), R"("stillwarm")");
  EXPECT_EQ(quoted_identifier(R"(a"b)"), R"("a""b")");
  EXPECT_EQ(quoted_identifier("select"), R"("select")");
}

TEST(PostgresText, GlobsBecomeAnchoredExpressions) {
  EXPECT_EQ(regular_expression_of(""), "^$");
  EXPECT_EQ(regular_expression_of("a*"), "^a.*$");
  EXPECT_EQ(regular_expression_of("a?b"), "^a.b$");
  EXPECT_EQ(regular_expression_of("***"), "^.*$") << "else a pattern costs exponential time";
  EXPECT_EQ(regular_expression_of("a.b"), "^a\\.b$");
  EXPECT_EQ(regular_expression_of("(a|b)+"), "^\\(a\\|b\\)\\+$");
  EXPECT_EQ(regular_expression_of("a\\d"), "^a\\\\d$") << "a backslash is a character";
  EXPECT_EQ(regular_expression_of("\xc3\xa9"), "^\xc3\xa9$");
}

TEST(PostgresText, ClassesAreThoseOfFnmatch) {
  EXPECT_EQ(regular_expression_of("[abc]"), "^[abc]$");
  EXPECT_EQ(regular_expression_of("[!abc]"), "^[^abc]$");
  EXPECT_EQ(regular_expression_of("[a-z0-9]"), "^[a-z0-9]$");
  EXPECT_EQ(regular_expression_of("[]a]"), "^[\\]a]$") << "a bracket at the beginning is a member";
  EXPECT_EQ(regular_expression_of("[!]a]"), "^[^\\]a]$");
  EXPECT_EQ(regular_expression_of("[^a]"), "^[\\^a]$") << "only ! negates";
  EXPECT_EQ(regular_expression_of("[a"), "^\\[a$") << "without an end it is a character";
  EXPECT_EQ(regular_expression_of("["), "^\\[$");
  EXPECT_EQ(regular_expression_of("[a*]"), "^[a\\*]$");
  EXPECT_EQ(regular_expression_of("a]"), "^a\\]$");
}

TEST(PostgresText, ConnectionStringsAreCheckedWithoutConnecting) {
  EXPECT_EQ(check_connection_string("postgresql://h:1/d"), "");
  EXPECT_NE(check_connection_string("postgresql://h:1/d?nonsense=1"), "");
}

}  // namespace
}  // namespace stillwarm
