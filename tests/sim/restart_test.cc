// Restarts of servers, and two coordinators.
#include <gtest/gtest.h>

#include "core/record/decision.h"
#include "tests/sim/harness.h"
#include "tests/sim/receipt_of.h"

namespace ballast::sim {
namespace {

TEST(Protocol, RestartedShardReplaysWhatItMissed) {
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  h->OnShardLost(1, h.now());
  h.Train(w, kB0);
  EXPECT_TRUE(h.Take<Decided>(w).empty());  // not accepted by every shard
  h.to_shard.clear();
  ShardPosition old;
  old.shard = 1;
  old.incarnation = 2;
  old.index = old.version = 1;
  old.chain = h.decisions()[0]->chain;
  h->OnShardPosition(old, h.now());
  h.Pump();
  ASSERT_FALSE(h.to_shard.empty());
  EXPECT_EQ(std::get<std::shared_ptr<const Decision>>(h.to_shard[0].second)->index, 2u);
  EXPECT_EQ(h.Take<Decided>(w).size(), 1u);
}

TEST(Protocol, BytesThatAShardLostArePushedAgain) {
  Harness h;
  h.Ready();
  const SessionId w = h.Open(), other = h.Open();
  h.Claim(other, kB1);  // holds the step open
  h.Claim(w, kB0);
  const Uid uid = h.Submit(w, {kB0});
  h.RestartShard(1, {uid});  // it still has them
  EXPECT_TRUE(h.Take<Refuse>(w).empty());
  h.RestartShard(1, {});
  const std::vector<Refuse> refused = h.Take<Refuse>(w);
  ASSERT_EQ(refused.size(), 1u);
  EXPECT_EQ(refused[0].reason, Refuse::Reason::kReceipts);
  EXPECT_EQ(refused[0].shards, std::vector<uint32_t>{1});
  h.Submit(other, {kB1});
  EXPECT_EQ(h->Describe().steps, 0u);  // the grant stays with w
  h.Submit(w, uid, {kB0});
  EXPECT_EQ(h->Describe().rows_trained, 8u);
}

// A worker that is wrong about its pushes, or lies: the decision would name bytes that a server does not have.
TEST(Protocol, AReceiptThatNoServerGaveIsRefused) {
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  h.Claim(w, kB0);
  const Uid uid{w, 1};
  Submission submission;
  submission.uid = uid;
  submission.batches = {kB0};
  submission.rows = 4;
  submission.base_version = 1;
  const Receipt given = ReceiptOf(1, 1, uid);
  std::vector<Receipt> wrong = {{1, 1, 1, 1.0}, {1, 1u << 20, 1, 1.0}, ReceiptOf(1, 1, {w, 2}), ReceiptOf(0, 1, uid), given};
  wrong.back().norm2 = 2;
  h->OnOwnLog(uid);
  for (const Receipt& receipt : wrong) {
    submission.receipts = {ReceiptOf(0, 1, uid), receipt};
    h->OnSubmit(w, submission, h.now());
    h.Pump();
    const std::vector<Refuse> refused = h.Take<Refuse>(w);
    ASSERT_EQ(refused.size(), 1u);
    EXPECT_EQ(refused[0].reason, Refuse::Reason::kReceipts);
    EXPECT_EQ(refused[0].shards, std::vector<uint32_t>{1});
  }
  submission.receipts.back() = given;
  h->OnSubmit(w, submission, h.now());
  h.Pump();
  EXPECT_EQ(h.Take<Decided>(w).size(), 1u);
}

TEST(Protocol, RestartedCoordinatorResumesWithoutRecompute) {
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  h.Claim(w, kB0);
  h.Claim(w, kB1);
  const Uid uid{w, 1};
  h.RestartCoordinator();
  h.Position(0, {uid});
  h.Position(1, {uid});
  EXPECT_EQ(h.Open(w), w);
  EXPECT_NE(h.Open(w), w);  // only once
  h.Claim(w, kB0, uid);
  h.Claim(w, kB1, uid);
  const std::vector<Grant> grants = h.Take<Grant>(w);
  ASSERT_EQ(grants.size(), 2u);
  EXPECT_EQ(grants[0].uid, uid);
  EXPECT_EQ(grants[0].step, grants[1].step);
  h.Submit(w, uid, {kB0, kB1}, 1);
  EXPECT_EQ(h.last().parts[0].uid, uid);
  EXPECT_EQ(h.Take<Decided>(w).size(), 1u);
}

TEST(Protocol, ReceiptFromBeforeTheCrashIsRefused) {
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  h.Claim(w, kB0);
  const Uid uid{w, 1};
  h.RestartCoordinator();
  h.Position(0);  // shard 0 lost the unsynced bytes
  h.Position(1, {uid});
  h.Open(w);
  h.Claim(w, kB0, uid);
  Submission submission;
  submission.uid = uid;
  submission.batches = {kB0};
  submission.rows = 4;
  submission.base_version = 1;
  submission.receipts = {ReceiptOf(0, 1, uid), ReceiptOf(1, 1, uid)};  // shard 0: its life before the crash
  h->OnSubmit(w, submission, h.now());
  h.Pump();
  const std::vector<Refuse> refused = h.Take<Refuse>(w);
  ASSERT_EQ(refused.size(), 1u);
  EXPECT_EQ(refused[0].shards, std::vector<uint32_t>{0});
  h->OnOwnLog(uid);
  h->OnSubmit(w, submission, h.now());
  h.Pump();
  EXPECT_EQ(h.Take<Decided>(w).size(), 1u);
}

TEST(Protocol, BytesOfABatchThatMovedOnAreFenced) {
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  const Uid uid{w, 1};
  h.RestartCoordinator();
  h.Position(0, {uid});
  h.Position(1, {uid});
  const SessionId fast = h.Open();
  h.Claim(fast, kB1);
  h.Open(w);
  h.Claim(w, kB0, uid);
  EXPECT_EQ(h.Granted(w), 1u);
  h.Claim(w, kB1, uid);  // half of the contribution is being computed elsewhere
  const std::vector<Refuse> refused = h.Take<Refuse>(w);
  ASSERT_EQ(refused.size(), 1u);
  EXPECT_EQ(refused[0].reason, Refuse::Reason::kFenced);
  h.Claim(w, kB0);
  EXPECT_EQ(h.Granted(w), 1u);
  h.Submit(fast, {kB1});
  h.Submit(w, Uid{w, 2}, {kB0});
  EXPECT_EQ(h->Describe().rows_trained, 8u);
}

TEST(Protocol, ZombieCoordinatorNeverAcknowledges) {
  Harness h;
  h.Ready();
  h.auto_accept = false;
  const SessionId w = h.Open(), twin = h.Open();
  h.Claim(w, kB0);
  h.Claim(twin, kB0);
  h.Submit(w, {kB0});
  h.Accept(0, 2, h.incarnation());
  h.Accept(1, 2, h.incarnation() + 1);  // this shard follows a newer coordinator
  EXPECT_TRUE(h.Take<Decided>(w).empty());
  EXPECT_TRUE(h.Take<Done>(twin).empty());
  EXPECT_EQ(h->OpenFeed(1, 0)->trained_below, 0u);
}

TEST(Protocol, NothingIsAcknowledgedBeforeEveryShardWasHeard) {
  Harness h;
  h.Ready();
  h.Train(h.Open(), kB0);
  h.RestartCoordinator();
  h.Position(0);
  const SessionId w = h.Open();
  h.Claim(w, kB0);
  EXPECT_TRUE(h.Take<Done>(w).empty());
  EXPECT_EQ(h->OpenFeed(1, 0)->trained_below, 0u);
  h.Position(1);
  EXPECT_EQ(h.Take<Done>(w).size(), 1u);
  EXPECT_EQ(h->OpenFeed(1, 0)->trained_below, 1u);
}

TEST(Protocol, ShardAheadOfTheCoordinatorStopsTheRun) {
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  ShardPosition ahead;
  ahead.shard = 1;
  ahead.incarnation = 2;
  ahead.index = 5;
  h->OnShardPosition(ahead, h.now());
  h.Pump();
  EXPECT_EQ(h->Describe().state, RunStatus::State::kStopped);
  ASSERT_EQ(h.Take<CloseSession>(w).size(), 1u);
  EXPECT_NE(h->Describe().reason.find("server 1 holds decision 5"), std::string::npos) << h->Describe().reason;
}

TEST(Protocol, RecordsThatContradictEachOtherAreRefusedAtRestart) {
  CoordinatorConfig config;
  config.spec = Harness::Spec();
  Manifest manifest;
  manifest.index = ~uint64_t{0};
  EXPECT_EQ(Coordinator::Restore(config, {{manifest}, {}, {}}, 0).status().code(), absl::StatusCode::kDataLoss);
  EpochRecord epoch;
  epoch.epoch = 1;
  epoch.partitions = 0xffffffff;
  EXPECT_EQ(Coordinator::Restore(config, {{}, {epoch}, {}}, 0).status().code(), absl::StatusCode::kDataLoss);
  epoch.epoch = 0;
  epoch.partitions = 4;
  EXPECT_EQ(Coordinator::Restore(config, {{}, {epoch}, {}}, 0).status().code(), absl::StatusCode::kDataLoss);
}

TEST(Protocol, LedgerWithMorePartitionsThanItsEpochIsReportedAtCommit) {
  CoordinatorConfig config;
  config.spec = Harness::Spec();
  Decision d;
  d.run = "run";
  d.index = d.version = 1;
  d.parts.push_back({{1, 1}, 4, {Harness::B(0, 9)}, 0, 0});
  SealDecision(0, d);
  EpochRecord epoch;
  epoch.epoch = 1;
  epoch.partitions = 4;
  epoch.batch_rows = 4;
  auto coordinator = Coordinator::Restore(config, {{}, {epoch}, {std::make_shared<const Decision>(d)}}, 0);
  ASSERT_TRUE(coordinator.ok()) << coordinator.status();
  (*coordinator)->CommitEpoch(1, 1, {}, 0);
  const std::vector<Output> outputs = (*coordinator)->TakeOutputs();
  ASSERT_EQ(outputs.size(), 1u);
  EXPECT_NE(std::get<Reply>(outputs[0]).status.message().find("partition 9"), std::string::npos);
}

}  // namespace
}  // namespace ballast::sim
