// Requests of clients and the work behind them: epochs, feeds, checkpoints.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/coordinator/coordinator_impl.h"
#include "core/status.h"

namespace ballast {

// ---- epochs ------------------------------------------------------------------------------------------------------------------------

void CoordinatorImpl::BeginEpoch(Tag tag, const EpochRecord& record, int64_t now_ms) {
  if (health_ == Health::kFailed) return Answer(tag, StoppedError());
  if (rollback_) return Answer(tag, RollingBackError());
  if (absl::Status status = epochs_.CheckBegin(spec_, record); !status.ok()) return Answer(tag, std::move(status));
  health_ = Health::kRunning;  // stopped by request: this resumes it
  reason_.clear();
  EpochState* epoch = epochs_.Find(record.epoch);
  if (epoch == nullptr) {
    epoch = &epochs_.Begin(record);
    outputs_.push_back(PersistEpoch{epoch->record});
  }
  if (epoch->phase == EpochState::Phase::kBeginning) {
    epoch->tags.push_back(tag);
  } else {
    outputs_.push_back(Reply{tag, absl::OkStatus(), Epochs::Report(*epoch, ledger_)});
  }
  Advance(now_ms);
}

absl::StatusOr<FeedState> CoordinatorImpl::OpenFeed(uint32_t epoch, uint32_t partition) {
  if (health_ != Health::kRunning) return StoppedError();
  if (rollback_) return RollingBackError();
  const EpochState* e = epochs_.Find(epoch);
  if (e == nullptr || e->phase == EpochState::Phase::kBeginning) {
    return WithReason(
        absl::FailedPreconditionError(absl::StrCat("epoch ", epoch, " of run ", spec_.name, " is not begun: call BeginEpoch first")),
        "EPOCH_NOT_BEGUN");
  }
  if (partition >= e->record.partitions) {
    return absl::InvalidArgumentError(
        absl::StrCat("epoch ", epoch, " has partitions 0 to ", e->record.partitions - 1, ", there is no ", partition));
  }
  FeedState feed;
  feed.committed = e->phase == EpochState::Phase::kCommitted;
  if (feed.committed) return feed;
  if (const Shards::State* low = shards_.LowDisk(); low != nullptr) {
    return WithReason(absl::ResourceExhaustedError(
                          absl::StrCat("disk nearly full: ", low->disk_reason, "; training goes on by itself when there is room")),
                      "DISK_LOW");
  }
  // What is said to be trained here is as good as acknowledged: only decisions that every shard has accepted.
  if (settled_ < covered_ && config_.rules.all_heard_first) return feed;
  const uint64_t below = ledger_.MarkedBelow(epoch, partition);
  uint64_t first_open = below;
  for (const auto& [batch, index] : unsettled_) {
    if (!config_.rules.feed_settled) break;
    if (batch.epoch == epoch && batch.partition == partition) first_open = std::min(first_open, batch.seq);
  }
  feed.trained_below = first_open;
  if (first_open == below) feed.trained = ledger_.MarkedAbove(epoch, partition);
  // Ranges are a saving, not a promise: those with an undecided end are sent again and answered then.
  std::erase_if(feed.trained, [&](const SeqRange& range) {
    return std::any_of(unsettled_.begin(), unsettled_.end(), [&](const auto& u) {
      return u.first.epoch == epoch && u.first.partition == partition && u.first.seq >= range.first &&
             u.first.seq - range.first < range.count;
    });
  });
  return feed;
}

void CoordinatorImpl::CommitEpoch(Tag tag, uint32_t number, const std::vector<PartitionCount>& counts, int64_t now_ms) {
  using Phase = EpochState::Phase;
  if (rollback_) return Answer(tag, RollingBackError());
  EpochState* epoch = epochs_.Find(number);
  if (epoch == nullptr || epoch->phase == Phase::kBeginning) {
    return Answer(tag, WithReason(absl::FailedPreconditionError(absl::StrCat("epoch ", number, " of run ", spec_.name, " is not begun")),
                                  "EPOCH_NOT_BEGUN"));
  }
  EpochReport report = Epochs::Report(*epoch, ledger_);
  if (epoch->phase == Phase::kCommitted) {
    outputs_.push_back(Reply{tag, absl::OkStatus(), std::move(report)});
    return;
  }
  if (health_ == Health::kFailed) return Answer(tag, StoppedError());
  if (absl::Status status = Epochs::CheckCounts(*epoch, ledger_, counts, steps_.HeldOf(number)); !status.ok())
    return Answer(tag, std::move(status));
  report.rows_in = 0;
  for (const PartitionCount& c : counts) report.rows_in += c.rows;
  report.missing = Epochs::MissingOf(*epoch, ledger_, counts);
  if (!report.missing.empty()) {
    outputs_.push_back(Reply{tag, absl::OkStatus(), std::move(report)});
    return;
  }
  if (absl::Status status = Epochs::CheckRows(*epoch, ledger_, counts); !status.ok()) return Answer(tag, std::move(status));
  epoch->tags.push_back(tag);
  if (epoch->phase == Phase::kOpen) {
    epoch->phase = Phase::kCovering;
    epoch->covered_from = history_.last();
    epoch->record.report = std::move(report);
    if (!checkpoints_.active() || checkpoints_.manifest().index < epoch->covered_from) checkpoints_.Want();
  }
  Advance(now_ms);
}

// A manifest became durable: the epochs that were complete at its cut may be committed.
void CoordinatorImpl::CoverEpochs() {
  const Manifest* newest = checkpoints_.newest();
  for (auto& [number, epoch] : epochs_.all()) {
    if (epoch.phase != EpochState::Phase::kCovering || newest == nullptr) continue;
    if (config_.rules.epoch_is_covered && newest->index < epoch.covered_from) continue;
    epoch.phase = EpochState::Phase::kCommitting;
    EpochRecord record = epoch.record;
    record.report = Epochs::Report(epoch, ledger_);  // duplicates may have come since
    record.report.committed = record.committed = true;
    record.report.manifest_version = newest->version;
    epoch.record.report = record.report;
    outputs_.push_back(PersistEpoch{std::move(record)});
  }
}

void CoordinatorImpl::OnEpochDurable(uint32_t number, int64_t now_ms) {
  using Phase = EpochState::Phase;
  EpochState* epoch = epochs_.Find(number);
  if (epoch == nullptr || (epoch->phase != Phase::kBeginning && epoch->phase != Phase::kCommitting)) return;
  if (epoch->phase == Phase::kCommitting) {
    epoch->phase = Phase::kCommitted;
    epoch->record.committed = true;
    ledger_.Close(number);
    for (const BatchId& batch : sessions_.ParkedOf(number)) AnswerSettled(batch);
  } else {
    epoch->phase = Phase::kOpen;
  }
  const EpochReport report = Epochs::Report(*epoch, ledger_);
  for (Tag tag : std::exchange(epoch->tags, {})) outputs_.push_back(Reply{tag, absl::OkStatus(), report});
  Advance(now_ms);
}

// ---- checkpoints -------------------------------------------------------------------------------------------------------------------

void CoordinatorImpl::RequestCheckpoint(Tag tag, int64_t now_ms) {
  if (health_ == Health::kFailed) return Answer(tag, StoppedError());
  if (version_ == 0) {
    return Answer(tag,
                  WithReason(absl::FailedPreconditionError(absl::StrCat("run ", spec_.name, " has no weights yet: no worker has set them")),
                             "NO_VERSION"));
  }
  checkpoints_.Want(tag);
  Advance(now_ms);
}

void CoordinatorImpl::StartCheckpoint(int64_t now_ms) {
  if (!checkpoints_.wanted() || checkpoints_.active() || version_ == 0 || !shards_.AllSeen() || RollbackPending()) return;
  checkpoint_version_ = version_;
  checkpoint_ms_ = now_ms;
  if (checkpoints_.newest() != nullptr && checkpoints_.newest()->index == history_.last()) {  // nothing happened since
    CheckpointDone(checkpoints_.TakeTags());
    return;
  }
  Decision cut = NewDecision(DecisionKind::kCheckpoint);
  if (!config_.rules.cut_ages_nothing) ++cut.version;
  Append(std::move(cut));
  Manifest manifest;
  manifest.run = spec_.name;
  manifest.generation = generation_;
  manifest.rolled_back_to = rollback_ ? rollback_->to : 0;
  manifest.version = version_;
  manifest.index = history_.last();
  manifest.chain = history_.chain();
  manifest.step = step_;
  manifest.loss = Describe().loss;
  manifest.ledger = (config_.rules.manifest_ledger ? ledger_ : Ledger()).Snapshot();
  checkpoints_.Start(std::move(manifest), shards_.size());
}

void CoordinatorImpl::OnManifestDurable(uint64_t version, int64_t now_ms) {
  const std::optional<std::vector<Tag>> tags = checkpoints_.Commit(version);
  if (!tags) return;
  const ManifestCommitted retention = checkpoints_.Retention();
  for (uint32_t s = 0; s < shards_.size(); ++s) {
    if (shards_[s].connected) SendShard(s, retention);
  }
  history_.DropBelow(std::min(retention.log_needed_from, settled_ + 1));
  FinishRollback();
  CheckpointDone(*tags);
  for (const auto& [tag, to] : std::exchange(rollbacks_wanted_, {})) Rollback(tag, to, now_ms);
  Advance(now_ms);
}

void CoordinatorImpl::AnswerManifest(Tag tag) {
  Manifest manifest = *checkpoints_.newest();
  manifest.ledger.clear();
  outputs_.push_back(Reply{tag, absl::OkStatus(), std::move(manifest)});
}

void CoordinatorImpl::CheckpointDone(const std::vector<Tag>& tags) {
  for (Tag tag : tags) AnswerManifest(tag);
  CoverEpochs();
}

void CoordinatorImpl::CheckpointTimer(int64_t now_ms) {
  if (spec_.checkpoint_seconds == 0 || version_ == checkpoint_version_) return;
  if (now_ms - checkpoint_ms_ >= static_cast<int64_t>(spec_.checkpoint_seconds) * 1000) checkpoints_.Want();
}

}  // namespace ballast
