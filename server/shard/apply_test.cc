// What a decision does to the numbers, against literal arithmetic.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "server/shard/shard_testing.h"

namespace ballast::testing {
namespace {

// Every block of the contribution holds this one number.
std::vector<PushedChunk> Constant(TestShard& t, Uid uid, float x, int64_t n, const std::set<uint32_t>& skip = {}) {
  return t.Chunks(
      uid, [x](const Block& b) { return std::vector<float>(b.count, x); }, [n](const Block& b) { return std::vector<int64_t>(b.count, n); },
      /*exact=*/true, skip);
}

class ApplyTest : public ::testing::Test {
 protected:
  ApplyTest() : t(TestSpec(OptimizerKind::kSgd, Codec::kFp32)) {
    EXPECT_TRUE(t.Open().ok());
    EXPECT_EQ(t.Push(Constant(t, {1, 1}, 2, 20)).error, "");
    EXPECT_TRUE(t.Decide(DecisionKind::kInit, {{1, 1}}));
  }
  void Push(uint64_t counter, float x, int64_t n, const std::set<uint32_t>& skip = {}) {
    EXPECT_EQ(t.Push(Constant(t, {1, counter}, x, n, skip)).error, "");
  }
  TestShard t;
};

TEST_F(ApplyTest, InitSetsEverything) {
  EXPECT_EQ(t.Floats(0), std::vector<float>(9000, 2));
  EXPECT_EQ(t.Floats(2), std::vector<float>(5, 2));
  EXPECT_EQ(t.Floats(5), std::vector<float>(4, 2));
  EXPECT_EQ(t.Ints(3), std::vector<int64_t>(1, 20));
}

TEST_F(ApplyTest, NonGradientStateFollowsItsRule) {
  Push(2, 30, 3);  // 10 rows: a row sum of 30 is a mean of 3
  Push(3, 44, 4);  // 11 rows
  ASSERT_TRUE(t.Decide(DecisionKind::kStep, {{1, 2}, {1, 3}}));
  EXPECT_EQ(t.Floats(1), std::vector<float>(7, 2 - 74 * (1.0f / 21)));  // OPT: sum / divisor, lr 1
  EXPECT_EQ(t.Floats(2), std::vector<float>(5, 74.0f / 21));            // MEAN by rows
  EXPECT_EQ(t.Ints(3), std::vector<int64_t>(1, 20 + 7));                // SUM
  EXPECT_EQ(t.Ints(4), std::vector<int64_t>(3, 4));                     // SET: the part listed last
  EXPECT_EQ(t.Floats(5), std::vector<float>(4, 2 + 74));                // SUM
  EXPECT_EQ(t.Floats(6), std::vector<float>(2, 44));                    // SET
}

TEST_F(ApplyTest, TensorWithoutGradientIsLeftAlone) {
  Push(2, 21, 3, {1, 4});
  Push(3, 21, 4, {1, 2});
  ASSERT_TRUE(t.Decide(DecisionKind::kStep, {{1, 2}, {1, 3}}));
  EXPECT_EQ(t.Floats(1), std::vector<float>(7, 2));     // in no part
  EXPECT_EQ(t.Floats(0), std::vector<float>(9000, 0));  // in both
  EXPECT_EQ(t.Floats(2), std::vector<float>(5, 2.1f));  // in one: over the rows of that one
  Push(4, 21, 4, {0});
  Push(5, 21, 4);
  ASSERT_TRUE(t.Decide(DecisionKind::kStep, {{1, 4}, {1, 5}}));
  EXPECT_EQ(t.Floats(0), std::vector<float>(9000, -21 * (1.0f / 21)));  // absent in one part: counts as 0
}

TEST_F(ApplyTest, SumFollowsTheOrderOfTheDecision) {
  for (const auto& [order, sum] : std::vector<std::pair<std::vector<uint64_t>, float>>{{{2, 3, 4}, 1}, {{3, 4, 2}, 0}}) {
    TestShard fresh(TestSpec(OptimizerKind::kSgd, Codec::kFp32));
    ASSERT_TRUE(fresh.Open().ok());
    ASSERT_EQ(fresh.Push(Constant(fresh, {1, 1}, 0, 0)).error, "");
    ASSERT_TRUE(fresh.Decide(DecisionKind::kInit, {{1, 1}}));
    ASSERT_EQ(fresh.Push(Constant(fresh, {1, 4}, 1e8f, 0)).error, "");  // pushed in another order than summed
    ASSERT_EQ(fresh.Push(Constant(fresh, {1, 3}, -1e8f, 0)).error, "");
    ASSERT_EQ(fresh.Push(Constant(fresh, {1, 2}, 1, 0)).error, "");
    std::vector<Uid> uids;
    for (uint64_t counter : order) uids.push_back({1, counter});
    ASSERT_TRUE(fresh.Decide(DecisionKind::kStep, uids));
    // (1 - 1e8) + 1e8 = 0, (-1e8 + 1e8) + 1 = 1 in fp32
    EXPECT_EQ(fresh.Floats(5), std::vector<float>(4, sum == 1 ? 0.0f : 1.0f));
  }
}

TEST_F(ApplyTest, ReplayTakesTheClipScaleFromTheLog) {
  Push(2, 21, 0);
  Push(3, 21, 0);
  ASSERT_TRUE(t.Decide(DecisionKind::kStep, {{1, 2}, {1, 3}}, /*clip_scale=*/0.25f));
  const float want = 2 - 42 * (0.25f / 21);
  EXPECT_EQ(t.Floats(1), std::vector<float>(7, want));
  t.Close();
  ASSERT_TRUE(t.Open().ok());
  EXPECT_EQ(t.Floats(1), std::vector<float>(7, want));
}

TEST_F(ApplyTest, NormIsThatOfTheOrderedSumOfGradients) {
  Push(2, 3, 0);
  Push(3, -1, 0, {1});
  t.shard->QueryNorm({77, {{1, 2}, {1, 3}}});
  EXPECT_DOUBLE_EQ(t.events.WaitNorm(77), 9000 * 4.0 + 7 * 9.0);
}

TEST_F(ApplyTest, DecisionDeliveredAgainIsAcceptedAndChangesNothing) {
  Push(2, 21, 0);
  const Decision d = t.Make(DecisionKind::kStep, {{1, 2}});
  ASSERT_TRUE(t.Decide(d));
  const uint64_t hash = t.Hash();
  t.shard->Deliver(std::make_shared<const Decision>(d));
  EXPECT_EQ(t.Hash(), hash);
  EXPECT_EQ(t.shard->Position().index, d.index);
}

TEST_F(ApplyTest, DecisionWithoutItsContributionStopsTheShard) {
  const Decision d = t.Make(DecisionKind::kStep, {{1, 9}});
  auto shared = std::make_shared<const Decision>(d);
  t.shard->Deliver(shared);
  const absl::Status failed = t.events.WaitFailed();
  EXPECT_EQ(failed.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(failed.message().find("counter 9"), std::string::npos) << failed;
  EXPECT_EQ(t.PushSeeded({1, 10}, 1).error, "STOPPED");
}

TEST_F(ApplyTest, DecisionOfAnotherHistoryStopsTheShard) {
  Push(2, 21, 0);
  Decision d = t.Make(DecisionKind::kStep, {{1, 2}});
  TestShard::Reseal(/*previous_chain=*/12345, d);
  t.shard->Deliver(std::make_shared<const Decision>(d));
  EXPECT_EQ(t.events.WaitFailed().code(), absl::StatusCode::kDataLoss);
}

TEST_F(ApplyTest, PullsShareOneEncodingOfAVersion) {
  std::vector<std::shared_ptr<const Encoding>> got(2);
  for (auto& slot : got) {
    absl::Notification ready;
    t.shard->Pull(1, Codec::kBf16, [&](std::shared_ptr<const Encoding> e) {
      slot = std::move(e);
      ready.Notify();
    });
    ready.WaitForNotification();
  }
  EXPECT_EQ(got[0], got[1]);
  EXPECT_EQ(got[0]->version, 1u);
}

}  // namespace
}  // namespace ballast::testing
