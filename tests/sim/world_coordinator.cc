// Server 0's coordinator: its outputs, what they promise, and its restart.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/sim/world.h"

namespace ballast::sim {
namespace {

std::string Name(const BatchId& b) { return absl::StrCat(b.epoch, ".", b.partition, ".", b.seq); }

}  // namespace

void World::Drain() {
  if (!CoordinatorUp()) return;
  for (Output& output : coordinator_->TakeOutputs()) std::visit([this](auto& out) { Deliver(out); }, output);
}

void World::Deliver(ToSession& out) {
  if (const auto* decided = std::get_if<Decided>(&out.message)) {
    for (const Batch& b : decided->batches) CheckAcknowledged(b.id, "Decided");
  } else if (const auto* done = std::get_if<Done>(&out.message)) {
    if (!done->no_epoch) CheckAcknowledged(done->batch.id, "Done");
    if (done->no_epoch && !MayBeUndone()) Violation("an epoch is gone without a rollback");
    if (done->conflict) Violation("a conflict where every fingerprint is right");
  } else if (const auto* skip = std::get_if<SkipLogged>(&out.message)) {
    CheckAcknowledged(skip->batch.id, "SkipLogged");
  } else if (const auto* refuse = std::get_if<Refuse>(&out.message)) {
    ++seen_[refuse->reason == Refuse::Reason::kStale ? "stale" : refuse->reason == Refuse::Reason::kFenced ? "fenced" : "receipts"];
  } else if (const auto* close = std::get_if<CloseSession>(&out.message)) {
    ++seen_["closed"];
    if (close->final) Violation(absl::StrCat("the run stopped: ", close->reason));
  }
  for (SimWorker& w : workers_) {
    if (w.up && w.open && w.session == out.session) w.down.push_back(out.message);
  }
}

void World::Deliver(ToShard& out) {
  SimShard& shard = shards_[out.shard];
  // The records of manifests go later than the checkpoints on the shards, and stay when server 0 crashes before.
  if (const auto* committed = std::get_if<ManifestCommitted>(&out.message); committed != nullptr && out.shard == 0)
    disk_.emplace_back(DropManifests{*committed});
  if (shard.up && shard.connected) shard.down.push_back(std::move(out.message));
}

void World::Deliver(AppendDecision& out) { shards_[0].decisions.push_back(out.decision); }
void World::Deliver(CommitManifest& out) {
  const Manifest& m = out.manifest;
  if (m.index > shards_[0].synced_decisions)
    return Violation(absl::StrCat("the manifest of version ", m.version, " names decision ", m.index, ", which is not durable"));
  for (uint32_t s = 0; s < shards_.size(); ++s) {
    if (!shards_[s].checkpoints.contains(m.version))
      return Violation(absl::StrCat("shard ", s, " has no checkpoint of manifest ", m.version));
  }
  disk_.emplace_back(std::move(out.manifest));
}
void World::Deliver(PersistEpoch& out) { disk_.emplace_back(std::move(out.record)); }
void World::Deliver(DropEpoch& out) { disk_.emplace_back(out); }

void World::Deliver(Reply& out) {
  if (out.tag != tag_ || out.tag == 0) return;
  if (absl::IsUnavailable(out.status)) return DriveFromLedger();                          // a rollback: the driver asks again
  if (absl::IsFailedPrecondition(out.status) && MayBeUndone()) return DriveFromLedger();  // what it talks of is undone
  if (!out.status.ok()) return Violation(absl::StrCat("a request failed: ", out.status.ToString()));
  if (driver_ == DriverPhase::kBeginning) {
    driver_ = DriverPhase::kTrain;
    AddAttempts(epoch_);
  } else if (driver_ == DriverPhase::kCommitting) {
    const EpochReport& report = std::get<EpochReport>(out.value);
    if (!report.missing.empty() && MayBeUndone()) return FeedAgain(report);
    if (!report.committed || !report.missing.empty()) return Violation("every task has ended, but batches are missing");
    if (report.rows_in != report.rows_trained + report.rows_skipped) return Violation("rows in are not rows trained and skipped");
    for (const auto& [batch, index] : decided_) {
      if (batch.epoch == epoch_ && (manifests_.empty() || manifests_.back().index < index))
        return Violation(absl::StrCat("epoch ", epoch_, " is committed, but its batch ", Name(batch), " is in no manifest"));
    }
    ++epoch_;
    driver_ = epoch_ > scenario_.epochs ? DriverPhase::kEnd : DriverPhase::kBegin;
  }
}

void World::CheckAcknowledged(const BatchId& batch, const char* how) {
  const auto it = decided_.find(batch);
  if (it == decided_.end()) return Violation(absl::StrCat(how, ": batch ", Name(batch), " is acknowledged but not durably decided"));
  for (uint32_t s = 0; s < shards_.size(); ++s) {
    if (shards_[s].ever_accepted < it->second) {
      return Violation(
          absl::StrCat(how, ": batch ", Name(batch), " is acknowledged, but shard ", s, " never accepted decision ", it->second));
    }
  }
}

// Of what was said before a rollback, perhaps.
void World::CheckOnceDecided(const BatchId& batch, const char* how) {
  if (!ever_decided_.contains(batch)) Violation(absl::StrCat(how, ": batch ", Name(batch), " was never durably decided"));
}

// The decisions after the manifest have never been made.
void World::Undo(const Decision& rollback) {
  ++seen_["rollbacks"];
  const auto to =
      std::find_if(manifests_.begin(), manifests_.end(), [&](const Manifest& m) { return m.version == rollback.rollback_version; });
  if (to == manifests_.end()) return Violation("a rollback to a manifest that is not durable");
  std::erase_if(decided_, [&](const auto& d) { return d.second > to->index; });
  std::erase_if(skipped_, [&](const BatchId& b) { return !decided_.contains(b); });
}

// At the moment the decision becomes durable.
void World::CheckDurable(const Decision& d) {
  if (d.kind == DecisionKind::kRollback) return Undo(d);
  const auto mark = [&](const BatchId& b) {
    ever_decided_.insert(b);
    if (!decided_.emplace(b, d.index).second)
      Violation(absl::StrCat("batch ", Name(b), " is decided twice: decisions ", decided_[b], " and ", d.index));
  };
  uint64_t rows = 0;
  for (const Part& part : d.parts) {
    rows += part.rows;
    for (const Batch& b : part.batches) mark(b.id);
    for (uint32_t s = 0; s < shards_.size(); ++s) {
      if (!(Volatile() && d.kind == DecisionKind::kStep) && !shards_[s].Has(part.uid, /*synced=*/s != 0)) {
        Violation(
            absl::StrCat("decision ", d.index, ": contribution ", part.uid.session, "/", part.uid.counter, " is not durable on shard ", s));
      }
    }
    if (d.kind == DecisionKind::kStep && scenario_.staleness_max != kStalenessUnbounded &&
        d.version - 1 - part.base_version > scenario_.staleness_max) {
      Violation(absl::StrCat("decision ", d.index, " makes version ", d.version, " with a contribution of version ", part.base_version));
    }
  }
  for (const SkippedBatch& s : d.skipped) {
    mark(s.batch.id);
    skipped_.insert(s.batch.id);
    const auto listed = [&](const std::vector<BatchId>& list) { return std::find(list.begin(), list.end(), s.batch.id) != list.end(); };
    // Three faults may hit three sessions while they compute the same batch: nobody can tell that from a batch that kills.
    const bool unlucky = faults_made_ - leaves_made_ >= 3 && s.reason.find("quarantined") == 0;
    if (!listed(scenario_.bad) && !listed(scenario_.poison) && !unlucky)
      Violation(absl::StrCat("batch ", Name(s.batch.id), " is skipped without need: ", s.reason));
  }
  if (d.kind != DecisionKind::kStep) return;
  ++seen_["steps"];
  if (scenario_.step_rows > 0 && faults_made_ == 0 && rows >= scenario_.step_rows + scenario_.batch_rows) {
    Violation(absl::StrCat("decision ", d.index, " holds ", rows, " rows"));
  }
}

void World::FinishDiskWrite(bool tell) {
  auto write = std::move(disk_.front());
  disk_.pop_front();
  if (auto* manifest = std::get_if<Manifest>(&write)) {
    const uint64_t version = manifest->version;
    std::erase_if(manifests_, [&](const Manifest& m) { return m.version == version; });
    manifests_.push_back(std::move(*manifest));
    ++seen_["manifests"];
    if (tell) coordinator_->OnManifestDurable(version, now_ms_);
  } else if (const auto* drop = std::get_if<DropEpoch>(&write)) {
    epochs_.erase(drop->epoch);
  } else if (const auto* drop = std::get_if<DropManifests>(&write)) {
    std::erase_if(manifests_, [&](const Manifest& m) { return !drop->committed.Keeps(m.version); });
  } else {
    EpochRecord& record = std::get<EpochRecord>(write);
    const uint32_t epoch = record.epoch;
    epochs_[epoch] = std::move(record);
    if (tell) coordinator_->OnEpochDurable(epoch, now_ms_);
  }
  Drain();
}

void World::CollectCoordinator() {
  if (!CoordinatorUp()) {
    Add([this] { StartServer0(); });
    return;
  }
  if (!disk_.empty()) Add([this] { FinishDiskWrite(true); });
  for (auto it = streams_.begin(); it != streams_.end(); ++it) {
    if (!it->up.empty() && !Blocked(Partition::Link::kWork, it->worker, 0, true)) Add([this, it] { DeliverWork(*it); });
  }
}

void World::DeliverWork(WorkStream& stream) {
  const WorkUp message = std::move(stream.up.front());
  stream.up.pop_front();
  const SessionId id = stream.session;
  if (const auto* claim = std::get_if<ClaimUp>(&message)) {
    coordinator_->OnClaim(id, claim->batch, claim->uid, now_ms_);
  } else if (const auto* submission = std::get_if<Submission>(&message)) {
    coordinator_->OnSubmit(id, *submission, now_ms_);
  } else if (const auto* skip = std::get_if<SkipUp>(&message)) {
    coordinator_->OnSkip(id, skip->batch, "bad batch", now_ms_);
  } else if (const auto* status = std::get_if<StatusUp>(&message)) {
    coordinator_->OnStatus(id, status->blocked, status->rows_done, now_ms_);
  } else if (std::holds_alternative<LeaveUp>(message)) {
    coordinator_->OnSessionLeft(id, now_ms_);
  } else {
    coordinator_->OnSessionLost(id, now_ms_);
  }
  Drain();
}

// The decision log first; the shard's weights follow.
void World::StartServer0() {
  Note("server 0 starts");
  SimShard& own = shards_[0];
  config_.incarnation = own.incarnation = ++incarnation_;
  own.up = true;
  CoordinatorState state;
  state.manifests = manifests_;
  for (const auto& [number, record] : epochs_) state.epochs.push_back(record);
  for (const DecisionPtr& d : own.decisions) {
    if (d->index >= log_needed_from_) state.decisions.push_back(d);
  }
  absl::StatusOr<std::unique_ptr<Coordinator>> restored = Coordinator::Restore(config_, std::move(state), now_ms_);
  if (!restored.ok()) return Violation(absl::StrCat("the coordinator does not start: ", restored.status().ToString()));
  coordinator_ = *std::move(restored);
  for (uint32_t s = 0; s < shards_.size(); ++s) coordinator_->OnDisk(s, disk_low_[s], "simulated", now_ms_);
  if (driver_ == DriverPhase::kBeginning) driver_ = DriverPhase::kBegin;
  if (driver_ == DriverPhase::kCommitting) driver_ = DriverPhase::kCommit;
  Drain();
}

void World::CrashServer0() {
  Note("CRASH server 0");
  // The crash may fall between a sync and what it would have caused.
  if (rng_.Chance(50)) SyncShard(0, /*tell=*/false);
  while (!disk_.empty() && rng_.Chance(50)) FinishDiskWrite(/*tell=*/false);
  disk_.clear();
  coordinator_.reset();
  streams_.clear();
  shards_[0].LoseTail();
  shards_[0].up = false;
  for (SimShard& shard : shards_) {
    shard.connected = false;
    shard.down.clear();
    shard.up_stream.clear();
  }
  for (uint32_t w = 0; w < workers_.size(); ++w) {
    push_[w][0].clear();
    receipts_[w][0].clear();
    workers_[w].down.clear();
    if (workers_[w].up && workers_[w].open) LoseSession(w, /*keep_bytes=*/true);
  }
}

}  // namespace ballast::sim
