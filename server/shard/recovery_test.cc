// A restart ends in the same bits, or refuses.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "server/shard/shard_testing.h"
#include "server/storage/segment_log.h"
#include "server/storage/segment_reader.h"

namespace ballast::testing {
namespace {

namespace fs = std::filesystem;

void FlipBit(const std::string& path, uint64_t at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(at));
  const char c = static_cast<char>(file.get() ^ 4);
  file.seekp(static_cast<std::streamoff>(at));
  file.put(c);
}

class RecoveryTest : public ::testing::TestWithParam<OptimizerKind> {};

TEST_P(RecoveryTest, SameBitsAfterARestartAtEveryDecision) {
  for (uint32_t shard : {0u, 1u}) {
    TestShard t(TestSpec(GetParam()), shard, 2);
    t.options.retain_all = true;
    ASSERT_TRUE(t.Open().ok());
    for (int i = 0; i < 20; ++i) {
      ASSERT_NO_FATAL_FAILURE(t.Train(1));
      const ShardPosition before = t.shard->Position();
      t.Close();
      const absl::Status reopened = t.Open();
      ASSERT_TRUE(reopened.ok()) << reopened;
      const ShardPosition after = t.shard->Position();
      EXPECT_EQ(after.index, before.index);
      EXPECT_EQ(after.version, before.version);
      EXPECT_EQ(after.chain, before.chain);
      EXPECT_EQ(after.incarnation, before.incarnation + 1);
      ASSERT_EQ(t.Hash(), t.hash_at[after.index]) << "decision " << after.index;
    }
  }
}

TEST_P(RecoveryTest, OneShardsLogReplaysAlone) {
  for (uint32_t shard : {0u, 1u}) {
    TestShard t(TestSpec(GetParam()), shard, 2);
    t.options.retain_all = true;
    t.options.segment_bytes = 128u << 10;
    ASSERT_TRUE(t.Open().ok());
    ASSERT_NO_FATAL_FAILURE(t.Train(50));  // passes three hash roots
    const ShardPosition live = t.shard->Position();
    const uint64_t hash = t.Hash();
    t.Close();
    const auto replayed = ReplayShardLog(t.options.dir);
    ASSERT_TRUE(replayed.ok()) << replayed.status();
    EXPECT_EQ(replayed->run, "r");
    EXPECT_EQ(replayed->shard, shard);
    EXPECT_EQ(replayed->index, live.index);
    EXPECT_EQ(replayed->version, live.version);
    EXPECT_EQ(replayed->hash, hash);
  }
}

INSTANTIATE_TEST_SUITE_P(Optimizers, RecoveryTest, ::testing::Values(OptimizerKind::kSgd, OptimizerKind::kAdam, OptimizerKind::kAdamW));

TEST(RecoveryTest, RestartedShardReplaysWhatItMissed) {
  TestShard t(TestSpec(), 1, 2);
  ASSERT_TRUE(t.Open().ok());
  ASSERT_NO_FATAL_FAILURE(t.Train(3));
  const Uid uid{1, t.next_counter};
  EXPECT_EQ(t.PushSeeded(uid, 9).error, "");
  t.Close();  // its receipt was given: the step is decided while the shard is away
  const Decision missed = t.Make(DecisionKind::kStep, {uid});
  ASSERT_TRUE(t.Open().ok());
  EXPECT_EQ(t.shard->Position().undecided, (std::vector<Uid>{uid}));
  EXPECT_EQ(t.PushSeeded(uid, 9).error, "");  // and the receipt again, of this incarnation
  ASSERT_TRUE(t.Decide(missed));
  EXPECT_EQ(t.shard->Position().index, missed.index);
  EXPECT_TRUE(t.shard->Position().undecided.empty());
}

TEST(RecoveryTest, DecisionsOfTheLogAreReadBack) {
  TestShard t(TestSpec());
  ASSERT_TRUE(t.Open().ok());
  ASSERT_NO_FATAL_FAILURE(t.Train(100));  // more than are kept in memory
  const auto live = t.shard->ReadDecisions(1, UINT64_MAX);
  ASSERT_TRUE(live.ok()) << live.status();
  ASSERT_EQ(live->size(), 101u);
  t.Close();
  ASSERT_TRUE(t.Open().ok());
  const auto again = t.shard->ReadDecisions(1, UINT64_MAX);
  ASSERT_TRUE(again.ok()) << again.status();
  ASSERT_EQ(again->size(), live->size());
  for (size_t i = 0; i < live->size(); ++i) EXPECT_EQ(*(*live)[i], *(*again)[i]);
  EXPECT_EQ((*t.shard->ReadDecisions(7, 9))[2]->index, 9u);
}

TEST(RecoveryTest, DurableDecisionWithoutItsContributionRefusesToStart) {
  TestShard t(TestSpec());
  ASSERT_TRUE(t.Open().ok());
  ASSERT_NO_FATAL_FAILURE(t.Train(2));
  const Decision d = t.Make(DecisionKind::kStep, {{1, 99}});
  t.shard->AppendDecision(std::make_shared<const Decision>(d));
  ASSERT_TRUE(t.events.Wait(&RecordedEvents::durable, d.index));
  t.Close();
  const absl::Status refused = t.Open();
  EXPECT_EQ(refused.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(refused.message().find("counter 99"), std::string::npos) << refused;
  EXPECT_NE(refused.message().find("segment"), std::string::npos) << refused;
}

TEST(RecoveryTest, DamagedLogRefusesToStartAndNamesThePlace) {
  TestShard t(TestSpec());
  ASSERT_TRUE(t.Open().ok());
  ASSERT_NO_FATAL_FAILURE(t.Train(10));
  t.Close();
  FlipBit(SegmentPath(t.options.dir, 1), 60000);
  const absl::Status refused = t.Open();
  EXPECT_EQ(refused.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(refused.message().find("00000001.log at byte"), std::string::npos) << refused;
}

TEST(RecoveryTest, DifferentBitsThanTrainedAreNoticed) {
  TestShard t(TestSpec());
  ASSERT_TRUE(t.Open().ok());
  ASSERT_NO_FATAL_FAILURE(t.Train(18));
  t.Close();
  {  // a log whose root says something else: the same records, one root changed, chained anew
    const std::string copy = t.options.dir + "-copy";
    fs::create_directory(copy);
    std::unique_ptr<SegmentLog> log;
    const auto end = ReadLog(t.options.dir, false, [&](const RecordHeader& header, const LogPosition&, absl::string_view body) {
      if (log == nullptr) {
        SegmentLogOptions options;
        options.dir = copy;
        options.run_record = std::string(body);
        log = *SegmentLog::Open(options, {});
      }
      if (header.kind == RecordKind::kRun) return absl::OkStatus();
      std::string changed(body);
      if (header.kind == RecordKind::kHashRoot) {
        HashRoot root = *ParseHashRoot(body);
        root.root ^= 1;
        changed = EncodeHashRoot(root);
      }
      const absl::string_view piece = changed;
      return log->Append(header.kind, absl::MakeConstSpan(&piece, 1), nullptr).status();
    });
    ASSERT_TRUE(end.ok()) << end.status();
    log.reset();
    t.options.dir = copy;
  }
  const absl::Status refused = t.Open();
  EXPECT_EQ(refused.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(refused.message().find("differs from what was trained"), std::string::npos) << refused;
}

TEST(RecoveryTest, VanishedLogRefusesToStart) {
  TestShard t(TestSpec());
  ASSERT_TRUE(t.Open().ok());
  ASSERT_NO_FATAL_FAILURE(t.Train(2));
  t.Close();
  fs::remove_all(t.options.dir);
  EXPECT_EQ(t.Open().code(), absl::StatusCode::kDataLoss);
  ASSERT_TRUE(DeleteShardRecords(*t.store, "r").ok());  // but a run that was deleted may begin anew
  EXPECT_TRUE(t.Open().ok());
}

TEST(RecoveryTest, LogOfAnotherShardOrRunIsRefused) {
  TestShard t(TestSpec(), 0, 2);
  ASSERT_TRUE(t.Open().ok());
  t.Close();
  TestShard other(TestSpec(), 1, 2);
  other.options.dir = t.options.dir;
  EXPECT_EQ(other.Open().code(), absl::StatusCode::kFailedPrecondition);
  RunSpec changed = TestSpec();
  changed.optimizer.lr = 0.5;
  TestShard another(changed, 0, 2);
  another.options.dir = t.options.dir;
  EXPECT_EQ(another.Open().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(RecoveryTest, DiskBelowTheReserveIsReported) {
  TestShard t(TestSpec());
  t.options.disk_reserve_bytes = uint64_t{1} << 60;
  ASSERT_TRUE(t.Open().ok());
  {
    absl::MutexLock lock(&t.events.mu);
    const auto said = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(t.events.mu) { return !t.events.disk.empty(); };
    t.events.mu.Await(absl::Condition(&said));
  }
  t.shard->ReportAgain();  // a coordinator that connects later must hear of it too
  t.Close();
  absl::MutexLock lock(&t.events.mu);
  EXPECT_EQ(t.events.disk, (std::vector<bool>{true, true}));
}

}  // namespace
}  // namespace ballast::testing
