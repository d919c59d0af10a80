#include "core/coordinator/history.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/record/decision.h"

namespace ballast {

absl::Status History::Restore(const std::vector<std::shared_ptr<const Decision>>& decisions, const Manifest* newest) {
  const uint64_t covered = newest == nullptr ? 0 : newest->index;
  // Indices begin at 1, and there is always a next one.
  if (covered == std::numeric_limits<uint64_t>::max() || (!decisions.empty() && decisions.front()->index == 0)) {
    return absl::DataLossError("a manifest or a decision on disk has an index that no decision can have");
  }
  if (decisions.empty() || decisions.front()->index > covered) {
    base_ = covered;
    base_chain_ = newest == nullptr ? 0 : newest->chain;
  } else {
    // The chain of the decision before the first kept one is not known; nobody can ask for it, because every shard has it in a checkpoint.
    base_ = decisions.front()->index - 1;
    base_known_ = base_ == 0;
  }
  for (const auto& decision : decisions) {
    if (decision->index != last() + 1) {
      return absl::DataLossError(
          absl::StrCat("run ", decision->run, ": decision ", last() + 1, " is missing, the next one on disk is ", decision->index));
    }
    if (!base_known_ && decisions_.empty()) {
      decisions_.push_back(decision);
      continue;
    }
    if (absl::Status status = VerifyChain(chain(), *decision); !status.ok()) return status;
    decisions_.push_back(decision);
  }
  if (newest == nullptr) return absl::OkStatus();
  if (last() < covered) {
    return absl::DataLossError(absl::StrCat("run ", newest->run, ": the manifest of version ", newest->version, " stands at decision ",
                                            covered, ", but the log ends at decision ", last()));
  }
  if (const auto chain = ChainAt(covered); chain.has_value() && *chain != newest->chain) {
    return absl::DataLossError(
        absl::StrCat("run ", newest->run, ": the log and the manifest of version ", newest->version, " disagree about decision ", covered));
  }
  return absl::OkStatus();
}

std::shared_ptr<const Decision> History::Append(Decision decision) {
  decision.index = last() + 1;
  SealDecision(chain(), decision);
  decisions_.push_back(std::make_shared<const Decision>(std::move(decision)));
  return decisions_.back();
}

std::optional<uint64_t> History::ChainAt(uint64_t index) const {
  if (index == 0) return 0;
  if (index < base_ || index > last()) return std::nullopt;
  if (index > base_) return at(index)->chain;
  return base_known_ ? std::optional<uint64_t>(base_chain_) : std::nullopt;
}

void History::DropBelow(uint64_t index) {
  while (!decisions_.empty() && first() < index) {
    base_chain_ = decisions_.front()->chain;
    base_known_ = true;
    decisions_.pop_front();
    ++base_;
  }
}

}  // namespace ballast
