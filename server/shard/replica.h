// A shard as a pure function of its log: contributions, values and the position in the order of decisions. The live shard and replay feed
// it the same way, so that a restart ends in the same bits. No I/O, no thread of its own. Threads: one owner.
#ifndef BALLAST_SERVER_SHARD_REPLICA_H_
#define BALLAST_SERVER_SHARD_REPLICA_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/record/log_record.h"
#include "core/types.h"
#include "server/shard/shard_blocks.h"
#include "server/shard/shard_values.h"
#include "server/shard/staging.h"
#include "server/storage/segment_reader.h"

namespace ballast {

// After a decision: what a checkpoint stores beside the values.
struct ReplicaPosition {
  uint64_t index = 0;
  uint64_t version = 0;
  uint64_t chain = 0;
  uint64_t step = 0;
  uint64_t closed_below = 0;
  uint64_t generation = 0;
};

// What a later ROLLBACK takes back: decisions before `index` that made a version above `version`.
struct UndoneRange {
  uint64_t version = 0;
  uint64_t index = 0;
};

class Replica {
 public:
  static absl::StatusOr<std::unique_ptr<Replica>> Create(ShardBlocks blocks, uint64_t staged_bytes_max);

  const ShardBlocks& blocks() const { return blocks_; }
  Staging& staging() { return staging_; }
  ShardValues& values() { return *values_; }
  const ReplicaPosition& position() const { return position_; }
  // Durability "checkpoint": contributions are in memory only, and a step was decided whose bytes a restart has lost. The values are then
  // stale, and decisions are only read over, until a ROLLBACK brings the run back to a checkpoint.
  bool lost() const { return lost_; }
  // Whether contributions that come now belong into the log. The initial weights always do.
  bool LogsContributions() const { return blocks_.spec().durability == Durability::kLog || position_.version == 0; }

  // The values were loaded from a checkpoint at `position`: decisions up to it are only read over.
  void StartAt(const ReplicaPosition& position) { position_ = position; }

  // Whether `d` is the next decision and everything it needs is here. Errors: DataLoss (a gap, a broken chain, a contribution that is not
  // here), FailedPrecondition (this release cannot carry it out).
  absl::Status Check(const Decision& d) const;
  // Carries it out. REQUIRES Check OK, and for a ROLLBACK that the values are those of its checkpoint already. `before_change` as in
  // ShardValues::Apply.
  void Apply(const Decision& d, absl::FunctionRef<void(size_t block)> before_change);

  // Squared norm of the ordered sum of these contributions. Errors: DataLoss when one is not here.
  absl::StatusOr<double> Norm(const std::vector<Uid>& uids) const;

  // The hash root that belongs into the log after the last Apply; nothing when none is due.
  std::optional<HashRoot> RootDue() const;

  // One record of the log, in order. CONTRIBUTION: staged. DECISION: applied, or read over when it lies before StartAt. HASH_ROOT:
  // compared. `decided` is called with each decision after it took effect, `before_change` as above, `restore` before a ROLLBACK: it brings
  // the values of the checkpoint back. Errors: as Check and `restore`; DataLoss when a root differs.
  absl::Status Replay(const RecordHeader& header, const LogPosition& at, absl::string_view body,
                      absl::FunctionRef<void(std::shared_ptr<const Decision>)> decided, absl::FunctionRef<void(size_t block)> before_change,
                      absl::FunctionRef<absl::Status(const Decision&)> restore);
  // Between these two, changes share the threads of `team`, and memory of contributions is used again.
  void BeginRecovery(ThreadTeam* team);
  void EndRecovery();
  // Replay reads over what these say: so it comes to the same values where nothing but the log is left.
  void LeaveOut(std::vector<UndoneRange> undone) { undone_ = std::move(undone); }
  // Highest decision that Replay has seen; 0: none.
  uint64_t replayed_index() const { return replayed_index_; }

 private:
  Replica(ShardBlocks blocks, uint64_t staged_bytes_max) : blocks_(std::move(blocks)), staging_(&blocks_, staged_bytes_max) {}
  absl::StatusOr<std::vector<const Contribution*>> Parts(const Decision& d) const;
  absl::Status ReplayContribution(const LogPosition& at, absl::string_view body);
  absl::Status ReplayDecision(const Decision& d, absl::FunctionRef<void(size_t block)> before_change,
                              absl::FunctionRef<absl::Status(const Decision&)> restore);
  absl::Status CheckPlace(const Decision& d) const;  // it is the next one
  bool LeftOut(const Decision& d) const;
  void MoveTo(const Decision& d);
  absl::Status ReplayRoot(absl::string_view body);

  const ShardBlocks blocks_;
  Staging staging_;
  std::optional<ShardValues> values_;
  ReplicaPosition position_;
  bool changed_ = false;  // the last decision made a version
  bool lost_ = false;
  uint64_t replayed_index_ = 0;
  uint64_t replayed_chain_ = 0;
  std::vector<UndoneRange> undone_;
  std::map<uint64_t, uint64_t> roots_;  // version -> root, computed during replay; the newest few
};

}  // namespace ballast

#endif  // BALLAST_SERVER_SHARD_REPLICA_H_
