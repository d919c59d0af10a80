// One test for each danger of the step protocol that the coordinator answers for. Names: docs/ARCHITECTURE.md, "Dangers".
#include <gtest/gtest.h>

#include "core/status.h"
#include "tests/sim/harness.h"

namespace ballast::sim {
namespace {

const Batch kB0 = Harness::B(0), kB1 = Harness::B(1), kB2 = Harness::B(2), kB3 = Harness::B(3), kB4 = Harness::B(4);

RunSpec Async(uint32_t staleness_max) {
  RunSpec spec = Harness::Spec();
  spec.step_rows = 0;
  spec.contribution_rows = 4;
  spec.staleness_max = staleness_max;
  return spec;
}

// ---- liveness of a step ------------------------------------------------------------------------------------------------------------
TEST(Protocol, AccumulationNeverOutwaitsTheWindow) {  // F1
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  h.Blocked(w, false);
  h.Claim(w, kB0);
  EXPECT_EQ(h.Granted(w), 1u);
  EXPECT_TRUE(h.Take<Flush>(w).empty());  // half a contribution, and more may come
  h.Blocked(w, true);                     // the task is at its window
  ASSERT_EQ(h.Take<Flush>(w).size(), 1u);
  h.Submit(w, {kB0});
  EXPECT_EQ(h.Take<Decided>(w).size(), 1u);
  EXPECT_EQ(h->Describe().steps_part_full, 1u);
}

TEST(Protocol, ClaimsBeforeTheFirstStatusAreNotFlushedOneByOne) {  // F1
  Harness h;
  h.Ready();
  const SessionId w = h->OpenSession("worker", 0, h.now()).value().session;
  h.Claim(w, kB0);
  EXPECT_TRUE(h.Take<Flush>(w).empty());
  h.Claim(w, kB1);
  EXPECT_EQ(h.Take<Flush>(w).size(), 1u);  // full
}

TEST(Protocol, TwinDoesNotHoldTheStep) {  // F2
  Harness h;
  h.Ready();
  const SessionId w0 = h.Open(), w1 = h.Open();
  h.Claim(w0, kB0);
  h.Claim(w1, kB0);  // the twin
  EXPECT_EQ(h.Granted(w1), 0u);
  h.Submit(w0, {kB0});
  EXPECT_EQ(h.Take<Decided>(w0).size(), 1u);
  const std::vector<Done> done = h.Take<Done>(w1);
  ASSERT_EQ(done.size(), 1u);
  EXPECT_FALSE(done[0].conflict);
}

TEST(Protocol, StepHoldsTheNextRowsWhereverTheyAreComputed) {  // F3
  Harness h;
  h.Ready();
  const SessionId w0 = h.Open(), w1 = h.Open();
  h.Blocked(w0, false);
  h.Blocked(w1, false);
  h.Claim(w0, kB0);
  h.Claim(w0, kB1);  // fills the step
  h.Claim(w0, kB2);  // the barrier
  h.Claim(w1, kB3);
  EXPECT_EQ(h.Granted(w0), 2u);
  EXPECT_EQ(h.Granted(w1), 0u);
  EXPECT_EQ(h.Take<Flush>(w0).size(), 1u);
  h.Submit(w0, {kB0, kB1});
  EXPECT_EQ(h.last().divisor, 8.0f);
  EXPECT_EQ(h.Granted(w0), 1u);  // one each: a long queue cannot take the whole step
  EXPECT_EQ(h.Granted(w1), 1u);
  h.Submit(w1, {kB3});
  EXPECT_EQ(h->Describe().steps, 1u);  // waits for the grant of w0
  h.Submit(w0, {kB2});
  EXPECT_EQ(h->Describe().steps, 2u);
  EXPECT_EQ(h.last().parts.size(), 2u);
  EXPECT_EQ(h->Describe().steps_part_full, 0u);
}

TEST(Protocol, LingerEndsTheWaitForASlowSource) {  // F3
  Harness h;
  h.Ready();
  const SessionId w0 = h.Open(), w1 = h.Open();
  h.Blocked(w1, false);  // its source is slow
  h.Claim(w0, kB0);
  h.Submit(w0, {kB0});
  h.Advance(400);
  EXPECT_EQ(h->Describe().steps, 0u);
  h.Advance(200);
  EXPECT_EQ(h->Describe().steps, 1u);
}

TEST(Protocol, ASourceThatPausesDoesNotCostTheLease) {  // F7
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  h.Blocked(w, false);
  h.Claim(w, kB0);
  h.Blocked(w, false, 4);
  h.Advance(2600);
  EXPECT_EQ(h.Take<Flush>(w).size(), 1u);
  EXPECT_TRUE(h.Take<CloseSession>(w).empty());
}

// ---- a row is trained exactly once -------------------------------------------------------------------------------------------------
TEST(Protocol, RecomputedBatchNeverSharesAUid) {  // F5
  Harness h;
  h.Ready();
  const SessionId w0 = h.Open(), w1 = h.Open();
  h.Claim(w0, kB0);
  h->OnSessionLost(w0, h.now());
  h.Claim(w1, kB0);
  ASSERT_EQ(h.Granted(w1), 1u);
  h.Submit(w1, Uid{w0, 1}, {kB0});  // another session's bytes
  const std::vector<Refuse> refused = h.Take<Refuse>(w1);
  ASSERT_EQ(refused.size(), 1u);
  EXPECT_EQ(refused[0].reason, Refuse::Reason::kFenced);
  h.Train(w1, kB0);
  EXPECT_EQ(h.Take<Decided>(w1).size(), 1u);
}

TEST(Protocol, LeaseExpiryNeverTrainsTwice) {  // F6
  RunSpec spec = Harness::Spec();
  spec.staleness_max = 1;
  Harness h(spec);
  h.Ready();
  const SessionId w0 = h.Open(), w1 = h.Open(), w2 = h.Open();
  h.Claim(w0, kB0);
  h.Claim(w2, kB3);     // holds the step open
  h.Submit(w0, {kB0});  // a candidate of a session that is lost now
  h->OnSessionLost(w0, h.now());
  h.Claim(w1, kB0);
  ASSERT_EQ(h.Granted(w1), 1u);
  h.Submit(w2, {kB3});
  h.Submit(w1, {kB0});
  ASSERT_EQ(h.last().parts.size(), 2u);
  EXPECT_EQ(h.last().parts[1].uid.session, w1);
  h.Submit(w0, Uid{w0, 1}, {kB0});  // the delayed Submit of the lost session
  h.Submit(w1, Uid{w1, 1}, {kB0});  // a repeated one
  h.Advance(1000);
  EXPECT_EQ(h->Describe().rows_trained, 8u);
}

TEST(Protocol, DeadWorkerLeavesTheStepAndFreesItsBytes) {  // F7
  Harness h;
  h.Ready();
  const SessionId dead = h.Open(), w = h.Open();
  h.Claim(dead, kB0);
  h.Claim(w, kB1);
  h.Submit(w, {kB1});
  EXPECT_EQ(h->Describe().steps, 0u);
  h->OnSessionLost(dead, h.now());
  h.Pump();
  EXPECT_EQ(h->Describe().steps, 1u);
  EXPECT_GT(h.last().sessions_closed_below, dead);
}

TEST(Protocol, HeartbeatWithoutProgressLosesTheLease) {  // F7
  Harness h;
  h.Ready();
  const SessionId hung = h.Open(), idle = h.Open();
  h.Claim(hung, kB0);
  for (int i = 0; i < 12; ++i) {
    h.Advance(500);
    h.Blocked(hung, true, 0);  // alive, but the row counter stands still
  }
  const std::vector<CloseSession> closed = h.Take<CloseSession>(hung);
  ASSERT_EQ(closed.size(), 1u);
  EXPECT_FALSE(closed[0].final);
  EXPECT_TRUE(h.Take<CloseSession>(idle).empty());  // nothing to compute, nothing to lose
}

TEST(Protocol, LeasesRestWhileAServerIsDown) {  // F7
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  h.Claim(w, kB0);
  h->OnShardLost(1, h.now());
  h.Advance(20000);
  EXPECT_TRUE(h.Take<CloseSession>(w).empty());
  h.RestartShard(1);
  h.Submit(w, {kB0});
  EXPECT_EQ(h.Take<Decided>(w).size(), 1u);
}

TEST(Protocol, StalledFeedMovesAndTrainsEachRowOnce) {  // F8
  Harness h;
  h.Ready();
  const SessionId hung = h.Open(), w = h.Open();
  h.Claim(hung, kB0);
  h.Claim(w, kB0);  // the feed moved
  EXPECT_EQ(h.Granted(w), 0u);
  h.Advance(6000);
  ASSERT_EQ(h.Granted(w), 1u);
  h.Submit(w, {kB0});
  EXPECT_EQ(h->Describe().rows_trained, 4u);
  EXPECT_EQ(h->OpenFeed(1, 0)->trained_below, 1u);
}

TEST(Protocol, BatchesOfAContributionLiveAndDieTogether) {  // F23
  Harness h;
  h.Ready();
  const SessionId w0 = h.Open();
  h.Blocked(w0, false);
  h.Claim(w0, kB0);
  h.Claim(w0, kB1);
  h->OnSessionLost(w0, h.now());
  const SessionId w1 = h.Open();
  h.Blocked(w1, false);
  h.Claim(w1, kB1);
  h.Claim(w1, kB0);
  EXPECT_EQ(h.Granted(w1), 2u);
  h.Submit(w1, {kB1, kB0});
  ASSERT_EQ(h.last().parts.size(), 1u);
  EXPECT_EQ(h.last().parts[0].batches, (std::vector<Batch>{kB1, kB0}));
}

TEST(Protocol, BadBatchIsSkippedOnTheRecord) {  // F23
  Harness h;
  h.Ready();
  const SessionId w = h.Open(), twin = h.Open();
  h.Claim(w, kB0);
  h.Claim(twin, kB0);
  h->OnSkip(w, kB0, "loss is NaN", h.now());
  h.Pump();
  EXPECT_EQ(h.Take<SkipLogged>(w).size(), 1u);
  ASSERT_EQ(h.Take<Done>(twin).size(), 1u);
  EXPECT_EQ(h.last().kind, DecisionKind::kSkip);
  EXPECT_EQ(h.last().skipped[0].reason, "loss is NaN");
  EXPECT_EQ(h.last().version, 1u);
  EXPECT_EQ(h->Describe().rows_skipped, 4u);
  EXPECT_EQ(h->Describe().rows_trained, 0u);
}

TEST(Protocol, SkipsInARowStopTheRun) {  // F23
  RunSpec spec = Harness::Spec();
  spec.skips_max = 2;
  Harness h(spec);
  h.Ready();
  const SessionId w = h.Open();
  for (const Batch& b : {kB0, kB1}) {
    h.Claim(w, b);
    h->OnSkip(w, b, "loss is NaN", h.now());
    h.Pump();
  }
  const std::vector<CloseSession> closed = h.Take<CloseSession>(w);
  ASSERT_EQ(closed.size(), 1u);
  EXPECT_TRUE(closed[0].final);
  EXPECT_NE(closed[0].reason.find("batch 1: loss is NaN"), std::string::npos) << closed[0].reason;
  EXPECT_EQ(h->Describe().state, RunStatus::State::kStopped);
  EXPECT_FALSE(h.Begin(1).status.ok());  // not by request: it stays stopped
}

TEST(Protocol, BatchThatKillsWorkersIsQuarantined) {  // F23
  Harness h;
  h.Ready();
  for (int i = 0; i < 3; ++i) {
    const SessionId w = h.Open();
    h.Blocked(w, false);
    h.Claim(w, kB0);
    h.Claim(w, kB1);
    const size_t granted = h.Granted(w);
    EXPECT_EQ(granted, i < 2 ? 2u : 1u);  // the last time it is tried alone
    h->OnSessionLost(w, h.now());
    h.Pump();
  }
  EXPECT_EQ(h.last().kind, DecisionKind::kSkip);
  EXPECT_EQ(h.last().skipped[0].batch, kB0);
  const SessionId w = h.Open();
  h.Claim(w, kB0);
  ASSERT_EQ(h.Take<Done>(w).size(), 1u);
  h.Train(w, kB1);  // its neighbour is innocent
  EXPECT_EQ(h->Describe().rows_trained, 4u);
}

TEST(Protocol, DuplicateWithOtherContentIsReported) {  // F26
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  h.Train(w, kB0);
  Batch other = kB0;
  other.fingerprint = 1;
  h.Claim(w, other);
  const std::vector<Done> done = h.Take<Done>(w);
  ASSERT_EQ(done.size(), 1u);
  EXPECT_TRUE(done[0].conflict);
  EXPECT_EQ(done[0].trained_fingerprint, kB0.fingerprint);
  EXPECT_EQ(h->Describe().duplicates, 1u);
}

// ---- restarts ----------------------------------------------------------------------------------------------------------------------
TEST(Protocol, RestartedShardReplaysWhatItMissed) {  // F9
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

TEST(Protocol, BytesThatAShardLostArePushedAgain) {  // F9, R4
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

TEST(Protocol, RestartedCoordinatorResumesWithoutRecompute) {  // F10
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

TEST(Protocol, ReceiptFromBeforeTheCrashIsRefused) {  // F10, R5
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
  submission.receipts = {{0, 1, 1, 1.0}, {1, 1, 1, 1.0}};  // shard 0: its life before the crash
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

TEST(Protocol, BytesOfABatchThatMovedOnAreFenced) {  // F10
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

TEST(Protocol, ZombieCoordinatorNeverAcknowledges) {  // F14
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

TEST(Protocol, NothingIsAcknowledgedBeforeEveryShardWasHeard) {  // F14
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

TEST(Protocol, ShardAheadOfTheCoordinatorStopsTheRun) {  // F14
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

// ---- what the gradient means -------------------------------------------------------------------------------------------------------
TEST(Protocol, TailBatchWeighsOnlyItsRows) {  // F13
  Harness h;
  h.Ready();
  h.Train(h.Open(), Harness::B(0, 0, 3));
  EXPECT_EQ(h.last().divisor, 3.0f);
  RunSpec sum = Harness::Spec();
  sum.reduction = Reduction::kSum;
  Harness hs(sum);
  hs.Ready();
  hs.Train(hs.Open(), Harness::B(0, 0, 3));
  EXPECT_EQ(hs.last().divisor, 1.0f);
}

TEST(Protocol, StalenessNeverExceedsTheBound) {  // F17
  Harness h(Async(1));
  h.Ready();
  const SessionId slow = h.Open(), fast = h.Open();
  h.Claim(slow, kB0);
  h.Train(fast, kB1);
  EXPECT_EQ(h->Describe().version, 2u);
  h.Train(fast, kB2);  // would make the grant of `slow` two versions old
  EXPECT_EQ(h->Describe().version, 2u);
  h.Submit(slow, {kB0}, 1);
  EXPECT_EQ(h->Describe().version, 4u);
  EXPECT_EQ(h.decisions()[2]->parts[0].uid.session, slow);
  EXPECT_EQ(h->Describe().max_lag, 1u);
  h.Claim(slow, kB3);
  h.Submit(slow, {kB3}, 2);  // computed from weights two versions old
  const std::vector<Refuse> refused = h.Take<Refuse>(slow);
  ASSERT_EQ(refused.size(), 1u);
  EXPECT_EQ(refused[0].reason, Refuse::Reason::kStale);
  h.Submit(slow, {kB3}, 4);  // the grant is still its own
  EXPECT_EQ(h->Describe().version, 5u);
}

TEST(Protocol, PipelinedStepsComputeOneVersionBehind) {  // F17
  RunSpec spec = Harness::Spec();
  spec.staleness_max = 1;
  Harness h(spec);
  h.Ready();
  h.auto_durable = false;
  const SessionId w = h.Open();
  h.Blocked(w, false);
  for (uint64_t seq = 0; seq < 6; ++seq) h.Claim(w, Harness::B(seq));
  const std::vector<Grant> grants = h.Take<Grant>(w);
  ASSERT_EQ(grants.size(), 4u);  // two steps are open, not three
  EXPECT_EQ(grants[0].step, grants[1].step);
  EXPECT_NE(grants[1].step, grants[2].step);
  h.Submit(w, {kB0, kB1}, 1);
  EXPECT_EQ(h.Granted(w), 0u);  // decided, but not durable: the next step would be computed from too old a version
  h.MakeDurable();
  EXPECT_EQ(h.Granted(w), 2u);
}

TEST(Protocol, IdleSessionNeverHoldsTheClock) {  // F17
  Harness h(Async(0));
  h.Ready();
  h.Open();
  const SessionId w = h.Open();
  for (uint64_t seq = 0; seq < 5; ++seq) h.Train(w, Harness::B(seq));
  EXPECT_EQ(h->Describe().version, 6u);
}

TEST(Protocol, CheckpointDoesNotAgeAGrant) {  // F17
  Harness h;
  h.Ready();
  const SessionId w = h.Open(), other = h.Open();
  h.Claim(w, kB0);
  EXPECT_TRUE(h.Checkpoint().status.ok());
  h.Claim(other, kB1);
  h->OnSkip(other, kB1, "bad", h.now());
  h.Pump();
  h.Submit(w, {kB0}, 1);
  EXPECT_EQ(h.Take<Decided>(w).size(), 1u);
}

TEST(Protocol, GroupCommitMergesSyncsNotSteps) {  // F18
  Harness h(Async(kStalenessUnbounded));
  h.Ready();
  h.auto_durable = false;
  const SessionId a = h.Open(), b = h.Open();
  h.Claim(a, kB0);
  h.Claim(b, kB1);
  h.Submit(a, {kB0}, 1);
  h.Submit(b, {kB1}, 1);
  ASSERT_EQ(h.decisions().size(), 3u);
  EXPECT_EQ(h.decisions()[1]->step, 1u);
  EXPECT_EQ(h.decisions()[2]->step, 2u);
  EXPECT_TRUE(h.Take<Decided>(a).empty());
  h.MakeDurable();  // one sync
  EXPECT_EQ(h.Take<Decided>(a).size(), 1u);
  EXPECT_EQ(h.Take<Decided>(b).size(), 1u);
}

TEST(Protocol, SumFollowsTheOrderOfTheDecision) {  // F19
  Harness h;
  h.Ready();
  const SessionId first = h.Open(), second = h.Open();
  h.Claim(first, kB0);
  h.Claim(second, kB1);
  h.Submit(second, {kB1});
  h.Submit(first, {kB0});
  ASSERT_EQ(h.last().parts.size(), 2u);
  EXPECT_EQ(h.last().parts[0].uid.session, second);  // the order of Submit
}

TEST(Protocol, ReplayTakesTheClipScaleFromTheLog) {  // F20
  RunSpec spec = Harness::Spec();
  spec.clip_norm = 0.5;
  Harness h(spec);
  h.Ready();
  h.auto_norm = false;
  const SessionId w = h.Open();
  h.Claim(w, kB0);
  const Uid uid = h.Submit(w, {kB0});
  EXPECT_EQ(h->Describe().steps, 0u);
  const auto query = std::get<NormQuery>(h.to_shard.back().second);
  EXPECT_EQ(query.uids, std::vector<Uid>{uid});
  h->OnNorm(0, query.query, 50, h.now());
  h.RestartShard(1, {uid});  // it never answers the first question
  const auto again = std::get<NormQuery>(h.to_shard.back().second);
  EXPECT_NE(again.query, query.query);
  h->OnNorm(1, query.query, 1e9, h.now());  // late answer to the old one
  h->OnNorm(0, again.query, 50, h.now());
  h->OnNorm(1, again.query, 50, h.now());
  h.Pump();
  ASSERT_EQ(h->Describe().steps, 1u);
  EXPECT_NEAR(h.last().clip_scale, 0.2f, 1e-5);  // 0.5 / (sqrt(100) / 4)
}

// ---- limits ------------------------------------------------------------------------------------------------------------------------
TEST(Protocol, DecisionsWaitForTheSlowestShard) {  // F30
  Harness h(Async(kStalenessUnbounded));
  h.Ready();
  h.auto_apply = false;
  const SessionId w = h.Open();
  for (uint64_t seq = 0; seq < 12; ++seq) h.Train(w, Harness::B(seq));
  EXPECT_EQ(h->Describe().version, 9u);  // 1 is applied everywhere
  h.Apply(0, 9);
  EXPECT_EQ(h->Describe().version, 9u);
  h.Apply(1, 3);
  EXPECT_EQ(h->Describe().version, 11u);
}

TEST(Protocol, InitialWeightsAreSetOnce) {  // F31
  Harness h;
  h.Position(0);
  h.Position(1);
  const Batch init{kInitBatch, 1, 0}, other{kInitBatch, 1, 99};
  const SessionId a = h.Open(), b = h.Open();
  h.Claim(a, init);
  h.Claim(b, other);
  EXPECT_EQ(h.Granted(a), 1u);
  EXPECT_EQ(h.Granted(b), 0u);
  h.Begin(1);
  h.Claim(b, kB0);
  EXPECT_EQ(h.Granted(b), 0u);  // there is nothing to compute from
  h.Submit(a, {init});
  EXPECT_EQ(h.last().kind, DecisionKind::kInit);
  EXPECT_EQ(h.last().version, 1u);
  EXPECT_EQ(h.last().step, 0u);
  const std::vector<Done> done = h.Take<Done>(b);
  ASSERT_EQ(done.size(), 1u);
  EXPECT_FALSE(done[0].conflict);
  EXPECT_EQ(h.Granted(b), 1u);
}

TEST(Protocol, DiskLowParksClaimsUntilThereIsRoom) {
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  h->OnDisk(1, true, "server 1 has 1 GiB left", h.now());
  h.Claim(w, kB0);
  EXPECT_EQ(h.Granted(w), 0u);
  EXPECT_NE(h->Describe().reason.find("server 1 has 1 GiB left"), std::string::npos);
  EXPECT_TRUE(absl::IsResourceExhausted(h->OpenFeed(1, 0).status()));
  h->OnDisk(1, false, "", h.now());
  h.Pump();
  EXPECT_EQ(h.Granted(w), 1u);
  EXPECT_TRUE(h->OpenFeed(1, 0).ok());
}

// ---- epochs ------------------------------------------------------------------------------------------------------------------------
TEST(Epochs, CommitListsWhatIsMissingThenCovers) {
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  h.Train(w, kB0);
  h.Train(w, kB2);
  Reply reply = h.Commit(1, {{0, 3, 12}});
  ASSERT_TRUE(reply.status.ok());
  const EpochReport partial = std::get<EpochReport>(reply.value);
  EXPECT_FALSE(partial.committed);
  ASSERT_EQ(partial.missing.size(), 1u);
  EXPECT_EQ(partial.missing[0].seqs, std::vector<uint64_t>{1});
  h.Train(w, kB1);
  reply = h.Commit(1, {{0, 3, 12}});
  const EpochReport report = std::get<EpochReport>(reply.value);
  EXPECT_TRUE(report.committed);
  EXPECT_EQ(report.rows_in, 12u);
  EXPECT_EQ(report.rows_trained, 12u);
  EXPECT_EQ(report.manifest_version, 4u);
  EXPECT_EQ(std::get<EpochReport>(h.Commit(1, {{0, 3, 12}}).value).manifest_version, 4u);  // idempotent
  EXPECT_FALSE(h->Describe().wants_sessions);
}

TEST(Epochs, LateFeedOfACommittedEpochIsNeverTrained) {
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  h.Train(w, kB0);
  h.Granted(w);
  h.Commit(1, {{0, 1, 4}});
  h.Claim(w, kB0);
  h.Claim(w, kB4);  // not even a batch that nobody has seen
  EXPECT_EQ(h.Granted(w), 0u);
  EXPECT_EQ(h.Take<Done>(w).size(), 2u);
  EXPECT_TRUE(h->OpenFeed(1, 0)->committed);
  h.RestartCoordinator();
  h.Position(0);
  h.Position(1);
  const SessionId again = h.Open();
  h.Claim(again, kB4);
  EXPECT_EQ(h.Take<Done>(again).size(), 1u);
}

TEST(Epochs, ChangedDataIsRefusedByPartition) {
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  h.Train(w, kB0);
  h.Train(w, kB1);
  const Reply fewer = h.Commit(1, {{0, 1, 4}});
  EXPECT_EQ(ReasonOf(fewer.status), "DATA_CHANGED");
  EXPECT_NE(fewer.status.message().find("partition 0"), absl::string_view::npos);
  EXPECT_EQ(ReasonOf(h.Commit(1, {{0, 2, 7}}).status), "DATA_CHANGED");
  EXPECT_TRUE(std::get<EpochReport>(h.Commit(1, {{0, 2, 8}}).value).committed);
}

TEST(Epochs, AnotherLayoutIsRefusedWithTheWayOut) {
  Harness h;
  h.Ready();
  EXPECT_TRUE(h.Begin(1).status.ok());
  const Reply other = h.Begin(1, 5);
  EXPECT_EQ(ReasonOf(other.status), "EPOCH_LAYOUT_DIFFERS");
  EXPECT_NE(other.status.message().find("4 partitions"), absl::string_view::npos);
  EXPECT_NE(other.status.message().find("5 partitions"), absl::string_view::npos);
  EXPECT_EQ(ReasonOf(h.Begin(2).status), "EPOCH_ORDER");
  EXPECT_TRUE(std::get<EpochReport>(h.Commit(1, {}).value).committed);  // an empty epoch
  EXPECT_TRUE(h.Begin(2).status.ok());
}

TEST(Epochs, StoppedRunGoesOnWhenItIsBegunAgain) {
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  h->Stop("by the user", h.now());
  h.Pump();
  ASSERT_EQ(h.Take<CloseSession>(w).size(), 1u);
  EXPECT_EQ(ReasonOf(h->OpenFeed(1, 0).status()), "RUN_STOPPED");
  EXPECT_TRUE(h.Begin(1).status.ok());
  h.Train(h.Open(), kB0);
  EXPECT_EQ(h->Describe().rows_trained, 4u);
}

// ---- checkpoints -------------------------------------------------------------------------------------------------------------------
TEST(Checkpoints, ManifestCoversExactlyTheDecisionsBeforeIt) {
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  h.Train(w, kB0);
  const Reply reply = h.Checkpoint();
  ASSERT_TRUE(reply.status.ok());
  EXPECT_EQ(std::get<Manifest>(reply.value).version, 2u);
  h.Train(w, kB1);
  h.RestartCoordinator();
  EXPECT_EQ(h->Describe().rows_trained, 8u);  // one from the ledger, one from the log
  EXPECT_EQ(h->Describe().version, 3u);
}

TEST(Checkpoints, RequestsOfOneMomentShareOne) {
  Harness h;
  h.Ready();
  h.auto_checkpoint = false;
  EXPECT_FALSE(h.Checkpoint().status.ok());  // under way
  h->RequestCheckpoint(98, h.now());
  h->RequestCheckpoint(99, h.now());
  h.Pump();
  const size_t before = h.decisions().size();
  h.auto_checkpoint = true;
  for (uint32_t s = 0; s < 2; ++s) h->OnCheckpointed(s, 1, ShardDigest{s, 7, 1, 0}, 5000, h.now());
  h.Pump();
  EXPECT_EQ(h.replies.back().tag, 99u);
  EXPECT_EQ(h.decisions().size(), before);  // nothing happened since: the manifest answers them too
}

TEST(Checkpoints, OneWithoutAManifestIsSuperseded) {
  Harness h;
  h.Ready();
  h.auto_checkpoint = false;
  h.Checkpoint();
  h.RestartCoordinator();
  h.auto_checkpoint = true;
  h.Position(0);
  h.Position(1);
  EXPECT_EQ(h->Describe().manifest_version, 1u);
}

TEST(Checkpoints, NewestHealthyManifestIsNeverDropped) {
  Harness h;
  h.Ready();
  h.nonfinite_versions = {2, 3, 4};
  const SessionId w = h.Open();
  h.Checkpoint();
  for (uint64_t seq = 0; seq < 3; ++seq) {
    h.Train(w, Harness::B(seq));
    h.Checkpoint();
  }
  const auto retention = std::get<ManifestCommitted>(h.to_shard.back().second);
  EXPECT_EQ(retention.version, 4u);
  EXPECT_EQ(retention.kept, (std::vector<uint64_t>{1, 3, 4}));
  EXPECT_FALSE(h.manifests.back().healthy);
}

TEST(Restore, RefusesAHistoryWithAHole) {
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  for (uint64_t seq = 0; seq < 3; ++seq) h.Train(w, Harness::B(seq));
  CoordinatorConfig config;
  config.spec = Harness::Spec();
  config.shards = 2;
  CoordinatorState hole{{}, {}, {h.decisions()[0], h.decisions()[2]}};
  EXPECT_TRUE(absl::IsDataLoss(Coordinator::Restore(config, hole, 0).status()));
  Decision forged = *h.decisions()[1];
  forged.version = 7;
  CoordinatorState broken{{}, {}, {h.decisions()[0], std::make_shared<const Decision>(forged)}};
  EXPECT_TRUE(absl::IsDataLoss(Coordinator::Restore(config, broken, 0).status()));
}

}  // namespace
}  // namespace ballast::sim
