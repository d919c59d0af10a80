// Which batches are trained or skipped: the marks of all decisions so far, per epoch and partition, and the numbers that reports are made
// of. A mark is a watermark (every seq below is marked) and a sparse set above it; the fingerprint of each marked batch is kept until its
// epoch is committed (8 bytes a batch), so that a batch that comes back with other content is noticed.
//
// Used by the coordinator's owner thread. A snapshot is part of every manifest: format below, checked by Parse before it is believed.
#ifndef BALLAST_CORE_COORDINATOR_LEDGER_H_
#define BALLAST_CORE_COORDINATOR_LEDGER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/types.h"

namespace ballast {

class Ledger {
 public:
  struct Mark {
    uint64_t fingerprint = 0;
    bool skipped = false;
  };
  struct Totals {  // of an epoch, or of the run
    uint64_t batches = 0;
    uint64_t rows_trained = 0;
    uint64_t rows_skipped = 0;
    uint64_t duplicates = 0;  // batches that came again
  };
  struct PartitionTotals {
    uint64_t end = 0;   // one more than the highest marked seq
    uint64_t rows = 0;  // trained and skipped
  };

  // Marks a batch. False, and nothing changes: it is marked already, or its epoch is closed.
  bool Add(const Batch& batch, bool skipped);
  // Nothing for an unmarked batch. A closed epoch has no marks any more: ask IsClosed first.
  std::optional<Mark> Find(const BatchId& id) const;
  void CountDuplicate(uint32_t epoch);

  // Of one partition: every seq below is marked; the marked ranges above that; what is missing below `count` (at most `limit`, ascending).
  uint64_t MarkedBelow(uint32_t epoch, uint32_t partition) const;
  std::vector<SeqRange> MarkedAbove(uint32_t epoch, uint32_t partition) const;
  std::vector<uint64_t> Missing(uint32_t epoch, uint32_t partition, uint64_t count, size_t limit) const;
  PartitionTotals OfPartition(uint32_t epoch, uint32_t partition) const;
  // Partitions with marks, ascending.
  std::vector<uint32_t> Partitions(uint32_t epoch) const;

  Totals OfEpoch(uint32_t epoch) const;
  Totals OfRun() const;  // without the initial weights (epoch 0)
  void CountPartFullStep() { ++part_full_steps_; }
  uint64_t part_full_steps() const { return part_full_steps_; }  // steps with fewer rows than a step should have

  // The epoch is committed: drops its marks, keeps its totals.
  void Close(uint32_t epoch);
  bool IsClosed(uint32_t epoch) const;

  // Snapshot, little-endian: "BLG1", u64 part-full steps, u32 epochs, for each: u32 epoch, u8 closed, u64 batches, rows_trained,
  // rows_skipped, duplicates, u32 partitions, for each: u32 partition, u64 rows, u64 below, below x u64 fingerprint, u32 n, n x u64 skipped
  // seq below, u32 m, m x {u64 seq, u64 fingerprint, u8 skipped}; at the end u64 XXH3-64 of everything before.
  std::string Snapshot() const;
  // Errors: DataLoss naming what is wrong. An empty snapshot is an empty ledger.
  static absl::StatusOr<Ledger> Parse(absl::string_view bytes);

 private:
  struct Partition {
    uint64_t rows = 0;
    std::vector<uint64_t> fingerprints;  // of seq 0 .. size - 1: its size is the watermark
    std::set<uint64_t> skipped;          // below the watermark
    std::map<uint64_t, Mark> above;      // never holds the watermark itself
  };
  struct Epoch {
    bool closed = false;
    Totals totals;
    std::map<uint32_t, Partition> partitions;
  };
  class Reader;

  const Partition* FindPartition(uint32_t epoch, uint32_t partition) const;
  static bool ReadPartition(Reader& in, Partition& p);

  std::map<uint32_t, Epoch> epochs_;
  uint64_t part_full_steps_ = 0;
};

}  // namespace ballast

#endif  // BALLAST_CORE_COORDINATOR_LEDGER_H_
