// Checkpoints while steps go on: the cut is exact, a slow disk delays blocks and never the cut, and the log reaches back far enough.
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/synchronization/mutex.h"
#include "core/record/chunk.h"
#include "server/shard/shard_testing.h"
#include "server/storage/segment_reader.h"

namespace ballast::testing {
namespace {

// A store whose checkpoint blocks wait for a gate.
class GatedStore : public MemoryStore {
 public:
  absl::StatusOr<std::unique_ptr<Bulk>> NewBulk() override {
    absl::StatusOr<std::unique_ptr<Bulk>> bulk = MemoryStore::NewBulk();
    if (!bulk.ok()) return bulk;
    return std::unique_ptr<Bulk>(new GatedBulk(this, *std::move(bulk)));
  }
  void SetOpen(bool open) {
    absl::MutexLock lock(&mu_);
    open_ = open;
  }
  void WaitForWaiter() {
    absl::MutexLock lock(&mu_);
    mu_.Await(absl::Condition(&waiting_));
  }

 private:
  class GatedBulk : public Bulk {
   public:
    GatedBulk(GatedStore* store, std::unique_ptr<Bulk> bulk) : store_(store), bulk_(std::move(bulk)) {}
    absl::Status Add(absl::string_view key, absl::string_view value) override {
      {
        absl::MutexLock lock(&store_->mu_);
        store_->waiting_ = true;
        store_->mu_.Await(absl::Condition(&store_->open_));
        store_->waiting_ = false;
      }
      return bulk_->Add(key, value);
    }
    absl::Status Finish() override { return bulk_->Finish(); }

   private:
    GatedStore* const store_;
    const std::unique_ptr<Bulk> bulk_;
  };
  absl::Mutex mu_;
  bool open_ ABSL_GUARDED_BY(mu_) = true;
  bool waiting_ ABSL_GUARDED_BY(mu_) = false;
};

// Takes a checkpoint of the current version and commits its manifest.
uint64_t Checkpoint(TestShard& t, std::vector<uint64_t> kept, uint64_t log_needed_from) {
  EXPECT_TRUE(t.Decide(DecisionKind::kCheckpoint, {}));
  const uint64_t version = t.shard->Position().version;
  EXPECT_EQ(t.events.WaitCheckpointed(version).digest, t.Hash());
  kept.push_back(version);
  t.shard->OnManifestCommitted({version, kept, log_needed_from});
  return version;
}

TEST(CheckpointTest, CheckpointIsAnExactCut) {
  TestShard t(TestSpec());
  auto* store = new GatedStore;
  t.store.reset(store);
  ASSERT_TRUE(t.Open().ok());
  ASSERT_NO_FATAL_FAILURE(t.Train(5));
  store->SetOpen(false);
  const uint64_t cut = t.Hash();
  ASSERT_TRUE(t.Decide(DecisionKind::kCheckpoint, {}));
  const uint64_t version = t.shard->Position().version;
  ASSERT_NO_FATAL_FAILURE(t.Train(5));  // steps go on, nothing of the checkpoint is written yet
  EXPECT_NE(t.Hash(), cut);
  store->SetOpen(true);
  const ShardDigest digest = t.events.WaitCheckpointed(version);
  EXPECT_EQ(digest.digest, cut);
  EXPECT_EQ(digest.nonfinite, 0u);
  const uint64_t end = t.Hash();
  t.Close();
  ASSERT_TRUE(t.Open().ok());
  EXPECT_EQ(t.Hash(), end);
}

TEST(CheckpointTest, FullRingDelaysTheBlockNotTheCut) {
  TestShard t(TestSpec());
  auto* store = new GatedStore;
  t.store.reset(store);
  t.options.ring_bytes_max = 1;  // one block at a time
  ASSERT_TRUE(t.Open().ok());
  ASSERT_NO_FATAL_FAILURE(t.Train(3));
  const uint64_t cut = t.Hash();
  store->SetOpen(false);
  ASSERT_TRUE(t.Decide(DecisionKind::kCheckpoint, {}));
  const uint64_t version = t.shard->Position().version;
  const Uid uid{1, t.next_counter};
  ASSERT_EQ(t.PushSeeded(uid, 3).error, "");
  auto step = std::make_shared<const Decision>(t.Make(DecisionKind::kStep, {uid}));
  t.shard->AppendDecision(step);
  t.shard->Deliver(step);
  ASSERT_TRUE(t.events.Wait(&RecordedEvents::accepted, step->index));
  store->WaitForWaiter();
  // Seven owed blocks, room for one, nothing leaves the ring: the step cannot be through, however long we wait.
  EXPECT_FALSE(t.events.Has(&RecordedEvents::applied, step->index));
  store->SetOpen(true);
  ASSERT_TRUE(t.events.Wait(&RecordedEvents::applied, step->index));
  EXPECT_EQ(t.events.WaitCheckpointed(version).digest, cut);
}

TEST(CheckpointTest, LogIsCutButTwoCheckpointsCanStillBeStartedFrom) {
  TestShard t(TestSpec());
  t.options.segment_bytes = 128u << 10;
  ASSERT_TRUE(t.Open().ok());
  std::vector<uint64_t> kept;
  std::vector<uint64_t> indices;
  for (int i = 0; i < 6; ++i) {
    ASSERT_NO_FATAL_FAILURE(t.Train(12));
    if (kept.size() == 2) kept.erase(kept.begin());
    const uint64_t needed = indices.size() < 1 ? 1 : indices.back() + 1;
    kept.push_back(Checkpoint(t, kept, needed));
    indices.push_back(t.shard->Position().index);
  }
  ASSERT_NO_FATAL_FAILURE(t.Train(3));
  const uint64_t end = t.Hash();
  t.Close();
  EXPECT_GT(ListSegments(t.options.dir)->front(), 1u);
  int metas = 0;
  ASSERT_TRUE(t.store->Scan("ckpt/r/meta/", [&](absl::string_view, absl::string_view) { return ++metas, true; }).ok());
  EXPECT_EQ(metas, 2);  // of six

  ASSERT_TRUE(t.Open().ok());
  EXPECT_EQ(t.Hash(), end);
  t.Close();

  // The newest one rots: the one before it and more log give the same bits.
  std::string victim;
  ASSERT_TRUE(t.store->Scan("ckpt/r/0", [&](absl::string_view key, absl::string_view) { return victim = std::string(key), true; }).ok());
  std::string value = *t.store->Get(victim);
  value[value.size() / 2] ^= 8;
  ASSERT_TRUE(t.store->Put(victim, value).ok());
  absl::Status reopened = t.Open();
  ASSERT_TRUE(reopened.ok()) << reopened;
  EXPECT_EQ(t.Hash(), end);
  t.events.WaitCheckpointed(kept.back());  // and it is made again from the same cut
  t.Close();
  ASSERT_TRUE(t.Open().ok());
  EXPECT_EQ(t.Hash(), end);
  t.Close();

  // All rot: the log does not reach back to the beginning any more, and nothing is started from less.
  ASSERT_TRUE(t.store->DeletePrefix("ckpt/r/0").ok());
  reopened = t.Open();
  EXPECT_EQ(reopened.code(), absl::StatusCode::kDataLoss) << reopened;
}

TEST(CheckpointTest, ReplayDebtGrowsWithEachStepAndIsPaidByTheManifest) {
  TestShard t(TestSpec());
  ASSERT_TRUE(t.Open().ok());
  const double empty = t.shard->Debt().seconds;
  ASSERT_NO_FATAL_FAILURE(t.Train(20));
  const double before = t.shard->Debt().seconds;
  EXPECT_GT(before, empty);
  Checkpoint(t, {}, 1);
  t.shard->Position();  // behind the manifest
  const double after = t.shard->Debt().seconds;
  EXPECT_LT(after, before) << "nothing is applied again, the log is only read";
  ASSERT_NO_FATAL_FAILURE(t.Train(5));
  EXPECT_GT(t.shard->Debt().seconds, after);
}

TEST(CheckpointTest, LogThatEndsBeforeACheckpointRefusesToStart) {
  TestShard t(TestSpec());
  ASSERT_TRUE(t.Open().ok());
  ASSERT_NO_FATAL_FAILURE(t.Train(5));
  t.Close();
  const std::string saved = t.options.dir + "-old";
  std::filesystem::copy(t.options.dir, saved);
  ASSERT_TRUE(t.Open().ok());
  ASSERT_NO_FATAL_FAILURE(t.Train(5));
  Checkpoint(t, {}, 1);
  t.Close();
  t.options.dir = saved;  // a volume from an old snapshot
  const absl::Status refused = t.Open();
  EXPECT_EQ(refused.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(refused.message().find("ends at decision 6"), std::string::npos) << refused;
}

TEST(CheckpointTest, CheckpointThatACrashCutShortIsMadeAgain) {
  TestShard t(TestSpec());
  auto* store = new GatedStore;
  t.store.reset(store);
  ASSERT_TRUE(t.Open().ok());
  ASSERT_NO_FATAL_FAILURE(t.Train(2));
  const uint64_t cut = t.Hash();
  const Decision d = t.Make(DecisionKind::kCheckpoint, {});
  t.shard->AppendDecision(std::make_shared<const Decision>(d));  // durable, then the server dies before it is carried out
  ASSERT_TRUE(t.events.Wait(&RecordedEvents::durable, d.index));
  t.Close();
  ASSERT_TRUE(t.Open().ok());
  EXPECT_EQ(t.events.WaitCheckpointed(d.version).digest, cut);
}

TEST(CheckpointTest, ReportAgainRepeatsWhatACoordinatorMissed) {
  TestShard t(TestSpec());
  ASSERT_TRUE(t.Open().ok());
  ASSERT_NO_FATAL_FAILURE(t.Train(2));
  const uint64_t version = Checkpoint(t, {}, 1);
  const Uid uid{1, t.next_counter};
  ASSERT_EQ(t.PushSeeded(uid, 3).error, "");
  t.Close();
  {
    absl::MutexLock lock(&t.events.mu);
    t.events.checkpoints.clear();
    t.events.own_log.clear();
  }
  ASSERT_TRUE(t.Open().ok());
  t.shard->ReportAgain();
  t.events.WaitCheckpointed(version);
  t.Hash();
  absl::MutexLock lock(&t.events.mu);
  EXPECT_TRUE(t.events.own_log.contains(uid));
}

TEST(CheckpointTest, CheckpointIsReadBackWithSlots) {
  TestShard t(TestSpec(OptimizerKind::kAdam));
  ASSERT_TRUE(t.Open().ok());
  ASSERT_NO_FATAL_FAILURE(t.Train(3));
  const std::vector<float> w = t.Floats(0);
  const uint64_t version = Checkpoint(t, {}, 1);
  ASSERT_NO_FATAL_FAILURE(t.Train(1));
  EXPECT_EQ(t.shard->ReadCheckpoint(version + 1, false, {}).status().code(), absl::StatusCode::kNotFound);
  const std::vector<uint32_t> only_w = {0};
  const auto read = t.shard->ReadCheckpoint(version, true, only_w);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ((*read)->version, version);
  std::map<uint32_t, std::string> tensors;
  for (const Encoding::Piece& piece : (*read)->pieces) {
    const std::string message = EncodeChunkHead({}, piece.head_blocks, piece.payload.size()) + piece.payload;
    const ChunkView view = *ParseChunk(message);
    EXPECT_TRUE(VerifyChecksums(view.head, view.payload).ok());
    const auto bytes = SplitPayload(view.head, view.payload);
    for (size_t i = 0; i < bytes.size(); ++i) tensors[view.head.blocks[i].tensor] += std::string(bytes[i]);
  }
  ASSERT_EQ(tensors.size(), 3u);  // w, m, v
  EXPECT_EQ(tensors[0], std::string(reinterpret_cast<const char*>(w.data()), w.size() * sizeof(float)));
  EXPECT_EQ(tensors[7].size(), tensors[0].size());
  EXPECT_EQ(tensors[14].size(), tensors[0].size());
}

}  // namespace
}  // namespace ballast::testing
