// Rollback: the run goes back to a manifest. One ROLLBACK decision is the commit point: it closes every session of before, begins the next
// generation and makes the version that has the manifest's values again; the ledger and the epochs follow it. A crash leaves it in the log
// or not, so a recovery ends after it or before it, on every server.
// With durability "checkpoint" no contribution is logged, so that a server that restarts has lost every step after the newest manifest:
// then the run goes back to that manifest by itself.
//
// Nothing is granted until a checkpoint of that version is committed. From then on the log before the decision is not needed to get here
// again, and what the checkpoints of the undone versions hold cannot be taken for something that counts.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/coordinator/coordinator_impl.h"
#include "core/status.h"

namespace ballast {

absl::Status CoordinatorImpl::RollingBackError() const {
  return WithReason(absl::UnavailableError(absl::StrCat("run ", spec_.name, " goes back to version ", rollback_->to, "; try again")),
                    "ROLLING_BACK");
}

void CoordinatorImpl::Rollback(Tag tag, uint64_t version, int64_t now_ms) {
  if (rollback_ && rollback_->to != version) return Answer(tag, RollingBackError());
  if (rollback_) return rollback_->tags.push_back(tag);
  // It may be of the same version, with more marks, or push the wanted one out.
  if (checkpoints_.committing()) return static_cast<void>(rollbacks_wanted_.emplace_back(tag, version));
  const Manifest* to = checkpoints_.Find(version);
  if (to == nullptr) {
    const std::string kept =
        absl::StrJoin(checkpoints_.kept(), ", ", [](std::string* out, const Manifest& m) { absl::StrAppend(out, m.version); });
    return Answer(tag, WithReason(absl::NotFoundError(absl::StrCat("run ", spec_.name, " has no checkpoint of version ", version,
                                                                   kept.empty() ? ", nor any other" : "; it has ", kept)),
                                  "NO_MANIFEST"));
  }
  if (!to->healthy) {
    return Answer(tag, WithReason(absl::FailedPreconditionError(absl::StrCat("the checkpoint of version ", version, " of run ", spec_.name,
                                                                             " holds values that are not finite")),
                                  "NOT_HEALTHY"));
  }
  if (const absl::StatusOr<Ledger> ledger = Ledger::Parse(to->ledger); !ledger.ok()) return Answer(tag, ledger.status());
  if (!shards_.AllConnected()) {
    return Answer(tag, WithReason(absl::UnavailableError(absl::StrCat("run ", spec_.name, " ", WaitsFor())), "SERVER_MISSING"));
  }
  StartRollback(version, {tag});
  Advance(now_ms);
}

void CoordinatorImpl::StartRollback(uint64_t to, std::vector<Tag> tags) {
  rollback_ = RollbackRound{to, 0, std::move(tags)};
  if (health_ == Health::kFailed) {  // the way out of what stopped it
    health_ = Health::kRunning;
    reason_.clear();
  }
  CloseAll(absl::StrCat("the run goes back to version ", to), /*final=*/false);
  for (Tag tag : checkpoints_.Abandon()) Answer(tag, RollingBackError());
  for (auto& [number, epoch] : epochs_.all()) {
    for (Tag tag : std::exchange(epoch.tags, {})) Answer(tag, RollingBackError());
  }
}

bool CoordinatorImpl::StepsToLose() const {
  const uint64_t covered = checkpoints_.newest() == nullptr ? 0 : checkpoints_.newest()->index;
  for (uint64_t index = history_.last(); index > covered && index >= history_.first(); --index) {
    const DecisionKind kind = history_.at(index)->kind;
    if (kind == DecisionKind::kRollback) return false;
    if (kind == DecisionKind::kStep) return true;
  }
  return false;
}

void CoordinatorImpl::RollBackLost() {
  if (!server_lost_ || checkpoints_.committing()) return;
  server_lost_ = false;
  if (!rollback_ && StepsToLose() && config_.rules.crash_goes_back) StartRollback(checkpoints_.newest()->version, {});
}

void CoordinatorImpl::DecideRollback() {
  if (!RollbackPending() || !shards_.AllSeen()) return;
  Decision d = NewDecision(DecisionKind::kRollback);
  d.generation = generation_ + 1;
  d.version = version_ + 1;
  d.step = checkpoints_.Find(rollback_->to)->step;
  d.rollback_version = rollback_->to;
  if (config_.rules.rollback_fences) d.sessions_closed_below = sessions_.CloseAllBelow();
  Append(std::move(d));
}

absl::Status CoordinatorImpl::CheckRollback(const Decision& d) const {
  if (d.kind != DecisionKind::kRollback) return absl::OkStatus();
  const Manifest* to = checkpoints_.Find(d.rollback_version);
  if (to != nullptr) return Ledger::Parse(to->ledger).status();
  return absl::DataLossError(
      absl::StrCat("run ", d.run, ": decision ", d.index, " goes back to version ", d.rollback_version, ", whose manifest is gone"));
}

void CoordinatorImpl::ApplyRollback(const Decision& d) {
  const Manifest& to = *checkpoints_.Find(d.rollback_version);
  if (!rollback_) rollback_ = RollbackRound{to.version, 0, {}};  // of the log
  rollback_->index = d.index;
  generation_ = d.generation;
  if (config_.rules.marks_go_back) ledger_ = *Ledger::Parse(to.ledger);
  covered_ = d.index;  // its marks count as settled with this decision, and what is undone is never announced
  unsettled_.clear();
  skipped_by_.clear();
  deaths_.clear();
  skips_in_a_row_ = 0;
  losses_.clear();
  restored_loss_ = to.loss;
  rollback_->rewound = epochs_.Rewind(to.version, ledger_);
  for (const auto& [number, epoch] : epochs_.all()) {
    if (epoch.phase == EpochState::Phase::kCommitted) ledger_.Close(number);
  }
  checkpoints_.Want();
}

// Before the manifest that ends the rollback: outputs for the store take effect in their order. The last epoch is forgotten first: a crash
// then leaves epochs without a gap, and the replay of the ROLLBACK comes to the same end. With a gap it would take a later epoch for the
// one to go on with, and the rows of those before it would never be trained.
void CoordinatorImpl::StoreRewound() {
  Epochs::Rewound rewound = std::exchange(rollback_->rewound, {});
  for (EpochRecord& record : rewound.reopened) outputs_.push_back(PersistEpoch{std::move(record)});
  std::reverse(rewound.forgotten.begin(), rewound.forgotten.end());
  for (uint32_t epoch : rewound.forgotten) outputs_.push_back(DropEpoch{epoch});
}

void CoordinatorImpl::FinishRollback() {
  if (!rollback_ || rollback_->index == 0 || checkpoints_.newest()->index < rollback_->index) return;
  for (Tag tag : rollback_->tags) AnswerManifest(tag);
  rollback_.reset();
}

}  // namespace ballast
