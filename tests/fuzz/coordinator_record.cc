#include "tests/fuzz/coordinator_record.h"

#include <algorithm>
#include <cmath>

#include "core/record/decision.h"
#include "tests/fuzz/input.h"

namespace ballast::fuzz {

// ---- what the coordinator says
void CoordinatorRecord::Take(const Output& output) {
  if (const auto* to = std::get_if<ToSession>(&output)) {
    if (std::holds_alternative<Grant>(to->message)) newest_session_ = std::max(newest_session_, to->session);
    TakeMessage(to->message);
  }
  if (const auto* append = std::get_if<AppendDecision>(&output)) TakeDecision(*append->decision);
  if (const auto* commit = std::get_if<CommitManifest>(&output)) due_.emplace_back(*commit);
  if (const auto* persist = std::get_if<PersistEpoch>(&output)) {
    if (!persist->record.committed) committed_.erase(persist->record.epoch);
    due_.emplace_back(*persist);
  }
  if (const auto* drop = std::get_if<DropEpoch>(&output)) {
    committed_.erase(drop->epoch);
    due_.emplace_back(*drop);
  }
  if (const auto* reply = std::get_if<Reply>(&output); reply != nullptr && !reply->status.ok()) CheckRefusal(reply->status);
  if (const auto* to = std::get_if<ToShard>(&output)) {
    FUZZ_CHECK(to->shard < config_.shards);
    const auto* committed = std::get_if<ManifestCommitted>(&to->message);
    if (committed != nullptr && to->shard == 0) due_.emplace_back(*committed);
  }
}

void CoordinatorRecord::TakeMessage(const SessionMessage& message) {
  if (const auto* grant = std::get_if<Grant>(&message)) {
    FUZZ_CHECK(!RollingBack());
    FUZZ_CHECK(!decided_.contains(grant->batch.id));
    FUZZ_CHECK(grant->batch.id == kInitBatch || (grant->batch.rows >= 1 && grant->batch.rows <= config_.spec.batch_rows));
    FUZZ_CHECK(grant->base_version <= Durable().version);
    granted_[grant->batch.id].insert({grant->batch.rows, grant->batch.fingerprint});
  } else if (const auto* decided = std::get_if<Decided>(&message)) {
    for (const Batch& b : decided->batches) CheckDurable(b.id);
  } else if (const auto* done = std::get_if<Done>(&message)) {
    if (!done->no_epoch && !Committed(done->batch.id.epoch)) CheckDurable(done->batch.id);
  } else if (const auto* skip = std::get_if<SkipLogged>(&message)) {
    CheckDurable(skip->batch.id);
  } else if (const auto* close = std::get_if<CloseSession>(&message)) {
    FUZZ_CHECK(!close->reason.empty());
  }
}

void CoordinatorRecord::TakeDecision(const Decision& d) {
  FUZZ_CHECK(d.index == log_.size() + 1);
  FUZZ_CHECK(VerifyChain(last() == nullptr ? 0 : last()->chain, d).ok());
  FUZZ_CHECK(EncodeDecision(d).size() <= kDecisionBytesMax);
  const bool rollback = d.kind == DecisionKind::kRollback;
  if (last() != nullptr) {
    FUZZ_CHECK(d.version >= last()->version && d.sessions_closed_below >= last()->sessions_closed_below);
    FUZZ_CHECK(d.generation == last()->generation + (rollback ? 1 : 0));
  }
  CheckParts(d);
  if (rollback) CheckRollback(d);
  log_.push_back(std::make_shared<const Decision>(d));
  if (d.kind == DecisionKind::kCheckpoint) cut_ = d.version;
  if (rollback) {
    went_back_to_[d.index] = FindManifest(d.rollback_version)->index;
    decided_ = MarksAt(d.index);
  } else {
    Note(d, decided_);
  }
}

void CoordinatorRecord::CheckParts(const Decision& d) const {
  uint64_t rows = 0;
  for (const Part& part : d.parts) {
    uint64_t of_part = 0;
    FUZZ_CHECK(!part.batches.empty());
    FUZZ_CHECK(last() == nullptr || part.uid.session >= last()->sessions_closed_below);
    for (const Batch& b : part.batches) of_part += b.rows;
    FUZZ_CHECK(of_part == part.rows);
    rows += part.rows;
  }
  if (d.kind != DecisionKind::kStep) return;
  FUZZ_CHECK(rows > 0);
  FUZZ_CHECK(std::isfinite(d.divisor) && d.divisor > 0 && std::isfinite(d.clip_scale) && d.clip_scale >= 0 && d.clip_scale <= 1);
  for (float h : d.hyper) FUZZ_CHECK(std::isfinite(h));
}

void CoordinatorRecord::CheckRollback(const Decision& d) const {
  const Manifest* to = FindManifest(d.rollback_version);
  FUZZ_CHECK(to != nullptr && d.parts.empty() && d.skipped.empty());
  FUZZ_CHECK(to->healthy || config_.spec.durability == Durability::kCheckpoint);
  FUZZ_CHECK(d.version == last()->version + 1 && d.step == to->step);
  FUZZ_CHECK(d.sessions_closed_below > newest_session_);
}

// Each batch once, and as somebody was granted it.
void CoordinatorRecord::Note(const Decision& d, Marks& marks) const {
  const auto mark = [&](const Batch& b, bool skipped) {
    FUZZ_CHECK(marks.emplace(b.id, Mark{b.rows, d.index, skipped}).second);
    const auto granted = granted_.find(b.id);
    FUZZ_CHECK(granted != granted_.end() && granted->second.contains({b.rows, b.fingerprint}));
  };
  for (const Part& part : d.parts) {
    for (const Batch& b : part.batches) mark(b, false);
  }
  for (const SkippedBatch& s : d.skipped) mark(s.batch, true);
}

CoordinatorRecord::Marks CoordinatorRecord::MarksAt(uint64_t index) const {
  Marks marks;
  const auto after = went_back_to_.upper_bound(index);
  uint64_t from = 0;
  if (after != went_back_to_.begin()) {
    from = std::prev(after)->first;
    marks = MarksAt(std::prev(after)->second);
  }
  for (uint64_t i = from; i < index; ++i) Note(*log_[i], marks);
  return marks;
}

void CoordinatorRecord::CheckDurable(const BatchId& id) const {
  const auto it = decided_.find(id);
  FUZZ_CHECK(it != decided_.end() && it->second.index <= durable_);
}

void CoordinatorRecord::CheckStatus(const RunStatus& status) const {
  uint64_t trained = 0, skipped = 0;
  for (const auto& [id, mark] : decided_) {
    if (id.epoch != 0) (mark.skipped ? skipped : trained) += mark.rows;
  }
  FUZZ_CHECK(status.rows_trained == trained && status.rows_skipped == skipped);
  FUZZ_CHECK(status.index == durable_ && status.version == Durable().version);
  FUZZ_CHECK(status.generation == (last() == nullptr ? config_.generation : last()->generation));
  FUZZ_CHECK(status.state != RunStatus::State::kStopped || !status.reason.empty());
}

// ---- what disk does
uint64_t CoordinatorRecord::SyncLog(uint64_t decisions) { return durable_ = std::min<uint64_t>(log_.size(), durable_ + decisions); }

bool CoordinatorRecord::StoreNext(Stored* stored) {
  *stored = {};
  if (due_.empty()) return false;
  const Due due = std::move(due_.front());
  due_.pop_front();
  if (const auto* commit = std::get_if<CommitManifest>(&due)) {
    const Manifest& m = commit->manifest;
    FUZZ_CHECK(m.index <= durable_ && m.chain == log_[m.index - 1]->chain);
    std::erase_if(manifests_, [&](const Manifest& old) { return old.version == m.version; });
    manifests_.push_back(m);
    stored->manifest = m.version;
  } else if (const auto* persist = std::get_if<PersistEpoch>(&due)) {
    const EpochRecord& record = persist->record;
    epochs_[record.epoch] = record;
    if (record.committed) committed_.insert(record.epoch);
    stored->epoch = record.epoch;
  } else if (const auto* drop = std::get_if<DropEpoch>(&due)) {
    epochs_.erase(drop->epoch);
  } else if (const auto* committed = std::get_if<ManifestCommitted>(&due)) {
    std::erase_if(manifests_, [&](const Manifest& m) { return !committed->Keeps(m.version); });
    log_needed_from_ = std::max(log_needed_from_, committed->log_needed_from);
  }
  return true;
}

void CoordinatorRecord::Crash() {
  log_.resize(durable_);
  went_back_to_.erase(went_back_to_.upper_bound(durable_), went_back_to_.end());
  due_.clear();
  cut_.reset();
  decided_ = MarksAt(durable_);
}

CoordinatorState CoordinatorRecord::OnDisk(uint64_t cut) const {
  CoordinatorState state;
  state.manifests = manifests_;
  for (const auto& [number, record] : epochs_) state.epochs.push_back(record);
  const uint64_t from = std::min(1 + cut, log_needed_from_);
  for (uint64_t i = from; i <= log_.size(); ++i) state.decisions.push_back(log_[i - 1]);
  return state;
}

ShardPosition CoordinatorRecord::Durable() const {
  ShardPosition p;
  if (durable_ == 0) return p;
  const Decision& newest = *log_[durable_ - 1];
  p.index = newest.index;
  p.version = newest.version;
  p.chain = newest.chain;
  return p;
}

const Manifest* CoordinatorRecord::FindManifest(uint64_t version) const {
  const auto it = std::find_if(manifests_.begin(), manifests_.end(), [&](const Manifest& m) { return m.version == version; });
  return it == manifests_.end() ? nullptr : &*it;
}

bool CoordinatorRecord::RollingBack() const {
  return !went_back_to_.empty() && (manifests_.empty() || manifests_.back().index < went_back_to_.rbegin()->first);
}

}  // namespace ballast::fuzz
