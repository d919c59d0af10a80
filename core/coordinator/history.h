// The one list of decisions of a run, as far back as a shard may still need it: indices without a gap, each linked to the one before by its
// chain. Used by the coordinator's owner thread.
#ifndef BALLAST_CORE_COORDINATOR_HISTORY_H_
#define BALLAST_CORE_COORDINATOR_HISTORY_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "core/types.h"

namespace ballast {

class History {
 public:
  // From disk, oldest first. `newest` is the newest manifest, null if there is none; the decisions must reach back to the one after it.
  // Errors: DataLoss for a gap, a broken chain, another run, or a manifest that the decisions do not agree with.
  [[nodiscard]] absl::Status Restore(const std::vector<std::shared_ptr<const Decision>>& decisions, const Manifest* newest);

  // Gives `decision` the next index and its chain, and keeps it.
  std::shared_ptr<const Decision> Append(Decision decision);

  uint64_t first() const { return base_ + 1; }                 // oldest index kept
  uint64_t last() const { return base_ + decisions_.size(); }  // newest index, 0 before the first
  uint64_t chain() const { return decisions_.empty() ? base_chain_ : decisions_.back()->chain; }
  const std::shared_ptr<const Decision>& at(uint64_t index) const {
    return decisions_[index - base_ - 1];
  }  // REQUIRES first() <= index <= last()
  // Of decision `index`; 0 for index 0; nothing when it is not known any more, or not yet.
  std::optional<uint64_t> ChainAt(uint64_t index) const;

  void DropBelow(uint64_t index);

 private:
  uint64_t base_ = 0;        // index before the oldest kept one
  uint64_t base_chain_ = 0;  // its chain, if known
  bool base_known_ = true;
  std::deque<std::shared_ptr<const Decision>> decisions_;
};

}  // namespace ballast

#endif  // BALLAST_CORE_COORDINATOR_HISTORY_H_
