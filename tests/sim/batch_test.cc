// A row is trained exactly once, whatever becomes of sessions.
#include <gtest/gtest.h>

#include "tests/sim/harness.h"

namespace ballast::sim {
namespace {

TEST(Protocol, RecomputedBatchNeverSharesAUid) {
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

TEST(Protocol, LeaseExpiryNeverTrainsTwice) {
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

TEST(Protocol, DeadWorkerLeavesTheStepAndFreesItsBytes) {
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

TEST(Protocol, HeartbeatWithoutProgressLosesTheLease) {
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

// The lease of the harness is 5 s; this batch takes 12 s wherever it is computed.
TEST(Protocol, ABatchThatOutlastsTheLeaseIsGivenTwiceTheTimeOnEachTry) {
  Harness h;
  h.Ready();
  int tries = 0;
  for (bool done = false; !done && tries < 5; ++tries) {
    const SessionId w = h.Open();
    h.Claim(w, kB0);
    h.Advance(4000);
    h.Advance(8000);
    done = h.Take<CloseSession>(w).empty();
    if (done) {
      h.Submit(w, {kB0});
      EXPECT_EQ(h.Take<Decided>(w).size(), 1u);
    }
  }
  EXPECT_EQ(tries, 3);  // 5 s, 10 s, 20 s: before the third death would quarantine it
}

TEST(Protocol, LeasesRestWhileAServerIsDown) {
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

TEST(Protocol, StalledFeedMovesAndTrainsEachRowOnce) {
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

TEST(Protocol, BatchesOfAContributionLiveAndDieTogether) {
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

TEST(Protocol, BadBatchIsSkippedOnTheRecord) {
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

TEST(Protocol, SkipsInARowStopTheRun) {
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

TEST(Protocol, BatchThatKillsWorkersIsQuarantined) {
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
  ASSERT_EQ(h.last().kind, DecisionKind::kSkip);
  EXPECT_EQ(h.last().skipped[0].batch, kB0);
  const SessionId w = h.Open();
  h.Claim(w, kB0);
  ASSERT_EQ(h.Take<Done>(w).size(), 1u);
  h.Train(w, kB1);  // its neighbour is innocent
  EXPECT_EQ(h->Describe().rows_trained, 4u);
}

TEST(Protocol, SuspectBatchIsTriedWithNothingElseGranted) {
  RunSpec spec = Harness::Spec();
  spec.step_rows = spec.contribution_rows = 4;
  spec.staleness_max = 1;
  Harness h(spec);
  h.Ready();
  for (int i = 0; i < 2; ++i) {
    const SessionId w = h.Open();
    h.Claim(w, kB0);
    h.Claim(w, kB1);
    EXPECT_EQ(h.Granted(w), 2u);  // one in each of two steps
    h.Lose(w);
  }
  const SessionId w = h.Open();
  h.Claim(w, kB0);
  h.Claim(w, kB1);
  const std::vector<Grant> grants = h.Take<Grant>(w);
  ASSERT_EQ(grants.size(), 1u);
  EXPECT_EQ(grants[0].batch, kB0);
  h.Submit(w, {kB0});  // it was not this one
  EXPECT_EQ(h.Granted(w), 1u);
}

TEST(Protocol, AnOrderlyLeaveBlamesNoBatch) {
  Harness h;
  h.Ready();
  for (int i = 0; i < 4; ++i) {
    const SessionId w = h.Open();
    h.Claim(w, kB0);
    ASSERT_EQ(h.Granted(w), 1u);
    h->OnSessionLeft(w, h.now());
    h.Pump();
  }
  EXPECT_EQ(h->Describe().rows_skipped, 0u);
  h.Train(h.Open(), kB0);
  EXPECT_EQ(h->Describe().rows_trained, 4u);
}

// Workers count their rows over all their sessions.
TEST(Protocol, RowsOfEarlierSessionsDoNotHideTheBatchThatKills) {
  Harness h;
  h.Ready();
  for (int i = 0; i < 3; ++i) {
    const SessionId w = h->OpenSession("worker", 0, h.now()).value().session;
    h.Blocked(w, true, 1000);
    h.Claim(w, kB0);
    h.Lose(w);
  }
  EXPECT_EQ(h.last().kind, DecisionKind::kSkip);
  EXPECT_EQ(h->Describe().rows_skipped, 4u);
}

TEST(Protocol, ResumedBytesAreNoRowsOfTheBatchThatKills) {
  Harness h;
  h.Ready();
  const SessionId old = h.Open();
  const Uid uid{old, 1};
  h.RestartCoordinator();
  h.Position(0, {uid});
  h.Position(1, {uid});
  const SessionId w = h->OpenSession("worker", old, h.now()).value().session;
  h.Claim(w, kB0, uid);  // computed before the restart
  h.Blocked(w, true, 4);
  h.Submit(w, uid, {kB0}, 1);
  h.Blocked(w, false, 4);
  h.Claim(w, kB1);
  h.Claim(w, kB2);
  h.Blocked(w, false, 8);  // kB1 is computed
  h.Lose(w);
  for (int i = 0; i < 2; ++i) {
    const SessionId next = h.Open();
    h.Claim(next, kB2);
    h.Lose(next);
  }
  ASSERT_EQ(h.last().kind, DecisionKind::kSkip);
  EXPECT_EQ(h.last().skipped[0].batch, kB2);
}

TEST(Protocol, ClaimThatMakesNoSenseEndsItsSession) {
  Harness h;
  h.Ready();
  for (const Batch& wrong : {Harness::B(0, 0, 0), Harness::B(0, 0, 5), Harness::B(0, 4)}) {
    const SessionId w = h.Open();
    h.Claim(w, wrong);
    EXPECT_EQ(h.Granted(w), 0u);
    const std::vector<CloseSession> closed = h.Take<CloseSession>(w);
    ASSERT_EQ(closed.size(), 1u);
    EXPECT_NE(closed[0].reason.find("epoch 1, partition "), std::string::npos) << closed[0].reason;
  }
  const SessionId w = h.Open();
  h->OnSkip(w, Harness::B(0, 9), "not here", h.now());
  h.Pump();
  EXPECT_EQ(h.Take<CloseSession>(w).size(), 1u);
}

TEST(Protocol, ReasonOfASkipIsShort) {
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  h.Claim(w, kB0);
  std::string reason(1023, 'x');
  for (int i = 0; i < 100000; ++i) reason += "\xc3\xa4";
  h->OnSkip(w, kB0, reason, h.now());
  h.Pump();
  EXPECT_EQ(h.last().skipped[0].reason, std::string(1023, 'x'));  // cut between two characters
}

TEST(Protocol, SkipIsOnTheRecordAsItWasGranted) {
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  h.Claim(w, kB0);
  Batch lie = kB0;
  lie.rows = 4000000000;
  lie.fingerprint = 1;
  h->OnSkip(w, lie, "it says", h.now());
  h.Pump();
  EXPECT_EQ(h.last().skipped[0].batch, kB0);
  EXPECT_EQ(h->Describe().rows_skipped, kB0.rows);
}

TEST(Protocol, DuplicateWithOtherContentIsReported) {
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

TEST(Protocol, AClaimThatIsRepeatedHasOneAnswer) {
  Harness h;
  h.Ready();
  const SessionId w = h.Open(), other = h.Open();
  h.Claim(other, Harness::B(0));
  for (int i = 0; i < 100'000; ++i) h.Claim(w, Harness::B(0));  // each was kept, and each looked through all of them: minutes
  h.Submit(other, {Harness::B(0)});
  EXPECT_EQ(h.Take<Done>(w).size(), 1u);
  EXPECT_TRUE(h.Take<CloseSession>(w).empty());
}

TEST(Protocol, ASessionThatClaimsWithoutEndIsClosed) {
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  uint64_t seq = 0;
  while (h.Take<CloseSession>(w).empty()) {
    ASSERT_LE(seq, 70'000u);  // 65,536 that wait, and what its first step takes
    h.Claim(w, Harness::B(seq++));
  }
  EXPECT_GT(seq, 65'536u);
  const SessionId next = h.Open();
  h.Train(next, Harness::B(0));
  EXPECT_EQ(h->Describe().rows_trained, 4u);
}

}  // namespace
}  // namespace ballast::sim
