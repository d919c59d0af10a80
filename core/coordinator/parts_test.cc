// Parts of the coordinator by themselves: placement, sessions, receipts. The rules together: tests/sim.
#include <gtest/gtest.h>

#include "core/coordinator/coordinator.h"
#include "core/coordinator/receipt.h"
#include "core/coordinator/sessions.h"
#include "core/coordinator/shards.h"

namespace ballast {
namespace {

TEST(PlaceFeed, TakesTheLeastLoadedThatDidNotFail) {
  const std::vector<WorkerLoad> workers = {{"c", "c:1", 1, 9}, {"b", "b:1", 0, 5}, {"a", "a:1", 0, 5}, {"d", "d:1", 0, 7}};
  EXPECT_EQ(PlaceFeed(workers, {}), 2);
  const std::vector<std::string> failed = {"a:1"};
  EXPECT_EQ(PlaceFeed(workers, failed), 1);
  const std::vector<std::string> all = {"a:1", "b:1", "c:1", "d:1"};
  EXPECT_EQ(PlaceFeed(workers, all), 2);  // nobody is left: the best of them
  EXPECT_EQ(PlaceFeed({}, {}), -1);
}

TEST(Sessions, ResumeOnceAndOnlyFromAnEarlierLife) {
  Sessions sessions(3, uint64_t{2} << 32 | 5);
  const SessionId old = uint64_t{2} << 32 | 7;
  const SessionId fresh = sessions.Open("a", 0, 0).session->id;
  EXPECT_EQ(fresh, uint64_t{3} << 32 | 1);
  EXPECT_FALSE(sessions.Open("a", fresh, 0).resumed);                  // of this life
  EXPECT_FALSE(sessions.Open("a", uint64_t{2} << 32 | 4, 0).resumed);  // cut off
  EXPECT_TRUE(sessions.Open("a", old, 0).resumed);
  EXPECT_EQ(sessions.ClosedBelow(), old);
  sessions.Close(old);
  EXPECT_FALSE(sessions.Open("a", old, 0).resumed);
  EXPECT_EQ(sessions.ClosedBelow(), fresh);
  EXPECT_FALSE(sessions.Open("a", uint64_t{2} << 32 | 9, 0).resumed);  // a decision may have passed it
}

TEST(Sessions, ClosingDropsItsClaims) {
  Sessions sessions(1, 0);
  Session& a = *sessions.Open("a", 0, 0).session;
  Session& b = *sessions.Open("b", 0, 0).session;
  const Batch batch{{1, 0, 0}, 4, 9};
  sessions.Park(a, {batch, std::nullopt});
  sessions.Park(b, {batch, std::nullopt});
  sessions.Close(a.id);
  EXPECT_EQ(sessions.Waiting(batch.id), std::vector<SessionId>{b.id});
  EXPECT_EQ(sessions.UnparkAll(batch.id).size(), 1u);
  EXPECT_TRUE(b.parked.empty());
}

TEST(Shards, ReceiptsCountByProofOrReport) {
  Shards shards(2);
  Submission s;
  s.uid = {7, 1};
  s.receipts = {{0, 1, 0, 0}, {1, 4, 0, 0}};
  s.receipts[1].proof = ReceiptProof(/*key=*/99, s.uid, s.receipts[1]);
  shards.OwnLogHas(s.uid);
  shards[1].receipt_key = 99;
  EXPECT_TRUE(shards.MissingReceipts(s).empty());
  shards[1].receipt_key = 100;  // another life
  EXPECT_EQ(shards.MissingReceipts(s), std::vector<uint32_t>{1});
  shards[1].undecided = {s.uid};
  EXPECT_TRUE(shards.MissingReceipts(s).empty());
  shards.ForgetBelow(8);
  EXPECT_EQ(shards.MissingReceipts(s), (std::vector<uint32_t>{0, 1}));
}

}  // namespace
}  // namespace ballast
