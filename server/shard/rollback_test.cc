// A ROLLBACK gives back the bits of its checkpoint: live, after a restart, and when only the log is left.
#include <gtest/gtest.h>

#include <string>

#include "server/shard/shard_testing.h"
#include "server/storage/segment_reader.h"

namespace ballast::testing {
namespace {

// Version 4 is a checkpoint; two steps follow it. Returns the hash of version 4.
uint64_t TrainBeyondACheckpoint(TestShard& t) {
  t.Train(3);
  EXPECT_TRUE(t.Decide(DecisionKind::kCheckpoint, {}));
  t.events.WaitCheckpointed(4);
  const uint64_t hash = t.Hash();
  t.Train(2);
  EXPECT_NE(t.Hash(), hash);
  return hash;
}

TEST(Rollback, BitsOfTheCheckpointLiveAfterARestartAndFromTheLogAlone) {
  for (uint32_t shard : {0u, 1u}) {
    TestShard t(TestSpec(), shard, 2);
    t.options.retain_all = true;
    ASSERT_TRUE(t.Open().ok());
    const uint64_t checkpoint = TrainBeyondACheckpoint(t);
    ASSERT_TRUE(t.Decide(t.MakeRollback(4, 3)));
    EXPECT_EQ(t.Hash(), checkpoint);
    EXPECT_EQ(t.shard->Position().version, 7u);
    t.Close();
    ASSERT_TRUE(t.Open().ok());  // no checkpoint after it: the log leads here again
    EXPECT_EQ(t.Hash(), checkpoint);
    ASSERT_NO_FATAL_FAILURE(t.Train(20));  // passes a hash root
    const uint64_t last = t.Hash();
    t.Close();
    const auto replayed = ReplayShardLog(t.options.dir);
    ASSERT_TRUE(replayed.ok()) << replayed.status();
    EXPECT_EQ(replayed->hash, last);
    ASSERT_TRUE(t.Open().ok());
    EXPECT_EQ(t.Hash(), last);
    ASSERT_TRUE(t.Decide(DecisionKind::kCheckpoint, {}));  // of the second generation
    t.events.WaitCheckpointed(27);
    t.Close();
    ASSERT_TRUE(t.Open().ok());
    EXPECT_EQ(t.Hash(), last);
    ASSERT_TRUE(t.Decide(t.MakeRollback(4, 3)));  // further back than the first one went on
    EXPECT_EQ(t.Hash(), checkpoint);
    t.Close();
    EXPECT_EQ(ReplayShardLog(t.options.dir)->hash, checkpoint);
  }
}

TEST(Rollback, DamagedCheckpointStopsTheServer) {
  TestShard t(TestSpec());
  ASSERT_TRUE(t.Open().ok());
  TrainBeyondACheckpoint(t);
  ASSERT_TRUE(t.store->DeletePrefix("ckpt/r/00000000000000000004/").ok());
  EXPECT_FALSE(t.Decide(t.MakeRollback(4, 3)));
  EXPECT_TRUE(absl::IsDataLoss(t.events.WaitFailed()));
}

TEST(Rollback, OfAnotherGenerationIsRefused) {
  TestShard t(TestSpec());
  ASSERT_TRUE(t.Open().ok());
  TrainBeyondACheckpoint(t);
  Decision d = t.MakeRollback(4, 3);
  d.generation += 1;
  TestShard::Reseal(t.shard->Position().chain, d);
  EXPECT_FALSE(t.Decide(d));
  EXPECT_TRUE(absl::IsDataLoss(t.events.WaitFailed()));
}

int LoggedContributions(const std::string& dir) {
  int n = 0;
  const auto end = ReadLog(dir, false, [&](const RecordHeader& header, const LogPosition&, absl::string_view) {
    n += header.kind == RecordKind::kContribution;
    return absl::OkStatus();
  });
  EXPECT_TRUE(end.ok()) << end.status();
  return n;
}

TEST(DurabilityCheckpoint, OnlyTheInitialWeightsAreLogged) {
  RunSpec spec = TestSpec();
  spec.durability = Durability::kCheckpoint;
  for (uint32_t shard : {0u, 1u}) {
    TestShard t(spec, shard, 2);
    ASSERT_TRUE(t.Open().ok());
    ASSERT_NO_FATAL_FAILURE(t.Train(0));
    const uint64_t initial = t.Hash();
    const int chunks = static_cast<int>(t.SeededChunks({1, 1}, 1, true).size());
    t.Close();
    ASSERT_TRUE(t.Open().ok());  // they survive
    EXPECT_EQ(t.Hash(), initial);
    const uint64_t checkpoint = TrainBeyondACheckpoint(t);
    const ShardPosition before = t.shard->Position();
    t.Close();
    EXPECT_EQ(LoggedContributions(t.options.dir), chunks);
    EXPECT_TRUE(absl::IsFailedPrecondition(ReplayShardLog(t.options.dir).status()));
    ASSERT_TRUE(t.Open().ok());
    EXPECT_EQ(t.shard->Position().index, before.index);  // it knows what was decided, and waits
    bool published = false;
    const uint64_t pull = t.shard->Pull(1, Codec::kFp32, [&](std::shared_ptr<const Encoding>) { published = true; });
    ASSERT_TRUE(t.Decide(DecisionKind::kSkip, {}));
    EXPECT_FALSE(published);  // stale values are never read
    t.shard->CancelPull(pull);
    ASSERT_TRUE(t.Decide(t.MakeRollback(4, 3)));
    EXPECT_EQ(t.Hash(), checkpoint);
    ASSERT_NO_FATAL_FAILURE(t.Train(1));
    EXPECT_NE(t.Hash(), checkpoint);
    EXPECT_FALSE(t.Floats(0).empty());
  }
}

}  // namespace
}  // namespace ballast::testing
