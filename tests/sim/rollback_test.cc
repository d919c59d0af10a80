// A run goes back to a manifest: what is undone, what is fenced, and a crash at every instant of it.
#include <gtest/gtest.h>

#include "core/status.h"
#include "tests/sim/harness.h"

namespace ballast::sim {
namespace {

Batch InEpoch(uint32_t epoch, uint64_t seq) {
  Batch b = Harness::B(seq);
  b.id.epoch = epoch;
  return b;
}

std::vector<uint32_t> Committed(Harness& h) {
  std::vector<uint32_t> committed;
  for (const EpochReport& e : h->Describe().epochs) {
    if (e.committed) committed.push_back(e.epoch);
  }
  return committed;
}

const EpochReport& ReportOf(const Reply& reply) { return std::get<EpochReport>(reply.value); }

// Version 3: b0 and b1 trained. Versions 4 and 5: b2 and b3.
Harness& TrainFour(Harness& h, SessionId w) {
  h.Train(w, kB0);
  h.Train(w, kB1);
  h.Checkpoint();
  h.Train(w, kB2);
  h.Train(w, kB3);
  return h;
}

TEST(Protocol, LedgerRollsBackWithTheWeights) {
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  TrainFour(h, w);
  ASSERT_EQ(h->Describe().version, 5u);
  const Reply reply = h.Rollback(3);
  ASSERT_TRUE(reply.status.ok()) << reply.status;
  EXPECT_EQ(std::get<Manifest>(reply.value).version, 6u);
  EXPECT_EQ(std::get<Manifest>(reply.value).rolled_back_to, 3u);
  const RunStatus now = h->Describe();
  EXPECT_EQ(now.generation, 2u);
  EXPECT_EQ(now.version, 6u);  // versions are never given twice
  EXPECT_EQ(now.steps, 2u);    // but what counts steps goes on from the manifest: Adam's t, the schedule
  EXPECT_EQ(now.rows_trained, 8u);
  const Decision& rollback = *h.decisions()[h.decisions().size() - 2];
  EXPECT_EQ(rollback.kind, DecisionKind::kRollback);
  EXPECT_EQ(rollback.rollback_version, 3u);
  EXPECT_EQ(rollback.generation, 2u);
  EXPECT_EQ(rollback.step, 2u);
  EXPECT_GT(rollback.sessions_closed_below, w);

  const Reply missing = h.Commit(1, {{0, 4, 16}});
  ASSERT_EQ(ReportOf(missing).missing.size(), 1u);
  EXPECT_EQ(ReportOf(missing).missing[0].seqs, (std::vector<uint64_t>{2, 3}));
  const SessionId again = h.Open();
  h.Claim(again, kB0);
  EXPECT_EQ(h.Take<Done>(again).size(), 1u);
  h.Train(again, kB2);
  EXPECT_EQ(h.last().step, 3u);
  h.Train(again, kB3);
  const Reply committed = h.Commit(1, {{0, 4, 16}});
  EXPECT_TRUE(ReportOf(committed).committed);
  EXPECT_EQ(ReportOf(committed).rows_trained, 16u);
}

// Servers drop a checkpoint when they hear of a newer manifest; the old manifest's record may outlive a crash of server 0.
TEST(Protocol, RollbackGoesOnlyToWhatEveryServerKeeps) {
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  h.Checkpoint();
  h.Train(w, kB0);
  h.Checkpoint();
  h.Train(w, kB1);
  h.Checkpoint();
  ASSERT_EQ(h.manifests.size(), 3u);  // no record was deleted
  h.RestartCoordinator();
  h.Position(0);
  h.Position(1);
  EXPECT_EQ(ReasonOf(h.Rollback(1).status), "NO_MANIFEST");
  EXPECT_TRUE(h.Rollback(2).status.ok());
}

TEST(Protocol, ContributionOfTheOldGenerationNeverCounts) {
  Harness h;
  h.Ready();
  const SessionId w = h.Open(), other = h.Open();
  h.Checkpoint();
  h.Claim(other, kB1);  // holds the step open
  h.Claim(w, kB0);
  const Uid uid = h.Submit(w, {kB0});
  h.Claim(w, kB2);
  ASSERT_TRUE(h.Rollback(1).status.ok());
  ASSERT_EQ(h.Take<CloseSession>(w).size(), 1u);
  EXPECT_EQ(h.Take<CloseSession>(other).size(), 1u);
  h.Submit(other, {kB1});
  h.Submit(w, uid, {kB0});
  EXPECT_EQ(h->Describe().rows_trained, 0u);
  EXPECT_EQ(h->Describe().steps, 0u);
  const SessionId again = h.Open(w);  // it cannot be resumed either
  EXPECT_GT(again, other);
  h.Claim(again, kB0);
  EXPECT_EQ(h.Granted(again), 1u);
  h.RestartCoordinator();
  h.Position(0, {uid});
  h.Position(1, {uid});
  EXPECT_NE(h.Open(w), w);
}

// A crash between two of these writes must leave no gap: recovery would go on with the later epoch and never feed the earlier one.
TEST(Protocol, ARollbackForgetsTheLastEpochFirst) {
  Harness h;
  h.Ready();
  h.Checkpoint();
  h.Train(h.Open(), kB0);
  ASSERT_TRUE(ReportOf(h.Commit(1, {{0, 1, 4}})).committed);
  ASSERT_TRUE(h.Begin(2).status.ok());
  ASSERT_TRUE(h.Rollback(1).status.ok());
  EXPECT_EQ(h.dropped_epochs, (std::vector<uint32_t>{2, 1}));
  EXPECT_TRUE(h.epochs.empty());
}

TEST(Protocol, NothingIsGrantedBeforeTheRollbackIsCovered) {
  Harness h;
  h.Ready();
  h.Checkpoint();
  h.Train(h.Open(), kB0);
  h.auto_checkpoint = false;
  EXPECT_TRUE(absl::IsUnavailable(h.Rollback(1).status));  // no answer yet
  const SessionId w = h.Open();
  h.Claim(w, kB0);
  EXPECT_EQ(h.Granted(w), 0u);
  EXPECT_TRUE(absl::IsUnavailable(h->OpenFeed(1, 0).status()));
  EXPECT_TRUE(absl::IsUnavailable(h.Commit(1, {{0, 1, 4}}).status));
  for (uint32_t s = 0; s < 2; ++s) h->OnCheckpointed(s, 3, ShardDigest{s, 7, 1, 0}, 5000, h.now());
  h.Pump();
  EXPECT_TRUE(h.replies.back().status.ok() || h.replies.size() > 1);
  EXPECT_EQ(h.Granted(w), 1u);
}

TEST(Protocol, CrashInARollbackEndsBeforeItOrAfterIt) {
  for (const bool durable : {false, true}) {
    Harness h;
    h.Ready();
    TrainFour(h, h.Open());
    h.auto_durable = h.auto_checkpoint = false;
    h.Rollback(3);
    if (durable) h.MakeDurable();
    h.auto_durable = h.auto_checkpoint = true;
    h.RestartCoordinator();
    h.Position(0);
    h.Position(1);
    const RunStatus now = h->Describe();
    EXPECT_EQ(now.generation, durable ? 2u : 1u);
    EXPECT_EQ(now.rows_trained, durable ? 8u : 16u);
    EXPECT_EQ(now.manifest_version, durable ? 6u : 3u);  // a restart ends what the crash cut short
    h.RestartCoordinator();                              // and the next one finds it
    EXPECT_EQ(h->Describe().rows_trained, durable ? 8u : 16u);
    EXPECT_EQ(h->Describe().generation, durable ? 2u : 1u);
  }
}

TEST(Protocol, EpochsAfterTheManifestAreUndone) {
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  h.Train(w, kB0);
  ASSERT_TRUE(ReportOf(h.Commit(1, {{0, 1, 4}})).committed);
  const uint64_t covers_first = h.manifests.back().version;
  h.Begin(2);
  h.Train(w, InEpoch(2, 0));
  ASSERT_TRUE(ReportOf(h.Commit(2, {{0, 1, 4}})).committed);
  h.Begin(3);
  h.Claim(w, InEpoch(3, 0));
  ASSERT_TRUE(h.Rollback(covers_first).status.ok());
  EXPECT_EQ(Committed(h), std::vector<uint32_t>{1});
  EXPECT_EQ(h.epochs.size(), 1u);
  EXPECT_EQ(h->Describe().rows_trained, 4u);
  // A feed of before must not wait for ever.
  const SessionId again = h.Open();
  h.Claim(again, InEpoch(3, 0));
  const std::vector<Done> done = h.Take<Done>(again);
  ASSERT_EQ(done.size(), 1u);
  EXPECT_TRUE(done[0].no_epoch);
  EXPECT_TRUE(absl::IsFailedPrecondition(h->OpenFeed(3, 0).status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(h.Begin(3).status));
  EXPECT_TRUE(h.Begin(2, 7).status.ok());  // not even its layout is left
  h.RestartCoordinator();
  EXPECT_EQ(Committed(h), std::vector<uint32_t>{1});
}

TEST(Protocol, EpochsAreUndoneOnlyWithTheDecision) {
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  h.Train(w, kB0);
  ASSERT_TRUE(ReportOf(h.Commit(1, {{0, 1, 4}})).committed);
  const uint64_t covers_first = h.manifests.back().version;
  h.Begin(2);
  h.Train(w, InEpoch(2, 0));
  ASSERT_TRUE(ReportOf(h.Commit(2, {{0, 1, 4}})).committed);
  h.auto_durable = false;
  h.Rollback(covers_first);
  h.auto_durable = true;
  h.RestartCoordinator();  // the decision was not on disk
  EXPECT_EQ(Committed(h), (std::vector<uint32_t>{1, 2}));
  EXPECT_EQ(h->Describe().rows_trained, 8u);
}

TEST(Protocol, EpochInTheMiddleOfTheManifestIsOpenAgain) {
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  h.Train(w, kB0);
  h.Checkpoint();
  h.Train(w, kB1);
  ASSERT_TRUE(ReportOf(h.Commit(1, {{0, 2, 8}})).committed);
  ASSERT_TRUE(h.Rollback(2).status.ok());
  EXPECT_TRUE(Committed(h).empty());
  const Reply commit = h.Commit(1, {{0, 2, 8}});
  ASSERT_FALSE(ReportOf(commit).missing.empty());
  EXPECT_EQ(ReportOf(commit).missing[0].seqs, std::vector<uint64_t>{1});
  h.RestartCoordinator();
  EXPECT_TRUE(Committed(h).empty());
}

TEST(Rollback, IsTheWayOutOfARunThatStoppedItself) {
  RunSpec spec = Harness::Spec();
  spec.skips_max = 2;
  Harness h(spec);
  h.Ready();
  h.Checkpoint();
  const SessionId w = h.Open();
  for (const Batch& b : {kB0, kB1}) {
    h.Claim(w, b);
    h->OnSkip(w, b, "NONFINITE", h.now());
    h.Pump();
  }
  ASSERT_EQ(h->Describe().state, RunStatus::State::kStopped);
  ASSERT_TRUE(h.Rollback(1).status.ok());
  EXPECT_EQ(h->Describe().state, RunStatus::State::kActive);
  EXPECT_EQ(h->Describe().rows_skipped, 0u);
  h.Train(h.Open(), kB0);
  EXPECT_EQ(h->Describe().rows_trained, 4u);
}

TEST(Rollback, RefusesWhatItCannotGoBackTo) {
  Harness h;
  h.Ready();
  h.nonfinite_versions = {2};
  h.Checkpoint();
  h.Train(h.Open(), kB0);
  h.Checkpoint();
  const Reply unhealthy = h.Rollback(2);
  EXPECT_TRUE(absl::IsFailedPrecondition(unhealthy.status)) << unhealthy.status;
  const Reply unknown = h.Rollback(7);
  EXPECT_TRUE(absl::IsNotFound(unknown.status));
  EXPECT_NE(unknown.status.message().find("it has 1, 2"), std::string::npos) << unknown.status;
  h->OnShardLost(1, h.now());
  EXPECT_TRUE(absl::IsUnavailable(h.Rollback(1).status));
  EXPECT_EQ(h->Describe().generation, 1u);
}

// A manifest on its way to the disk may have the version that is wanted, and more marks.
TEST(Rollback, WaitsForAManifestThatIsBeingCommitted) {
  Harness h;
  h.Ready();
  h.Checkpoint();
  const SessionId w = h.Open();
  h.Claim(w, kB0);
  h->OnSkip(w, kB0, "bad", h.now());
  h.Pump();
  h->RequestCheckpoint(50, h.now());  // version 1 again, now with b0 skipped
  std::vector<Output> held;
  for (Output& o : h->TakeOutputs()) {
    if (std::holds_alternative<AppendDecision>(o)) h->OnDecisionDurable(std::get<AppendDecision>(o).decision->index, h.now());
  }
  for (uint32_t s = 0; s < 2; ++s) h->OnCheckpointed(s, 1, ShardDigest{s, 7, 1, 0}, 5000, h.now());
  for (Output& o : h->TakeOutputs()) {
    if (std::holds_alternative<CommitManifest>(o)) held.push_back(std::move(o));
  }
  ASSERT_EQ(held.size(), 1u);
  h->Rollback(51, 1, h.now());
  EXPECT_EQ(h->Describe().generation, 1u);
  h->OnManifestDurable(1, h.now());
  EXPECT_EQ(h->Describe().generation, 2u);
  EXPECT_EQ(h->Describe().rows_skipped, 4u);  // of the newer one
}

// ---- durability: checkpoint

RunSpec Volatile() {
  RunSpec spec = Harness::Spec();
  spec.durability = Durability::kCheckpoint;
  return spec;
}

TEST(DurabilityCheckpoint, CrashOfAShardIsARollbackToTheNewestManifest) {
  Harness h(Volatile());
  h.Ready();
  const SessionId w = h.Open();
  TrainFour(h, w);
  ASSERT_EQ(h->Describe().rows_trained, 16u);
  h.RestartShard(1);
  EXPECT_EQ(h.Take<CloseSession>(w).size(), 1u);
  EXPECT_EQ(h->Describe().generation, 2u);
  EXPECT_EQ(h->Describe().rows_trained, 8u);
  const Reply commit = h.Commit(1, {{0, 4, 16}});
  ASSERT_FALSE(ReportOf(commit).missing.empty());
  EXPECT_EQ(ReportOf(commit).missing[0].seqs, (std::vector<uint64_t>{2, 3}));
  const SessionId again = h.Open();
  h.Train(again, kB2);
  h.Train(again, kB3);
  EXPECT_TRUE(ReportOf(h.Commit(1, {{0, 4, 16}})).committed);
  h.RestartShard(1);  // the commit is covered: nothing is lost any more
  EXPECT_EQ(h->Describe().generation, 2u);
  EXPECT_EQ(h->Describe().rows_trained, 16u);
}

TEST(DurabilityCheckpoint, CrashOfServer0IsARollbackToTheNewestManifest) {
  Harness h(Volatile());
  h.Ready();
  TrainFour(h, h.Open());
  h.RestartCoordinator();
  EXPECT_TRUE(absl::IsUnavailable(h->OpenSession("worker", 0, h.now()).status()));  // it would be closed at once
  h.Position(0);
  h.Position(1);
  EXPECT_EQ(h->Describe().generation, 2u);
  EXPECT_EQ(h->Describe().rows_trained, 8u);
  h.RestartCoordinator();  // nothing was decided since
  h.Position(0);
  h.Position(1);
  EXPECT_EQ(h->Describe().generation, 2u);
  EXPECT_EQ(h->Describe().rows_trained, 8u);
}

TEST(DurabilityCheckpoint, NothingIsGrantedBeforeThereIsAManifestToGoBackTo) {
  Harness h(Volatile());
  h.auto_checkpoint = false;
  h.Ready();
  const SessionId w = h.Open();
  h.Claim(w, kB0);
  EXPECT_EQ(h.Granted(w), 0u);
  for (uint32_t s = 0; s < 2; ++s) h->OnCheckpointed(s, 1, ShardDigest{s, 7, 1, 0}, 5000, h.now());
  h.Pump();
  EXPECT_EQ(h.Granted(w), 1u);
}

TEST(DurabilityCheckpoint, LostConnectionIsNoCrash) {
  Harness h(Volatile());
  h.Ready();
  TrainFour(h, h.Open());
  h->OnShardLost(1, h.now());
  h.Position(1);  // the same life
  EXPECT_EQ(h->Describe().generation, 1u);
  EXPECT_EQ(h->Describe().rows_trained, 16u);
}

}  // namespace
}  // namespace ballast::sim
