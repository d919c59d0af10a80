// Where the decisions of a shard's log are, so that one can be read again; the newest are also kept as they are, since they may not be on
// disk yet. 24 bytes for each decision in the log. Threads: any.
#ifndef BALLAST_SERVER_SHARD_DECISION_INDEX_H_
#define BALLAST_SERVER_SHARD_DECISION_INDEX_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "core/types.h"
#include "server/storage/segment_reader.h"

namespace ballast {

class DecisionIndex {
 public:
  explicit DecisionIndex(std::string dir) : dir_(std::move(dir)) {}

  // REQUIRES ascending indices without a gap.
  void Add(std::shared_ptr<const Decision> decision, const LogPosition& at);
  uint64_t last() const;  // highest index; 0: none
  // Decisions [first, last] that are there, ascending. Errors: DataLoss.
  absl::StatusOr<std::vector<std::shared_ptr<const Decision>>> Read(uint64_t first, uint64_t last) const;

  uint64_t SegmentOf(uint64_t index) const;   // of the last one, when `index` is above it; 0 when it was cut or there is none
  uint64_t SequenceOf(uint64_t index) const;  // of its log record; 0 as above
  void CutBelowSegment(uint64_t segment);

 private:
  const std::string dir_;
  mutable absl::Mutex mu_;
  uint64_t first_ ABSL_GUARDED_BY(mu_) = 1;  // index of places_[0]
  std::deque<LogPosition> places_ ABSL_GUARDED_BY(mu_);
  std::deque<std::shared_ptr<const Decision>> recent_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ballast

#endif  // BALLAST_SERVER_SHARD_DECISION_INDEX_H_
