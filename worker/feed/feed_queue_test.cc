#include "worker/feed/feed_queue.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace ballast {
namespace {

constexpr uint64_t kRowBytes = 8;

// Writes down what a task would hear.
class Task final : public FeedOutlet {
 public:
  void Welcome(std::shared_ptr<const RunSpec>, uint64_t credit_bytes) override { heard.push_back(absl::StrCat("welcome ", credit_bytes)); }
  void Credit(uint64_t bytes) override { heard.push_back(absl::StrCat("credit ", bytes)); }
  void Ack(uint64_t seq, Outcome outcome, uint64_t version, const std::string&) override {
    heard.push_back(absl::StrCat("ack ", seq, " ", static_cast<int>(outcome), " v", version));
  }
  void Fault(const FeedFault& fault) override { heard.push_back(absl::StrCat("fault ", fault.reason, fault.retry ? " retry" : "")); }
  void Finish() override { heard.push_back("finish"); }

  std::vector<std::string> Take() { return std::exchange(heard, {}); }
  std::vector<std::string> heard;
};

using Heard = std::vector<std::string>;

std::shared_ptr<const RunSpec> Spec(uint64_t step_rows, uint64_t batch_rows) {
  auto spec = std::make_shared<RunSpec>();
  spec->schema = "x:int64";
  spec->step_rows = step_rows;
  spec->batch_rows = batch_rows;
  return spec;
}

RowBatch Rows(uint32_t partition, uint64_t seq, uint32_t rows = 4, uint64_t fingerprint = 1) {
  RowBatch batch;
  batch.batch = {{1, partition, seq}, rows, fingerprint};
  batch.columns.emplace_back("x", std::string(rows * kRowBytes, '\0'));
  return batch;
}

class FeedQueueTest : public testing::Test {
 protected:
  FeedQueue queue_{"run", 1 << 20};
  Task a_, b_;
};

TEST_F(FeedQueueTest, AFeedWaitsForTheSessionAndGetsCreditForTwiceTheStep) {
  queue_.Open(&a_, 1, 0, absl::UnixEpoch());
  EXPECT_TRUE(a_.heard.empty());
  EXPECT_EQ(queue_.waiting_since(), absl::UnixEpoch());
  queue_.Serve(Spec(16, 4));
  EXPECT_EQ(a_.Take(), Heard{absl::StrCat("welcome ", 2 * 16 * kRowBytes)});
  EXPECT_FALSE(queue_.waiting_since().has_value());
}

TEST_F(FeedQueueTest, CreditComesBackWhenABatchLeavesTheQueueAndTheAckLater) {
  queue_.Serve(Spec(16, 4));
  const auto feed = queue_.Open(&a_, 1, 0, absl::Now());
  a_.Take();
  queue_.Add(feed, Rows(0, 0));
  ASSERT_EQ(queue_.TakeUnclaimed(10).size(), 1u);
  EXPECT_TRUE(a_.heard.empty());
  queue_.LeaveQueue({1, 0, 0});
  EXPECT_EQ(a_.Take(), Heard{"credit 32"});
  EXPECT_EQ(queue_.bytes(), 32u);  // kept for a recomputation
  queue_.Acknowledge({1, 0, 0}, Outcome::kTrained, 9, "");
  EXPECT_EQ(a_.Take(), Heard{"ack 0 1 v9"});
  EXPECT_EQ(queue_.bytes(), 0u);
}

TEST_F(FeedQueueTest, ParkedBatchesOfOneFeedDoNotStarveAnother) {
  queue_.Serve(Spec(4, 4));
  const auto parked = queue_.Open(&a_, 1, 0, absl::Now());
  const auto other = queue_.Open(&b_, 1, 1, absl::Now());
  for (uint64_t seq = 0; seq < 4; ++seq) queue_.Add(parked, Rows(0, seq));
  queue_.TakeUnclaimed(10);
  b_.Take();
  queue_.Add(other, Rows(1, 0));
  EXPECT_TRUE(b_.heard.empty());
  EXPECT_EQ(queue_.TakeUnclaimed(10).size(), 1u);
}

TEST_F(FeedQueueTest, SendingBeyondTheCreditEndsTheFeed) {
  queue_.Serve(Spec(4, 4));
  const auto feed = queue_.Open(&a_, 1, 0, absl::Now());
  a_.Take();
  for (uint64_t seq = 0; seq < 5; ++seq) queue_.Add(feed, Rows(0, seq));
  EXPECT_EQ(a_.Take(), Heard{"fault PROTOCOL"});
}

// Four feeds hold two steps each; sixteen hold together what the four would.
TEST_F(FeedQueueTest, ManyFeedsShareWhatFewWouldHold) {
  queue_.Serve(Spec(16, 4));
  Task tasks[16];
  std::vector<FeedQueue::FeedId> feeds;
  for (uint32_t i = 0; i < 16; ++i) feeds.push_back(queue_.Open(&tasks[i], 1, i, absl::Now()));
  EXPECT_EQ(tasks[3].Take(), Heard{"welcome 256"});
  EXPECT_EQ(tasks[7].Take(), Heard{"welcome 128"});
  EXPECT_EQ(tasks[15].Take(), Heard{"welcome 64"});
  // The first one gives back what it has too much, batch by batch of 32 bytes: 256 - 64 of them.
  tasks[0].Take();
  for (uint64_t seq = 0; seq < 8; ++seq) {
    queue_.Add(feeds[0], Rows(0, seq));
    queue_.TakeUnclaimed(1);
    queue_.LeaveQueue({1, 0, seq});
  }
  EXPECT_EQ(tasks[0].Take(), (Heard{"credit 32", "credit 32"}));
}

TEST_F(FeedQueueTest, CreditThatWasWithheldComesWhenOthersEnd) {
  queue_.Serve(Spec(16, 4));
  Task tasks[8];
  std::vector<FeedQueue::FeedId> feeds;
  for (uint32_t i = 0; i < 8; ++i) feeds.push_back(queue_.Open(&tasks[i], 1, i, absl::Now()));
  EXPECT_EQ(tasks[7].Take(), Heard{"welcome 128"});
  for (uint32_t i = 0; i < 2; ++i) queue_.End(feeds[i]);  // six are left: 170 bytes each
  EXPECT_EQ(tasks[7].Take(), (Heard{"credit 18", "credit 24"}));
  for (uint32_t i = 2; i < 6; ++i) queue_.Close(feeds[i]);  // two: what each wanted, 256
  uint64_t credit = 0;
  for (const std::string& heard : tasks[7].Take()) credit += std::stoull(heard.substr(7));
  EXPECT_EQ(credit, 256u - 128u - 18u - 24u);
}

// A task that has used up its share waits for credit, not for an acknowledgement: it is no reason to submit what is there.
TEST_F(FeedQueueTest, AFeedThatUsedUpItsShareMaySendAgain) {
  queue_.Serve(Spec(4, 4));  // wants 128 bytes; all together 512; a batch has 32
  Task tasks[16];
  std::vector<FeedQueue::FeedId> feeds;
  for (uint32_t i = 0; i < 16; ++i) feeds.push_back(queue_.Open(&tasks[i], 1, i, absl::Now()));
  EXPECT_EQ(tasks[15].Take(), Heard{"welcome 32"});
  queue_.Add(feeds[15], Rows(15, 0));
  for (const FeedQueue::FeedId feed : feeds) queue_.Flush(feed);
  queue_.TakeUnclaimed(10);
  EXPECT_TRUE(queue_.Blocked());
  queue_.LeaveQueue({1, 15, 0});
  EXPECT_EQ(tasks[15].Take(), Heard{"credit 32"});
  EXPECT_FALSE(queue_.Blocked());
}

TEST_F(FeedQueueTest, TheSumOfCreditsStaysBelowTheBoundAndLaterFeedsWait) {
  FeedQueue queue("run", 300);
  queue.Serve(Spec(8, 4));  // each wants 128 bytes, at least 32
  Task tasks[4];
  std::vector<FeedQueue::FeedId> feeds;
  for (Task& task : tasks) feeds.push_back(queue.Open(&task, 1, 0, absl::Now()));
  EXPECT_EQ(tasks[0].Take(), Heard{"welcome 128"});
  EXPECT_EQ(tasks[1].Take(), Heard{"welcome 128"});
  EXPECT_EQ(tasks[2].Take(), Heard{"welcome 44"});
  EXPECT_TRUE(tasks[3].heard.empty());
  queue.Close(feeds[0]);
  EXPECT_EQ(tasks[3].Take(), Heard{"welcome 128"});
}

TEST_F(FeedQueueTest, TwinsShareABatchAndBothAreAcknowledged) {
  queue_.Serve(Spec(16, 4));
  const auto first = queue_.Open(&a_, 1, 0, absl::Now());
  const auto twin = queue_.Open(&b_, 1, 0, absl::Now());
  queue_.Add(first, Rows(0, 0));
  a_.Take();
  b_.Take();
  queue_.Add(twin, Rows(0, 0));
  EXPECT_EQ(b_.Take(), Heard{"credit 32"});  // its copy is not kept
  EXPECT_EQ(queue_.TakeUnclaimed(10).size(), 1u);
  queue_.Close(first);
  queue_.Acknowledge({1, 0, 0}, Outcome::kTrained, 2, "");
  EXPECT_EQ(b_.Take(), Heard{"ack 0 1 v2"});
}

TEST_F(FeedQueueTest, ATwinWithOtherRowsIsAFault) {
  queue_.Serve(Spec(16, 4));
  const auto first = queue_.Open(&a_, 1, 0, absl::Now());
  const auto twin = queue_.Open(&b_, 1, 0, absl::Now());
  queue_.Add(first, Rows(0, 0, 4, /*fingerprint=*/1));
  b_.Take();
  queue_.Add(twin, Rows(0, 0, 4, /*fingerprint=*/2));
  EXPECT_EQ(b_.Take(), Heard{"fault FINGERPRINT_DIFFERS"});
}

TEST_F(FeedQueueTest, AFeedThatDiesLeavesOnlyWhatIsClaimed) {
  queue_.Serve(Spec(16, 4));
  const auto feed = queue_.Open(&a_, 1, 0, absl::Now());
  queue_.Add(feed, Rows(0, 0));
  ASSERT_EQ(queue_.TakeUnclaimed(1).size(), 1u);
  queue_.Add(feed, Rows(0, 1));
  queue_.Close(feed);
  EXPECT_NE(queue_.Find({1, 0, 0}), nullptr);
  EXPECT_EQ(queue_.Find({1, 0, 1}), nullptr);
  EXPECT_TRUE(queue_.TakeUnclaimed(10).empty());
  queue_.Unclaim({1, 0, 0});  // its session ended: nobody is left who wants it
  EXPECT_TRUE(queue_.empty());
}

TEST_F(FeedQueueTest, BlockedMeansEndedOrWaitingAndEverythingClaimed) {
  EXPECT_TRUE(queue_.Blocked());
  queue_.Serve(Spec(4, 4));
  const auto a = queue_.Open(&a_, 1, 0, absl::Now());
  const auto b = queue_.Open(&b_, 1, 1, absl::Now());
  EXPECT_FALSE(queue_.Blocked());
  queue_.Add(a, Rows(0, 0));
  queue_.Flush(a);
  queue_.End(b);
  EXPECT_FALSE(queue_.Blocked());  // one batch is not claimed yet
  queue_.TakeUnclaimed(10);
  EXPECT_TRUE(queue_.Blocked());
  queue_.LeaveQueue({1, 0, 0});
  EXPECT_TRUE(queue_.Blocked());  // it waits for its window, not for credit
  queue_.Acknowledge({1, 0, 0}, Outcome::kTrained, 1, "");
  EXPECT_FALSE(queue_.Blocked());
  EXPECT_EQ(b_.heard.back(), "finish");
}

TEST_F(FeedQueueTest, UnclaimedBatchesAreClaimedAgainButNotThoseThatAreKept) {
  queue_.Serve(Spec(16, 4));
  const auto feed = queue_.Open(&a_, 1, 0, absl::Now());
  for (uint64_t seq = 0; seq < 3; ++seq) queue_.Add(feed, Rows(0, seq));
  queue_.TakeUnclaimed(10);
  queue_.UnclaimAll({{1, 0, 1}});
  const std::vector<Batch> again = queue_.TakeUnclaimed(10);
  ASSERT_EQ(again.size(), 2u);
  EXPECT_EQ(again[0].id.seq, 0u);
  EXPECT_EQ(again[1].id.seq, 2u);
}

}  // namespace
}  // namespace ballast
