// The retry budget: its figures, its bound on the load, and that names share a bucket.
#include "core/retry/budget.hpp"

#include <gtest/gtest.h>

#include <random>

namespace stillwarm {
namespace {

TEST(Budget, TenRetriesAndThenNone) {
  Budget budget;
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(budget.take()) << i;
  EXPECT_FALSE(budget.take());
  EXPECT_EQ(budget.left(), 0u);
}

TEST(Budget, TenSuccessesAreOneRetry) {
  Budget budget;
  while (budget.take()) {
  }
  for (int i = 0; i < 9; ++i) budget.give_back();
  EXPECT_FALSE(budget.take());
  budget.give_back();
  EXPECT_TRUE(budget.take());
  EXPECT_FALSE(budget.take());
}

TEST(Budget, SuccessesDoNotPileUp) {
  Budget budget;
  for (int i = 0; i < 1'000; ++i) budget.give_back();
  EXPECT_EQ(budget.left(), Budget::kDefaultCapacity);
  int granted = 0;
  while (budget.take()) ++granted;
  EXPECT_EQ(granted, 10);
}

TEST(Budget, RetriesNeverPassTokensPlusATenthOfTheSuccesses) {
  std::mt19937_64 engine(3);
  for (const double failing : {0.05, 0.5, 0.95, 1.0}) {
    Budget budget;
    std::bernoulli_distribution fails(failing);
    int retries = 0;
    int successes = 0;
    for (int call = 0; call < 100'000; ++call) {
      for (int attempt = 0; attempt < 4; ++attempt) {
        if (!fails(engine)) {
          ++successes;
          budget.give_back();
          break;
        }
        if (attempt == 3 || !budget.take()) break;
        ++retries;
      }
      ASSERT_LE(retries * 10, 100 + successes) << failing;
    }
    EXPECT_GE(retries, 10) << failing;  // else this test would pass with a budget that grants nothing
  }
}

TEST(Budget, DefiningAnewIsNoWayToMoreTokens) {
  Budget budget;
  budget.define(2 * Budget::kUnit, Budget::kUnit);
  EXPECT_EQ(budget.left(), 2 * Budget::kUnit);  // full before, full now
  EXPECT_TRUE(budget.take());
  budget.define(50 * Budget::kUnit, 0);
  EXPECT_EQ(budget.left(), Budget::kUnit);
  budget.give_back();
  EXPECT_EQ(budget.left(), Budget::kUnit);
}

TEST(Budgets, ANameIsOneBucketForAll) {
  Budgets budgets;
  Budget& first = budgets.named("search");
  EXPECT_TRUE(first.take());
  for (int i = 0; i < 1'000; ++i) budgets.named(std::to_string(i));
  EXPECT_EQ(&budgets.named("search"), &first);
  EXPECT_EQ(budgets.named("search").left(), 9 * Budget::kUnit);
  EXPECT_EQ(budgets.named("other").left(), 10 * Budget::kUnit);
  budgets.each([](Budget& budget) { budget.refill(); });
  EXPECT_EQ(first.left(), 10 * Budget::kUnit);
  EXPECT_EQ(budgets.all().size(), 1'002U);
  EXPECT_EQ(&budgets.all().at("search"), &first);
}

}  // namespace
}  // namespace stillwarm
