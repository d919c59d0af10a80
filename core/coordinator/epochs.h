// The epochs of a run: which may begin, which may be committed, what is missing. An epoch begins once its layout is durable, and is
// committed once every batch that the driver counted is marked, a manifest covers the marks and that fact is durable. Epochs follow one
// another: 1, 2, 3, ..., each begins after the one before is committed.
//
// Used by the coordinator's owner thread. Errors carry a reason (core/status.h) and say the way out.
#ifndef BALLAST_CORE_COORDINATOR_EPOCHS_H_
#define BALLAST_CORE_COORDINATOR_EPOCHS_H_

#include <cstdint>
#include <map>
#include <vector>

#include "absl/status/status.h"
#include "core/coordinator/coordinator.h"
#include "core/coordinator/ledger.h"
#include "core/types.h"

namespace ballast {

inline constexpr size_t kMissingMax = 1000;          // sequence numbers of a partition that CommitEpoch lists
inline constexpr size_t kMissingTotalMax = 100'000;  // of all partitions: the report is one message

struct EpochState {
  enum class Phase : uint8_t {
    kBeginning,   // waits for OnEpochDurable
    kOpen,        // feeds and claims
    kCovering,    // complete; waits for a manifest that covers it. No batch of it is granted any more
    kCommitting,  // waits for OnEpochDurable
    kCommitted,
  };
  EpochRecord record;
  Phase phase = Phase::kBeginning;
  uint64_t covered_from = 0;  // kCovering: a checkpoint at this decision or later covers it
  std::vector<Tag> tags;      // to be answered when the phase ends
};

class Epochs {
 public:
  using Counts = std::vector<Coordinator::PartitionCount>;

  void Restore(const std::vector<EpochRecord>& records);
  EpochState* Find(uint32_t epoch);
  const EpochState* Find(uint32_t epoch) const;
  std::map<uint32_t, EpochState>& all() { return epochs_; }
  const std::map<uint32_t, EpochState>& all() const { return epochs_; }

  // Whether batches of it may be granted.
  bool Grantable(const BatchId& batch) const;
  // Whether some epoch is begun and not committed.
  bool Open() const;

  // Errors: InvalidArgument, FailedPrecondition (EPOCH_LAYOUT_DIFFERS, EPOCH_ORDER). OK for a known epoch with the same layout.
  [[nodiscard]] absl::Status CheckBegin(const RunSpec& spec, const EpochRecord& record) const;
  EpochState& Begin(const EpochRecord& record);
  // The run went back to the manifest of `version`, whose ledger this is. Committed stays what that manifest or an older one covers. The
  // next epoch is open again if anything of it is marked, or somebody was feeding it; it, and what came after, is not committed any more.
  struct Rewound {
    std::vector<EpochRecord> reopened;  // at most one
    std::vector<uint32_t> forgotten;    // never begun, as far as the run knows
  };
  Rewound Rewind(uint64_t version, const Ledger& ledger);

  // Errors: InvalidArgument for counts that make no sense; FailedPrecondition (DATA_CHANGED) when more is marked, or held in `held`, than
  // was counted. Missing batches are no error: see MissingOf.
  [[nodiscard]] static absl::Status CheckCounts(const EpochState& epoch, const Ledger& ledger, const Counts& counts,
                                                const std::vector<BatchId>& held);
  // Rows of a complete epoch. Errors: FailedPrecondition (DATA_CHANGED) naming the first partition that differs.
  [[nodiscard]] static absl::Status CheckRows(const EpochState& epoch, const Ledger& ledger, const Counts& counts);
  static std::vector<MissingBatches> MissingOf(const EpochState& epoch, const Ledger& ledger, const Counts& counts);
  static EpochReport Report(const EpochState& epoch, const Ledger& ledger);

 private:
  std::map<uint32_t, EpochState> epochs_;
};

}  // namespace ballast

#endif  // BALLAST_CORE_COORDINATOR_EPOCHS_H_
