#include "core/coordinator/coordinator.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/coordinator/coordinator_impl.h"
#include "core/status.h"

namespace ballast {

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Restore(CoordinatorConfig config, CoordinatorState state, int64_t now_ms) {
  const Manifest* newest = state.manifests.empty() ? nullptr : &state.manifests.back();
  History history;
  if (absl::Status status = history.Restore(state.decisions, newest); !status.ok()) return status;
  absl::StatusOr<Ledger> ledger = Ledger::Parse(newest == nullptr ? absl::string_view() : absl::string_view(newest->ledger));
  if (!ledger.ok()) return ledger.status();
  for (const EpochRecord& epoch : state.epochs) {
    if (epoch.epoch >= 1 && epoch.partitions >= 1 && epoch.partitions <= kPartitionsMax) continue;  // 0: the initial weights
    return absl::DataLossError(
        absl::StrCat("run ", config.spec.name, ": the record of epoch ", epoch.epoch, " has ", epoch.partitions, " partitions"));
  }
  const uint64_t covered = newest == nullptr ? 0 : newest->index;
  auto coordinator = std::make_unique<CoordinatorImpl>(std::move(config), std::move(state), std::move(history), *std::move(ledger), now_ms);
  if (absl::Status status = coordinator->Replay(covered); !status.ok()) return status;
  return coordinator;
}

namespace {

uint64_t LastClosedBelow(const History& history) {
  return history.last() < history.first() ? 0 : history.at(history.last())->sessions_closed_below;
}

}  // namespace

CoordinatorImpl::CoordinatorImpl(CoordinatorConfig config, CoordinatorState state, History history, Ledger ledger, int64_t now_ms)
    : config_(std::move(config)),
      spec_(config_.spec),
      ledger_(std::move(ledger)),
      history_(std::move(history)),
      sessions_(config_.incarnation, LastClosedBelow(history_), config_.rules),
      steps_({spec_.step_rows, spec_.contribution_rows, spec_.staleness_max, config_.rules}, 1),
      shards_(config_.shards, config_.rules),
      checkpoints_(state.manifests, config_.manifests_kept, config_.rules),
      generation_(config_.generation),
      restored_loss_(state.manifests.empty() ? std::nan("") : state.manifests.back().loss),
      checkpoint_ms_(now_ms) {
  epochs_.Restore(state.epochs);
  if (const Manifest* newest = checkpoints_.newest(); newest != nullptr) {
    generation_ = newest->generation;
    version_ = newest->version;
    step_ = newest->step;
    checkpoint_version_ = newest->version;
  }
}

absl::Status CoordinatorImpl::Replay(uint64_t after_index) {
  covered_ = after_index;
  const std::optional<Ledger> covered = config_.rules.replay_marks ? std::nullopt : std::optional<Ledger>(ledger_);
  bool cut = false;
  for (uint64_t index = after_index + 1; index <= history_.last(); ++index) {
    const Decision& d = *history_.at(index);
    const uint64_t generation = generation_ + (d.kind == DecisionKind::kRollback ? 1 : 0);
    if (d.run != spec_.name || d.generation != generation) {
      return absl::DataLossError(absl::StrCat("decision ", index, " of run ", d.run, " generation ", d.generation, " is in the log of run ",
                                              spec_.name, " generation ", generation));
    }
    if (absl::Status status = CheckRollback(d); !status.ok()) return status;
    for (const Part& part : d.parts) {
      for (const Batch& b : part.batches) {
        if (ledger_.Find(b.id))
          return absl::DataLossError(absl::StrCat("run ", d.run, ": decision ", index, " trains a batch that was decided before"));
      }
    }
    Apply(d);
    cut |= d.kind == DecisionKind::kCheckpoint;
  }
  if (covered) ledger_ = *covered;
  restored_ = durable_ = history_.last();
  durable_version_ = version_;
  for (const auto& [number, epoch] : epochs_.all()) {
    if (epoch.phase == EpochState::Phase::kCommitted) ledger_.Close(number);
  }
  if (rollback_) StoreRewound();
  server_lost_ = Volatile();
  RollBackLost();
  if (cut) checkpoints_.Want();  // its manifest was never committed: the next one stands for both
  if (skips_in_a_row_ >= spec_.skips_max) Fail(absl::StrCat(skips_in_a_row_, " batches in a row could not be trained"));
  return absl::OkStatus();
}

void CoordinatorImpl::Apply(const Decision& d) {
  version_ = d.version;
  step_ = d.step;
  if (d.kind == DecisionKind::kRollback) return ApplyRollback(d);
  double loss_sum = 0;
  uint64_t rows = 0;
  for (const Part& part : d.parts) {
    loss_sum += part.loss_sum;
    rows += part.rows;
    for (const Batch& b : part.batches) {
      ledger_.Add(b, false);
      unsettled_[b.id] = d.index;
      deaths_.erase(b.id);
    }
  }
  for (const SkippedBatch& s : d.skipped) {
    ledger_.Add(s.batch, true);
    unsettled_[s.batch.id] = d.index;
    deaths_.erase(s.batch.id);
    ++skips_in_a_row_;
  }
  if (d.kind != DecisionKind::kStep) return;
  skips_in_a_row_ = 0;
  if (rows < spec_.step_rows) ledger_.CountPartFullStep();
  losses_.emplace_back(loss_sum, rows);
  if (losses_.size() > kLossWindowSteps) losses_.pop_front();
}

absl::Status CoordinatorImpl::StoppedError() const {
  if (health_ == Health::kFailed) {
    return WithReason(
        absl::FailedPreconditionError(absl::StrCat("run ", spec_.name, " stopped: ", reason_, ". Its weights can still be read.")),
        "RUN_FAILED");
  }
  return WithReason(absl::FailedPreconditionError(absl::StrCat("run ", spec_.name, " is stopped: ", reason_, ". Train it again to go on.")),
                    "RUN_STOPPED");
}

void CoordinatorImpl::CloseAll(const std::string& reason, bool final) {
  for (const auto& [id, session] : sessions_.live()) Send(id, CloseSession{reason, final});
  while (!sessions_.live().empty()) sessions_.Close(sessions_.live().begin()->first);
  steps_.Clear();
  pending_skips_.clear();
  norm_.uids.clear();
}

void CoordinatorImpl::Fail(const std::string& reason) {
  if (health_ == Health::kFailed) return;
  health_ = Health::kFailed;
  reason_ = reason;
  CloseAll(reason, /*final=*/true);
  for (const auto& [tag, to] : std::exchange(rollbacks_wanted_, {})) Answer(tag, StoppedError());
  if (rollback_) {
    for (Tag tag : std::exchange(rollback_->tags, {})) Answer(tag, StoppedError());
    if (RollbackPending()) rollback_.reset();
  }
  for (Tag tag : checkpoints_.TakeTags()) Answer(tag, StoppedError());
  for (auto& [number, epoch] : epochs_.all()) {
    if (epoch.phase != EpochState::Phase::kCovering) continue;
    for (Tag tag : std::exchange(epoch.tags, {})) Answer(tag, StoppedError());
    epoch.phase = EpochState::Phase::kOpen;
  }
}

void CoordinatorImpl::Stop(const std::string& reason, int64_t now_ms) {
  if (health_ != Health::kRunning) return;
  health_ = Health::kStopped;
  reason_ = reason.empty() ? "by request" : reason;
  CloseAll(reason_, /*final=*/true);
  Advance(now_ms);
}

void CoordinatorImpl::Advance(int64_t now_ms) {
  if (resting_) return;
  resting_ = true;
  if (health_ != Health::kFailed) {
    RollBackLost();
    DecideRollback();
  }
  bool again = health_ == Health::kRunning;
  while (again) {
    DecideSkips();
    if (health_ != Health::kRunning) break;
    Admit(now_ms);
    FlushSlots(now_ms);
    again = DecideSteps(now_ms);
  }
  if (health_ != Health::kFailed) StartCheckpoint(now_ms);
  resting_ = false;
}

void CoordinatorImpl::OnTick(int64_t now_ms) {
  if (health_ == Health::kRunning) ExpireLeases(now_ms);
  CheckpointTimer(now_ms);
  Advance(now_ms);
}

std::vector<Output> CoordinatorImpl::TakeOutputs() { return std::exchange(outputs_, {}); }

std::string CoordinatorImpl::WaitsFor() const {
  for (uint32_t s = 0; s < shards_.size(); ++s) {
    if (!shards_[s].connected) return absl::StrCat("waits for server ", s);
  }
  if (const Shards::State* low = shards_.LowDisk(); low != nullptr) return absl::StrCat("disk nearly full: ", low->disk_reason);
  if (rollback_) return absl::StrCat("goes back to version ", rollback_->to);
  if (durable_version_ == 0) return "waits for a worker to set the initial weights";
  return "";
}

RunStatus CoordinatorImpl::Describe() const {
  RunStatus status;
  status.state = health_ != Health::kRunning ? RunStatus::State::kStopped
                 : durable_version_ == 0     ? RunStatus::State::kWaiting
                                             : RunStatus::State::kActive;
  status.reason = health_ != Health::kRunning ? reason_ : WaitsFor();
  status.generation = generation_;
  status.version = durable_version_;
  status.index = durable_;
  status.steps = step_;
  status.steps_part_full = ledger_.part_full_steps();
  const Ledger::Totals totals = ledger_.OfRun();
  status.rows_trained = totals.rows_trained;
  status.rows_skipped = totals.rows_skipped;
  status.duplicates = totals.duplicates;
  double loss_sum = 0;
  uint64_t loss_rows = 0;
  for (const auto& [sum, rows] : losses_) {
    loss_sum += sum;
    loss_rows += rows;
  }
  status.loss = loss_rows == 0 ? restored_loss_ : loss_sum / static_cast<double>(loss_rows);
  double residual2 = 0;
  for (const auto& [id, session] : sessions_.live()) residual2 += session.residual_norm * session.residual_norm;
  status.residual_norm = std::sqrt(residual2);
  status.manifest_version = checkpoints_.newest() == nullptr ? 0 : checkpoints_.newest()->version;
  status.sessions = static_cast<uint32_t>(sessions_.live().size());
  status.max_lag = max_lag_;
  for (const auto& [number, epoch] : epochs_.all()) status.epochs.push_back(Epochs::Report(epoch, ledger_));
  for (const auto& [phase, seconds] : timing_) status.timing.push_back({phase, seconds});
  status.wants_sessions = health_ == Health::kRunning && epochs_.Open();
  return status;
}

}  // namespace ballast
