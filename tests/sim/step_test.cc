// When a step closes, what it holds and what it is made of.
#include <gtest/gtest.h>

#include "tests/sim/harness.h"

namespace ballast::sim {
namespace {

// ---- liveness
// ----------------------------------------------------------------------------------------------------------------------------
TEST(Protocol, AccumulationNeverOutwaitsTheWindow) {
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

TEST(Protocol, ClaimsBeforeTheFirstStatusAreNotFlushedOneByOne) {
  Harness h;
  h.Ready();
  const SessionId w = h->OpenSession("worker", 0, h.now()).value().session;
  h.Claim(w, kB0);
  EXPECT_TRUE(h.Take<Flush>(w).empty());
  h.Claim(w, kB1);
  EXPECT_EQ(h.Take<Flush>(w).size(), 1u);  // full
}

TEST(Protocol, TwinDoesNotHoldTheStep) {
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

TEST(Protocol, StepHoldsTheNextRowsWhereverTheyAreComputed) {
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

TEST(Protocol, ALongQueueDoesNotTakeTheWholeStep) {
  Harness h;
  h.Ready();
  const SessionId w0 = h.Open(), w1 = h.Open();
  h.Blocked(w0, false);
  h.Claim(w0, kB0);
  h.Claim(w0, kB1);  // fills the step; what follows waits for the next one
  h.Claim(w0, kB2);
  h.Claim(w0, kB3);
  h.Claim(w1, kB4);
  EXPECT_EQ(h.Granted(w0), 2u);
  h.Submit(w0, {kB0, kB1});
  EXPECT_EQ(h.Granted(w0), 1u);
  EXPECT_EQ(h.Granted(w1), 1u);
}

TEST(Protocol, FullQuotaRefusesSessionsNeverBlocks) {
  Harness h(Harness::Async(kStalenessUnbounded));
  h.Ready();
  const SessionId w = h.Open();
  for (uint64_t seq = 0; seq < 4; ++seq) h.Claim(w, Harness::B(seq));
  EXPECT_EQ(h.Granted(w), 2u) << "contributions that may be under way";
  while (h->Describe().sessions < 4096) h.Open();
  const absl::StatusOr<Coordinator::Opened> refused = h->OpenSession("worker", 0, h.now());
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
}

TEST(Protocol, ALoneSessionFillsTheStepWithTwoContributions) {
  RunSpec spec = Harness::Spec();
  spec.contribution_rows = 4;
  Harness h(spec);
  h.Ready();
  const SessionId w = h.Open();
  h.Blocked(w, false);
  h.Train(w, kB0);
  EXPECT_EQ(h->Describe().steps, 0u);
  h.Train(w, kB1);
  EXPECT_EQ(h->Describe().steps, 1u);
  EXPECT_EQ(h.last().divisor, 8.0f);
}

TEST(Protocol, LingerEndsTheWaitForASlowSource) {
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

TEST(Protocol, ASourceThatPausesDoesNotCostTheLease) {
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

// ---- what the gradient means
// -------------------------------------------------------------------------------------------------------------
TEST(Protocol, TailBatchWeighsOnlyItsRows) {
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

TEST(Protocol, StalenessNeverExceedsTheBound) {
  Harness h(Harness::Async(1));
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

TEST(Protocol, PipelinedStepsComputeOneVersionBehind) {
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

TEST(Protocol, IdleSessionNeverHoldsTheClock) {
  Harness h(Harness::Async(0));
  h.Ready();
  h.Open();
  const SessionId w = h.Open();
  for (uint64_t seq = 0; seq < 5; ++seq) h.Train(w, Harness::B(seq));
  EXPECT_EQ(h->Describe().version, 6u);
}

TEST(Protocol, CheckpointDoesNotAgeAGrant) {
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

TEST(Protocol, GroupCommitMergesSyncsNotSteps) {
  Harness h(Harness::Async(kStalenessUnbounded));
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

TEST(Protocol, SumFollowsTheOrderOfTheDecision) {
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

TEST(Protocol, ReplayTakesTheClipScaleFromTheLog) {
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

// ---- limits
// ------------------------------------------------------------------------------------------------------------------------------
TEST(Protocol, DecisionsWaitForTheSlowestShard) {
  Harness h(Harness::Async(kStalenessUnbounded));
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

// The decision that lists the batches of a step is one message.
TEST(Protocol, StepHoldsABoundedNumberOfBatches) {
  for (const uint64_t step_rows : {uint64_t{1} << 20, uint64_t{0}}) {
    RunSpec spec = Harness::Async(1);
    spec.step_rows = step_rows;
    spec.contribution_rows = uint64_t{1} << 20;
    Harness h(spec);
    h.Ready();
    const SessionId w = h.Open();
    h.Blocked(w, false);
    std::vector<Batch> batches;
    for (uint64_t seq = 0; seq < kStepBatchesMax; ++seq) h.Claim(w, batches.emplace_back(Harness::B(seq, 0, 1)));
    h.Claim(w, Harness::B(kStepBatchesMax, 0, 1));
    const std::vector<Grant> grants = h.Take<Grant>(w);
    ASSERT_EQ(grants.size(), batches.size() + 1);
    EXPECT_EQ(grants[batches.size() - 1].step, grants[0].step);
    EXPECT_NE(grants[batches.size()].step, grants[0].step);
    ASSERT_EQ(h.Take<Flush>(w).size(), 1u);
    h.Submit(w, batches);
    EXPECT_EQ(h->Describe().steps, 1u);
  }
}

TEST(Protocol, InitialWeightsAreSetOnce) {
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

}  // namespace
}  // namespace ballast::sim
