// Epochs, checkpoints, and what a restart is given.
#include <gtest/gtest.h>

#include "core/status.h"
#include "tests/sim/harness.h"

namespace ballast::sim {
namespace {

// ---- epochs
// ------------------------------------------------------------------------------------------------------------------------------
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

TEST(Epochs, ACheckpointThatBeganBeforeTheLastBatchDoesNotCoverIt) {
  Harness h;
  h.Ready();
  h.auto_checkpoint = false;
  const SessionId w = h.Open();
  h.Train(w, kB0);
  h.Checkpoint();
  h.Train(w, kB1);
  h.Commit(1, {{0, 2, 8}});
  const auto finish = [&](uint64_t version) {
    for (uint32_t s = 0; s < 2; ++s) h->OnCheckpointed(s, version, ShardDigest{s, 7, 1, 0}, 5000, h.now());
    h.Pump();
  };
  finish(2);
  EXPECT_FALSE(h.epochs[1].committed);
  finish(3);
  EXPECT_TRUE(h.epochs[1].committed);
  EXPECT_EQ(h.epochs[1].report.manifest_version, 3u);
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

TEST(Epochs, BatchesLargerThanTheRunsAreRefused) {
  Harness h;
  h.Ready();
  h.Commit(1, {});
  const Reply larger = h.Begin(2, 4, 5);
  EXPECT_EQ(ReasonOf(larger.status), "EPOCH_LAYOUT_DIFFERS");
  EXPECT_NE(larger.status.message().find("at most 4 rows"), absl::string_view::npos);
  EXPECT_TRUE(h.Begin(2).status.ok());
}

TEST(Epochs, ReportOfMissingBatchesIsOneMessage) {
  Harness h;
  h.Ready();
  h.Commit(1, {});
  ASSERT_TRUE(h.Begin(2, 200).status.ok());
  std::vector<Coordinator::PartitionCount> counts;
  for (uint32_t p = 0; p < 200; ++p) counts.push_back({p, ~uint64_t{0}, 1});
  const EpochReport report = std::get<EpochReport>(h.Commit(2, counts).value);
  EXPECT_FALSE(report.committed);
  size_t listed = 0;
  for (const MissingBatches& m : report.missing) listed += m.seqs.size();
  EXPECT_EQ(listed, 100000u);
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

// ---- checkpoints
// -------------------------------------------------------------------------------------------------------------------------
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

TEST(Checkpoints, AManifestNeedsTheDigestOfEveryServer) {
  Harness h;
  h.Ready();
  h.auto_checkpoint = false;
  h.Checkpoint();
  h->OnCheckpointed(0, 1, ShardDigest{0, 7, 1, 0}, 5000, h.now());
  h.Pump();
  EXPECT_TRUE(h.manifests.empty());
  h->OnCheckpointed(1, 1, ShardDigest{1, 7, 1, 0}, 5000, h.now());
  h.Pump();
  EXPECT_EQ(h.manifests.size(), 1u);
}

// Servers report again what they finished in an earlier life: digests of this version can be there before its new cut is on disk.
TEST(Checkpoints, AManifestWaitsForItsCutOnDisk) {
  Harness h;
  h.Ready();
  h.auto_checkpoint = h.auto_durable = false;
  h.Checkpoint();
  for (uint32_t s = 0; s < 2; ++s) h->OnCheckpointed(s, 1, ShardDigest{s, 7, 1, 0}, 5000, h.now());
  h.Pump();
  EXPECT_TRUE(h.manifests.empty());
  h.MakeDurable();
  EXPECT_EQ(h.manifests.size(), 1u);
}

TEST(Checkpoints, TheLogIsCutBelowTheSecondNewestManifest) {
  Harness h;
  h.Ready();
  const SessionId w = h.Open();
  h.Checkpoint();
  const uint64_t first_cut = h.last().index;
  h.Train(w, kB0);
  h.Checkpoint();
  EXPECT_EQ(std::get<ManifestCommitted>(h.to_shard.back().second).log_needed_from, first_cut + 1);
}

TEST(Checkpoints, NothingOfAManifestIsAcknowledgedBeforeEveryServerWasHeard) {
  Harness h;
  h.Ready();
  h.Train(h.Open(), kB0);
  h.Checkpoint();
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

TEST(Checkpoints, AnIntervalBeyondAllVersionsMeansNever) {
  RunSpec spec = Harness::Spec();
  spec.checkpoint_versions = ~uint64_t{0};
  Harness h(spec);
  h.Ready();
  h.Checkpoint();
  h.Train(h.Open(), kB0);
  EXPECT_EQ(h.last().kind, DecisionKind::kStep);
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
