// Moments: a snapshot with the life of its server, and what it says in another life.
#include "core/remote/postgres_moment.hpp"

#include <gtest/gtest.h>

namespace stillwarm {
namespace {

TEST(PostgresMoment, IsASnapshotAndALife) {
  EXPECT_EQ(moment_text("5:8:6", "p:1@4"), "5:8:6/p:1@4");
  EXPECT_EQ(moment_text("5:8:6", ""), "5:8:6");
  EXPECT_EQ(Moment::of("5:8:6/p:1@4").snapshot, "5:8:6");
  EXPECT_EQ(Moment::of("5:8:6/p:1@4").life, "p:1@4");
  EXPECT_EQ(Moment::of("5:8:6").snapshot, "5:8:6");
  EXPECT_EQ(Moment::of("5:8:6").life, "");
  EXPECT_EQ(Moment::of("").snapshot, "");
}

TEST(PostgresMoment, NumbersOfItsTexts) {
  EXPECT_EQ(xmax_of("5:8:6"), 8u);
  EXPECT_EQ(xmax_of("5:18446744073709551615:"), 18446744073709551615u);
  EXPECT_EQ(xmax_of(""), 0u);
  EXPECT_EQ(xmax_of("5"), 0u);
  EXPECT_EQ(first_of("p:1@731"), 731u);
  EXPECT_EQ(first_of("p@x:1@731"), 731u) << "the last one";
  EXPECT_EQ(first_of("p:1"), 0u);
  EXPECT_EQ(first_of(""), 0u);
}

TEST(PostgresMoment, ASnapshotIsCutWhereTheNextLifeBegins) {
  EXPECT_EQ(cut_at("5:12:6,8,10", 20), "5:12:6,8,10") << "all of it was before";
  EXPECT_EQ(cut_at("5:12:6,8,10", 12), "5:12:6,8,10");
  EXPECT_EQ(cut_at("5:12:6,8,10", 9), "5:9:6,8");
  EXPECT_EQ(cut_at("5:12:6,8,10", 8), "5:8:6");
  EXPECT_EQ(cut_at("5:12:6,8,10", 3), "3:3:");
  EXPECT_EQ(cut_at("5:5:", 3), "3:3:");
  EXPECT_EQ(cut_at("5:5:", 0), "3:3:") << "an unknown beginning: nothing is visible";
  EXPECT_EQ(cut_at("3:3:", 9), "3:3:");
}

}  // namespace
}  // namespace stillwarm
