// What a shard takes, what it answers, what it refuses and never logs.
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "core/record/chunk.h"
#include "server/shard/shard_testing.h"
#include "server/storage/segment_reader.h"

namespace ballast::testing {
namespace {

int LoggedContributions(const std::string& dir) {
  int n = 0;
  const auto end = ReadLog(dir, false, [&](const RecordHeader& header, const LogPosition&, absl::string_view) {
    n += header.kind == RecordKind::kContribution;
    return absl::OkStatus();
  });
  EXPECT_TRUE(end.ok()) << end.status();
  return n;
}

TEST(PushTest, ReceiptOfShardZeroComesAfterItsOwnLog) {
  TestShard t(TestSpec());
  ASSERT_TRUE(t.Open().ok());
  const PushResult receipt = t.PushSeeded({7, 1}, 1);
  EXPECT_EQ(receipt.error, "");
  EXPECT_EQ(receipt.receipt.incarnation, 1u);
  EXPECT_GT(receipt.receipt.norm2, 0);
  absl::MutexLock lock(&t.events.mu);
  EXPECT_TRUE(t.events.own_log.contains(Uid{7, 1}));
}

TEST(PushTest, ReceiptOfAnotherShardMeansDurable) {
  TestShard t(TestSpec(), 1, 2);
  ASSERT_TRUE(t.Open().ok());
  for (uint64_t i = 1; i <= 4; ++i) {
    EXPECT_EQ(t.PushSeeded({i, 1}, i).error, "");
    EXPECT_EQ(t.shard->Position().undecided.size(), i);  // lists only what is on disk
  }
  absl::MutexLock lock(&t.events.mu);
  EXPECT_TRUE(t.events.own_log.empty());
}

TEST(PushTest, RepeatedPushGetsItsReceiptAgain) {
  TestShard t(TestSpec());
  ASSERT_TRUE(t.Open().ok());
  const PushResult first = t.PushSeeded({1, 1}, 5, /*exact=*/true);
  const PushResult again = t.PushSeeded({1, 1}, 5, /*exact=*/true);
  EXPECT_EQ(again.error, "");
  EXPECT_EQ(again.receipt, first.receipt);
  ASSERT_TRUE(t.Decide(DecisionKind::kInit, {{1, 1}}));
  const PushResult decided = t.PushSeeded({1, 1}, 5, /*exact=*/true);
  EXPECT_EQ(decided.error, "");
  EXPECT_EQ(decided.receipt, first.receipt);
  EXPECT_TRUE(t.shard->Position().undecided.empty());
  t.Close();
  EXPECT_EQ(LoggedContributions(t.options.dir), static_cast<int>(t.SeededChunks({1, 1}, 5, true).size()));
}

TEST(PushTest, PushThatBreaksOffStartsAgain) {
  TestShard t(TestSpec());
  ASSERT_TRUE(t.Open().ok());
  std::vector<PushedChunk> chunks = t.SeededChunks({1, 1}, 5);
  ASSERT_GE(chunks.size(), 3u);
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(t.shard->Push(std::move(chunks[i]), [](const PushResult&) { FAIL(); }).ok());
  const PushResult receipt = t.PushSeeded({1, 1}, 5);
  EXPECT_EQ(receipt.error, "");
  EXPECT_EQ(t.shard->Position().index, 0u);
}

TEST(PushTest, BlocksAreLoggedWhileBackwardRuns) {
  TestShard t(TestSpec());
  ASSERT_TRUE(t.Open().ok());
  std::vector<PushedChunk> chunks = t.SeededChunks({1, 1}, 5);
  chunks.pop_back();  // the last gradients are not computed yet
  const int pushed = static_cast<int>(chunks.size());
  for (PushedChunk& chunk : chunks) ASSERT_TRUE(t.shard->Push(std::move(chunk), [](const PushResult&) { FAIL(); }).ok());
  EXPECT_TRUE(t.shard->Position().undecided.empty());
  t.Close();
  EXPECT_EQ(LoggedContributions(t.options.dir), pushed);
}

TEST(PushTest, NonFiniteNeverEnters) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const Codec codec : {Codec::kFp32, Codec::kBf16, Codec::kInt8}) {
      TestShard t(TestSpec(OptimizerKind::kSgd, codec));
      ASSERT_TRUE(t.Open().ok());
      const auto floats = [&](const Block& block) { return std::vector<float>(block.count, block.tensor == 1 ? bad : 1.0f); };
      const auto ints = [&](const Block& block) { return std::vector<int64_t>(block.count, 1); };
      const PushResult refused = t.Push(t.Chunks({1, 1}, floats, ints, false, {}, 100));
      EXPECT_EQ(refused.error, "NONFINITE");
      EXPECT_EQ(refused.detail.find("NONFINITE"), std::string::npos) << refused.detail;  // not said twice
      EXPECT_TRUE(t.shard->Position().undecided.empty());
      EXPECT_EQ(t.PushSeeded({1, 2}, 2).error, "");
      t.Close();
      EXPECT_EQ(LoggedContributions(t.options.dir), static_cast<int>(t.SeededChunks({1, 2}, 2).size()));
    }
  }
}

TEST(PushTest, DamagedOrForeignBytesAreRefusedByName) {
  TestShard t(TestSpec());
  ASSERT_TRUE(t.Open().ok());
  uint64_t counter = 0;
  const auto refused = [&](const std::function<void(ChunkHead&, PushedChunk&)>& change) {
    PushedChunk chunk = std::move(t.Chunks(
        {counter / 4 + 1, ++counter}, [](const Block& b) { return std::vector<float>(b.count, 1); },
        [](const Block& b) { return std::vector<int64_t>(b.count, 1); }, false, {}, 100)[0]);
    ChunkHead head = ParseChunkHead(chunk.head, chunk.head.size() + chunk.payload.size())->head;
    change(head, chunk);
    chunk.head = EncodeChunkHead(head, chunk.payload.size());
    std::vector<PushedChunk> chunks;
    chunks.push_back(std::move(chunk));
    return t.Push(std::move(chunks)).error;
  };
  EXPECT_EQ(refused([](ChunkHead&, PushedChunk&) {}), "");
  EXPECT_EQ(refused([](ChunkHead&, PushedChunk& c) { c.payload[3] ^= 1; }), "BAD_CHECKSUM");
  EXPECT_EQ(refused([](ChunkHead& h, PushedChunk&) { h.run = "other"; }), "NO_RUN");
  EXPECT_EQ(refused([](ChunkHead& h, PushedChunk&) { h.generation = 2; }), "STALE_GENERATION");
  EXPECT_EQ(refused([](ChunkHead& h, PushedChunk&) { h.blocks[0].tensor = 6; }), "BAD_BLOCK");
  EXPECT_EQ(refused([](ChunkHead& h, PushedChunk&) { h.blocks[0].first = 8; }), "BAD_BLOCK");
  EXPECT_EQ(refused([](ChunkHead& h, PushedChunk&) { h.blocks[1] = h.blocks[0]; }), "BAD_BLOCK");
  EXPECT_EQ(refused([](ChunkHead&, PushedChunk& c) { c.payload.pop_back(); }), "BAD_BLOCK");
  EXPECT_EQ(refused([](ChunkHead& h, PushedChunk& c) { h.index = c.index = 3; }), "OUT_OF_ORDER");
  EXPECT_EQ(refused([](ChunkHead&, PushedChunk& c) { c.uid.session = 99; }), "BAD_BLOCK");
  EXPECT_EQ(t.PushSeeded({50, 1}, 1).error, "");
}

TEST(PushTest, RestOfARefusedContributionIsIgnored) {
  TestShard t(TestSpec());
  ASSERT_TRUE(t.Open().ok());
  std::vector<PushedChunk> chunks = t.SeededChunks({1, 1}, 5);
  ASSERT_GE(chunks.size(), 3u);
  chunks[1].payload[0] ^= 1;
  int answers = 0;
  for (PushedChunk& chunk : chunks) {
    ASSERT_TRUE(t.shard
                    ->Push(std::move(chunk),
                           [&](const PushResult& r) {
                             ++answers;
                             EXPECT_EQ(r.error, "BAD_CHECKSUM");
                           })
                    .ok());
  }
  EXPECT_TRUE(t.shard->Position().undecided.empty());
  EXPECT_EQ(answers, 1);
}

TEST(PushTest, SessionHoldsOnlySoManyUndecidedContributions) {
  TestShard t(TestSpec());
  ASSERT_TRUE(t.Open().ok());
  std::string error;
  uint64_t counter = 0;
  while (error.empty() && counter < 20) error = t.PushSeeded({1, ++counter}, counter).error;
  EXPECT_EQ(error, "TOO_LARGE");
  EXPECT_GT(counter, static_cast<uint64_t>(kInFlightMax));
  EXPECT_EQ(t.PushSeeded({2, 1}, 1).error, "");  // another session is not concerned
}

// Refusals are not in the log. What came before them is, and must not stand in the way of what came after.
TEST(PushTest, RefusedContributionsTakeNoRoomFromOthersAtReplay) {
  TestShard t(TestSpec());
  ASSERT_TRUE(t.Open().ok());
  for (uint64_t counter = 1; counter <= kInFlightMax + 5; ++counter) {
    std::vector<PushedChunk> chunks = t.SeededChunks({1, counter}, counter);
    ASSERT_GE(chunks.size(), 2u);
    chunks.back().payload[0] ^= 1;  // those before it are logged
    EXPECT_EQ(t.Push(std::move(chunks)).error, "BAD_CHECKSUM");
  }
  const Uid good{1, kInFlightMax + 6};
  EXPECT_EQ(t.PushSeeded(good, 1, /*exact=*/true).error, "");
  ASSERT_TRUE(t.Decide(DecisionKind::kInit, {good}));
  const uint64_t hash = t.Hash();
  t.Close();
  const absl::Status reopened = t.Open();
  ASSERT_TRUE(reopened.ok()) << reopened;
  EXPECT_EQ(t.Hash(), hash);
}

TEST(PushTest, ClosedSessionsAreForgottenAndRefused) {
  TestShard t(TestSpec());
  ASSERT_TRUE(t.Open().ok());
  ASSERT_NO_FATAL_FAILURE(t.Train(1));
  EXPECT_EQ(t.PushSeeded({5, 1}, 1).error, "");
  EXPECT_EQ(t.PushSeeded({6, 1}, 1).error, "");
  Decision d = t.Make(DecisionKind::kSkip, {});
  d.sessions_closed_below = 6;
  Decision sealed = d;
  const Decision before = *t.shard->ReadDecisions(d.index - 1, d.index - 1)->back();
  sealed.chain = 0;
  t.Reseal(before.chain, sealed);
  ASSERT_TRUE(t.Decide(sealed));
  EXPECT_EQ(t.shard->Position().undecided, (std::vector<Uid>{{6, 1}}));
  EXPECT_EQ(t.PushSeeded({5, 2}, 1).error, "SESSION_CLOSED");
}

TEST(PushTest, FullQueueLeavesTheChunkWithTheCaller) {
  TestShard t(TestSpec());
  t.options.queue_bytes_max = 1;
  ASSERT_TRUE(t.Open().ok());
  // The owner is held in a callback, so the queue cannot drain.
  absl::Notification entered, leave;
  t.Push(t.Chunks(
      {1, 1}, [](const Block& b) { return std::vector<float>(b.count, 1); },
      [](const Block& b) { return std::vector<int64_t>(b.count, 1); }, true, {}, /*blocks_per_chunk=*/100));
  ASSERT_TRUE(t.Decide(DecisionKind::kInit, {{1, 1}}));
  t.shard->Pull(2, Codec::kInt8, [&](std::shared_ptr<const Encoding>) {
    entered.Notify();
    leave.WaitForNotification();
  });
  auto step = std::make_shared<const Decision>(t.Make(DecisionKind::kStep, {}));
  t.shard->AppendDecision(step);
  t.shard->Deliver(step);
  entered.WaitForNotification();
  std::vector<PushedChunk> chunks = t.SeededChunks({1, 2}, 2);
  const std::string payload = chunks[1].payload;
  ASSERT_TRUE(t.shard->Push(std::move(chunks[0]), [](const PushResult&) {}).ok());
  const absl::Status full = t.shard->Push(std::move(chunks[1]), [](const PushResult&) {});
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(chunks[1].payload, payload);
  leave.Notify();
}

TEST(PushTest, EveryoneWhoWaitsIsAnsweredWhenTheShardCloses) {
  TestShard t(TestSpec());
  ASSERT_TRUE(t.Open().ok());
  ASSERT_NO_FATAL_FAILURE(t.Train(1));
  absl::Notification entered, leave;
  t.shard->Pull(3, Codec::kInt8, [&](std::shared_ptr<const Encoding>) {
    entered.Notify();
    leave.WaitForNotification();
  });
  bool pull_ended = false;
  t.shard->Pull(99, Codec::kFp32, [&](std::shared_ptr<const Encoding> e) { pull_ended = e == nullptr; });
  const Uid uid{1, t.next_counter};
  EXPECT_EQ(t.PushSeeded(uid, 9).error, "");
  auto step = std::make_shared<const Decision>(t.Make(DecisionKind::kStep, {uid}));
  t.shard->AppendDecision(step);
  t.shard->Deliver(step);
  entered.WaitForNotification();  // the owner is held, so the push stays in the queue
  std::vector<std::string> errors;
  for (PushedChunk& chunk : t.SeededChunks({2, 1}, 1)) {
    ASSERT_TRUE(t.shard->Push(std::move(chunk), [&](const PushResult& r) { errors.push_back(r.error); }).ok());
  }
  std::thread closer([&] { t.Close(); });
  leave.Notify();
  closer.join();
  EXPECT_TRUE(pull_ended);
  ASSERT_EQ(errors.size(), 1u);  // "STOPPED", or the receipt when the owner came to it first
  EXPECT_TRUE(errors[0].empty() || errors[0] == "STOPPED") << errors[0];
}

}  // namespace
}  // namespace ballast::testing
