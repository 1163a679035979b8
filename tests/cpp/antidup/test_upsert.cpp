// Upserts: what the statement says, and how replies are read, those that are none included.
#include "core/antidup/upsert.hpp"

#include <gtest/gtest.h>

#include <utility>

namespace stillwarm {
namespace {

UpsertPlan plan() {
  return {.table = "\"shop\".\"offers\"",
          .columns = {{"shop", "integer", "integer"},
                      {"asin", "character varying", "character varying"},
                      {"price", "numeric(10,2)", "numeric"}},
          .unique = {"shop", "asin"},
          .update = {"price"},
          .returning = {},
          .nulls_equal = false,
          .many = false,
          .marks = ""};
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(Upsert, StatementWritesTheGivenRowsAndNoOthers) {
  const std::string text = upsert_text(plan());
  EXPECT_TRUE(has(text, "INSERT INTO \"shop\".\"offers\" AS t (\"shop\", \"asin\", \"price\")")) << text;
  EXPECT_TRUE(has(text, "unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY")) << text;
  EXPECT_TRUE(has(text, "u.c3::numeric AS c3")) << text;
  EXPECT_TRUE(has(text, "ON CONFLICT (\"shop\", \"asin\") DO UPDATE SET \"price\" = EXCLUDED.\"price\" WHERE")) << text;
  EXPECT_FALSE(has(text, "$4")) << text;
}

TEST(Upsert, OnlyKeysAndWhatIsComparedAreRoundedBeforeTheColumnDoes) {
  EXPECT_TRUE(has(reread_text(plan()), "u.c3::numeric(10,2) AS c3")) << reread_text(plan());
  UpsertPlan key = plan();
  key.unique = {"price"};
  key.update = {"shop"};
  EXPECT_TRUE(has(upsert_text(key), "u.c3::numeric(10,2) AS c3")) << upsert_text(key);
}

TEST(Upsert, StatementLocksInOneOrderHoweverTheKeyIsNamed) {
  UpsertPlan other = plan();
  std::swap(other.unique[0], other.unique[1]);
  EXPECT_TRUE(has(upsert_text(plan()), "FROM given g ORDER BY g.c2, g.c1")) << upsert_text(plan());
  EXPECT_TRUE(has(upsert_text(other), "FROM given g ORDER BY g.c2, g.c1")) << upsert_text(other);
  UpsertPlan columns = plan();
  std::swap(columns.columns[0], columns.columns[1]);
  EXPECT_TRUE(has(upsert_text(columns), "FROM given g ORDER BY g.c1, g.c2")) << upsert_text(columns);
}

TEST(Upsert, StatementWithoutUpdateLeavesWhatIsThere) {
  UpsertPlan only = plan();
  only.update.clear();
  const std::string text = upsert_text(only);
  EXPECT_TRUE(has(text, "DO NOTHING RETURNING true AS inserted")) << text;
  EXPECT_FALSE(has(text, "set_config")) << text;
}

TEST(Upsert, StatementOfManyRowsLooksForTwoOfOneKeyBeforeItWrites) {
  for (const bool updates : {true, false}) {
    UpsertPlan one = plan();
    if (!updates) one.update.clear();
    UpsertPlan many = one;
    many.many = true;
    EXPECT_TRUE(has(upsert_text(many), "GROUP BY g.c1, g.c2 HAVING count(*) > 1")) << upsert_text(many);
    EXPECT_TRUE(has(upsert_text(many), "FROM given g WHERE (SELECT yes FROM sound) ORDER BY")) << upsert_text(many);
    EXPECT_FALSE(has(upsert_text(one), "sound")) << upsert_text(one);
  }
}

TEST(Upsert, StatementMarksOnlyWhatWasWritten) {
  UpsertPlan marked = plan();
  marked.marks = "\"stillwarm\".invalidations";
  const std::string text = upsert_text(marked);
  EXPECT_TRUE(has(text,
                  "INSERT INTO \"stillwarm\".invalidations (namespace, name, soft, origin) SELECT $4::text, "
                  "m.name, m.soft, $5::text FROM unnest($6::text[], $7::boolean[])"))
      << text;
  EXPECT_TRUE(has(text, "WHERE EXISTS (SELECT FROM written)")) << text;
  EXPECT_FALSE(has(upsert_text(plan()), "invalidations"));
}

TEST(Upsert, StatementJoinsNullsOnlyWhereTheIndexDoes) {
  EXPECT_FALSE(has(upsert_text(plan()), "IS NOT DISTINCT FROM g."));
  UpsertPlan nulls = plan();
  nulls.nulls_equal = true;
  EXPECT_TRUE(has(upsert_text(nulls), "w.c1 IS NOT DISTINCT FROM g.c1 AND w.c2 IS NOT DISTINCT FROM g.c2"));
}

TEST(Upsert, NamesAreQuoted) {
  UpsertPlan odd = plan();
  odd.columns[2].name = odd.update[0] = "pri\"ce";
  odd.returning = {"i\"d"};
  for (const std::string& text : {upsert_text(odd), reread_text(odd)}) {
    EXPECT_TRUE(has(text, "\"pri\"\"ce\"")) << text;
    EXPECT_TRUE(has(text, "t.\"i\"\"d\"::text")) << text;
  }
}

TEST(Upsert, RereadComparesWhatChangesAndWritesNothing) {
  const std::string text = reread_text(plan());
  EXPECT_TRUE(has(text, R"(t."price"::text COLLATE "C" IS NOT DISTINCT FROM g.c3::text COLLATE "C")")) << text;
  EXPECT_TRUE(has(text, "ON t.\"shop\" = g.c1 AND t.\"asin\" = g.c2")) << text;
  EXPECT_FALSE(has(text, "INSERT"));
  EXPECT_FALSE(has(text, "UPDATE"));
  UpsertPlan only = plan();
  only.update.clear();
  EXPECT_TRUE(has(reread_text(only), "SELECT g.n, true FROM given g JOIN")) << reread_text(only);
}

TEST(UpsertReply, TellsTheThreeApartInAnyOrder) {
  const auto reply =
      read_upsert({{"3", "1", "f", "x"}, {"1", "1", std::nullopt, std::nullopt}, {"2", "1", "t", std::nullopt}}, 3);
  ASSERT_TRUE(reply);
  EXPECT_TRUE(reply->whole);
  using enum UpsertOutcome;
  EXPECT_EQ(reply->outcomes, (std::vector{kUnchanged, kInserted, kUpdated}));
  EXPECT_TRUE(reply->returned[0].empty());
  EXPECT_EQ(reply->returned[1], UpsertRow{std::nullopt});
  EXPECT_EQ(reply->returned[2], UpsertRow{"x"});
}

TEST(UpsertReply, SaysWhenARowIsNeitherWrittenNorEqual) {
  const auto reply = read_upsert({{"1", "0", std::nullopt}}, 1);
  ASSERT_TRUE(reply);
  EXPECT_FALSE(reply->whole);
  const auto equal = read_upsert({{"1", "1", std::nullopt}}, 1);
  ASSERT_TRUE(equal);
  EXPECT_TRUE(equal->whole);
}

TEST(UpsertReply, SaysWhenTwoRowsHaveOneKey) {
  const auto reply = read_upsert({{"1", "-1", std::nullopt}, {"2", "-1", std::nullopt}}, 2);
  ASSERT_TRUE(reply);
  EXPECT_TRUE(reply->twice);
  EXPECT_TRUE(reply->whole);
}

TEST(UpsertReply, RefusesWhatIsNoReply) {
  EXPECT_FALSE(read_upsert({}, 1));
  EXPECT_FALSE(read_upsert({{"1", "1", "t"}, {"1", "1", "t"}}, 2));  // a row twice
  EXPECT_FALSE(read_upsert({{"2", "1", "t"}}, 1));
  EXPECT_FALSE(read_upsert({{"0", "1", "t"}}, 1));
  EXPECT_FALSE(read_upsert({{"1x", "1", "t"}}, 1));
  EXPECT_FALSE(read_upsert({{"1", std::nullopt, "t"}}, 1));
  EXPECT_FALSE(read_upsert({{"1", "1"}}, 1));
  EXPECT_FALSE(read_upsert({{std::nullopt, "1", "t"}}, 1));
}

TEST(UpsertReply, RereadKnowsWhatIsNotThere) {
  const auto found = read_reread({{"3", "t", "7"}, {"1", "f", std::nullopt}}, 3);
  ASSERT_TRUE(found);
  EXPECT_TRUE((*found)[0].there);
  EXPECT_FALSE((*found)[0].as_given);
  EXPECT_FALSE((*found)[1].there);
  EXPECT_TRUE((*found)[2].as_given);
  EXPECT_EQ((*found)[2].returned, UpsertRow{"7"});
  EXPECT_FALSE(read_reread({{"1", "t"}, {"1", "t"}}, 1));
  EXPECT_FALSE(read_reread({{"9", "t"}}, 1));
}

}  // namespace
}  // namespace stillwarm
