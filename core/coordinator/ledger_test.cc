#include "core/coordinator/ledger.h"

#include <gtest/gtest.h>

#include <string>

namespace ballast {
namespace {

Batch B(uint64_t seq, uint32_t partition = 0, uint32_t epoch = 1) { return {{epoch, partition, seq}, 10, 1000 + seq}; }

TEST(Ledger, MarksOutOfOrderBecomeAWatermark) {
  Ledger ledger;
  EXPECT_TRUE(ledger.Add(B(1), false));
  EXPECT_TRUE(ledger.Add(B(4), true));
  EXPECT_EQ(ledger.MarkedBelow(1, 0), 0u);
  EXPECT_EQ(ledger.MarkedAbove(1, 0), (std::vector<SeqRange>{{1, 1}, {4, 1}}));
  EXPECT_TRUE(ledger.Add(B(0), false));
  EXPECT_EQ(ledger.MarkedBelow(1, 0), 2u);
  EXPECT_EQ(ledger.Missing(1, 0, 6, 1000), (std::vector<uint64_t>{2, 3, 5}));
  EXPECT_EQ(ledger.Missing(1, 0, uint64_t{1} << 60, 2), (std::vector<uint64_t>{2, 3}));
  EXPECT_EQ(ledger.OfPartition(1, 0).end, 5u);
  EXPECT_EQ(ledger.OfEpoch(1).rows_trained, 20u);
  EXPECT_EQ(ledger.OfEpoch(1).rows_skipped, 10u);
}

TEST(Ledger, ABatchIsMarkedOnce) {
  Ledger ledger;
  EXPECT_TRUE(ledger.Add(B(0), false));
  EXPECT_FALSE(ledger.Add(B(0), true));
  EXPECT_EQ(ledger.Find(B(0).id)->fingerprint, 1000u);
  EXPECT_FALSE(ledger.Find(B(0).id)->skipped);
  EXPECT_EQ(ledger.OfRun().batches, 1u);
}

TEST(Ledger, AClosedEpochKeepsItsTotalsOnly) {
  Ledger ledger;
  ledger.Add(B(0), false);
  ledger.Close(1);
  EXPECT_TRUE(ledger.IsClosed(1));
  EXPECT_FALSE(ledger.Find(B(0).id));
  EXPECT_FALSE(ledger.Add(B(7), false));
  EXPECT_EQ(ledger.OfRun().rows_trained, 10u);
}

TEST(Ledger, InitialWeightsAreNoRows) {
  Ledger ledger;
  ledger.Add({kInitBatch, 1, 0}, false);
  EXPECT_EQ(ledger.OfRun().rows_trained, 0u);
}

Ledger Sample() {
  Ledger ledger;
  ledger.Add({kInitBatch, 1, 5}, false);
  for (uint64_t seq : {0, 1, 2, 5, 9}) ledger.Add(B(seq, 3), seq == 1 || seq == 9);
  ledger.Add(B(0, 0, 2), false);
  ledger.Close(2);
  ledger.CountDuplicate(1);
  ledger.CountPartFullStep();
  return ledger;
}

TEST(LedgerSnapshot, RoundTrips) {
  const std::string snapshot = Sample().Snapshot();
  const absl::StatusOr<Ledger> parsed = Ledger::Parse(snapshot);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->Snapshot(), snapshot);
  EXPECT_TRUE(parsed->Find(B(1, 3).id)->skipped);
  EXPECT_TRUE(parsed->Find(B(9, 3).id)->skipped);
  EXPECT_FALSE(parsed->Find(B(3, 3).id));
  EXPECT_TRUE(parsed->IsClosed(2));
  EXPECT_EQ(parsed->OfEpoch(1).duplicates, 1u);
  EXPECT_EQ(parsed->part_full_steps(), 1u);
  EXPECT_TRUE(Ledger::Parse("").ok());
}

TEST(LedgerSnapshot, EveryDamagedByteIsNoticed) {
  const std::string snapshot = Sample().Snapshot();
  for (size_t i = 0; i < snapshot.size(); ++i) {
    std::string damaged = snapshot;
    damaged[i] ^= 0x40;
    EXPECT_TRUE(absl::IsDataLoss(Ledger::Parse(damaged).status())) << "byte " << i;
    EXPECT_TRUE(i == 0 || absl::IsDataLoss(Ledger::Parse(snapshot.substr(0, i)).status())) << "cut at " << i;
  }
}

TEST(LedgerTest, HighestSequenceNumberCountsAsMarked) {
  Ledger ledger;
  const uint64_t most = ~uint64_t{0};
  EXPECT_TRUE(ledger.Add({{1, 0, most}, 4, 7}, false));
  EXPECT_EQ(ledger.OfPartition(1, 0).end, most);
}

}  // namespace
}  // namespace ballast
