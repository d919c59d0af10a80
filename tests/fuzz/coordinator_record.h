// A plain record of what a coordinator under test was given and has said: what was granted, what is decided, what disk has of it. It checks
// each output against that, and gives back what a restart finds. One thread.
//   - a batch counts in at most one decision, and only as it was granted; a step has rows, and its numbers are finite
//   - nothing is acknowledged, or told to be trained, before its decision is durable
//   - a rollback goes to a manifest that is kept; marks are then those of that manifest, and no session of before counts any more
//   - between a rollback and the manifest that ends it nothing is granted
#ifndef BALLAST_TESTS_FUZZ_COORDINATOR_RECORD_H_
#define BALLAST_TESTS_FUZZ_COORDINATOR_RECORD_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <variant>
#include <vector>

#include "core/coordinator/coordinator.h"

namespace ballast::fuzz {

class CoordinatorRecord {
 public:
  explicit CoordinatorRecord(const CoordinatorConfig& config) : config_(config) {}

  // ---- what the coordinator says
  void Take(const Output& output);
  void CheckDurable(const BatchId& id) const;  // that it is decided, on disk
  void CheckStatus(const RunStatus& status) const;

  // ---- what disk does
  uint64_t SyncLog(uint64_t decisions);  // at most that many more of the log; the highest index that is durable now
  // What the store was told to do next, done: the coordinator hears of the first two. Nothing is left: false.
  struct Stored {
    std::optional<uint64_t> manifest;  // its version
    std::optional<uint32_t> epoch;
  };
  bool StoreNext(Stored* stored);
  void Crash();
  // Of what is needed no more `cut` says how much is gone.
  CoordinatorState OnDisk(uint64_t cut) const;

  struct Mark {
    uint32_t rows = 0;
    uint64_t index = 0;
    bool skipped = false;
  };
  const std::map<BatchId, Mark>& decided() const { return decided_; }
  const std::vector<Manifest>& manifests() const { return manifests_; }
  bool Committed(uint32_t epoch) const { return committed_.contains(epoch); }
  ShardPosition Durable() const;  // index, version and chain of the newest durable decision
  std::optional<uint64_t> cut() const { return cut_; }

 private:
  using Due = std::variant<CommitManifest, PersistEpoch, DropEpoch, ManifestCommitted>;
  using Marks = std::map<BatchId, Mark>;

  void TakeMessage(const SessionMessage& message);
  void TakeDecision(const Decision& d);
  void CheckRollback(const Decision& d) const;
  void CheckParts(const Decision& d) const;
  void Note(const Decision& d, Marks& marks) const;
  Marks MarksAt(uint64_t index) const;
  const Decision* last() const { return log_.empty() ? nullptr : log_.back().get(); }
  const Manifest* FindManifest(uint64_t version) const;
  bool RollingBack() const;

  const CoordinatorConfig& config_;
  std::map<BatchId, std::set<std::pair<uint32_t, uint64_t>>> granted_;  // rows and fingerprint, ever
  std::vector<std::shared_ptr<const Decision>> log_;                    // appended
  uint64_t durable_ = 0;
  Marks decided_;
  std::map<uint64_t, uint64_t> went_back_to_;  // index of a ROLLBACK decision -> of the manifest
  std::optional<uint64_t> cut_;                // version of the newest CHECKPOINT decision
  SessionId newest_session_ = 0;               // that was ever granted anything

  std::vector<Manifest> manifests_;
  uint64_t log_needed_from_ = 1;
  std::map<uint32_t, EpochRecord> epochs_;
  std::set<uint32_t> committed_;
  std::deque<Due> due_;
};

}  // namespace ballast::fuzz

#endif  // BALLAST_TESTS_FUZZ_COORDINATOR_RECORD_H_
