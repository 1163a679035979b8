// IntrusiveList: links, counts and byte sums.
#include <gtest/gtest.h>

#include <vector>

#include "core/memory/intrusive_list.hpp"

namespace stillwarm {
namespace {

class IntrusiveListTest : public testing::Test {
 protected:
  Index add(std::uint32_t weight) {
    const Index i = slab_.allocate();
    slab_[i].weight = weight;
    slab_[i].queue = Queue::kWindow;
    list_.push_newest(slab_, i);
    return i;
  }

  std::vector<Index> newest_first() const {
    std::vector<Index> out;
    for (Index i = list_.newest(); i != kNone; i = slab_[i].older) out.push_back(i);
    return out;
  }

  Slab slab_;
  IntrusiveList list_;
};

TEST_F(IntrusiveListTest, AnEmptyListHasNoEnds) {
  EXPECT_TRUE(list_.empty());
  EXPECT_EQ(list_.newest(), kNone);
  EXPECT_EQ(list_.oldest(), kNone);
  EXPECT_TRUE(list_.check(slab_, Queue::kWindow));
}

TEST_F(IntrusiveListTest, RemovesFromBothEndsAndTheMiddle) {
  std::vector<Index> in;
  for (std::uint32_t w = 1; w <= 5; ++w) in.push_back(add(w));
  EXPECT_EQ(list_.bytes(), 15u);
  EXPECT_EQ(list_.oldest(), in[0]);
  EXPECT_EQ(list_.newest(), in[4]);
  list_.remove(slab_, in[0]);
  list_.remove(slab_, in[2]);
  list_.remove(slab_, in[4]);
  EXPECT_EQ(newest_first(), (std::vector<Index>{in[3], in[1]}));
  EXPECT_EQ(list_.size(), 2u);
  EXPECT_EQ(list_.bytes(), 6u);
  EXPECT_EQ(slab_[in[2]].newer, kNone);
  EXPECT_EQ(slab_[in[2]].older, kNone);
  EXPECT_TRUE(list_.check(slab_, Queue::kWindow));
  list_.remove(slab_, in[1]);
  list_.remove(slab_, in[3]);
  EXPECT_TRUE(list_.empty());
  EXPECT_TRUE(list_.check(slab_, Queue::kWindow));
}

TEST_F(IntrusiveListTest, MovesToTheNewestEndFromEverywhere) {
  const Index a = add(1);
  const Index b = add(2);
  const Index c = add(3);
  list_.move_to_newest(slab_, c);
  EXPECT_EQ(newest_first(), (std::vector<Index>{c, b, a}));
  list_.move_to_newest(slab_, b);
  EXPECT_EQ(newest_first(), (std::vector<Index>{b, c, a}));
  list_.move_to_newest(slab_, a);
  EXPECT_EQ(newest_first(), (std::vector<Index>{a, b, c}));
  EXPECT_EQ(list_.oldest(), c);
  EXPECT_TRUE(list_.check(slab_, Queue::kWindow));
}

TEST_F(IntrusiveListTest, CheckSeesAForgottenReweighAWrongQueueAndABrokenLink) {
  const Index a = add(10);
  const Index b = add(20);
  slab_[a].weight = 4;
  EXPECT_FALSE(list_.check(slab_, Queue::kWindow));
  list_.reweigh(10, 4);
  EXPECT_EQ(list_.bytes(), 24u);
  EXPECT_TRUE(list_.check(slab_, Queue::kWindow));
  EXPECT_FALSE(list_.check(slab_, Queue::kProtected));
  slab_[a].newer = kNone;
  EXPECT_FALSE(list_.check(slab_, Queue::kWindow));
  slab_[a].newer = b;
  EXPECT_TRUE(list_.check(slab_, Queue::kWindow));
}

}  // namespace
}  // namespace stillwarm
