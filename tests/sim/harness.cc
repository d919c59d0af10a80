#include "tests/sim/harness.h"

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "tests/sim/receipt_of.h"

namespace ballast::sim {

RunSpec Harness::Spec() {
  RunSpec spec;
  spec.name = "run";
  spec.step_rows = 8;
  spec.batch_rows = 4;
  spec.contribution_rows = 8;
  spec.lease_ms = 5000;
  spec.linger_ms = 500;
  return spec;
}

RunSpec Harness::Async(uint32_t staleness_max) {
  RunSpec spec = Spec();
  spec.step_rows = 0;
  spec.contribution_rows = 4;
  spec.staleness_max = staleness_max;
  return spec;
}

std::string& Harness::mutation() {
  static std::string name;
  return name;
}

Harness::Harness(RunSpec spec, uint32_t shards) : incarnations_(shards, 1) {
#ifdef BALLAST_MUTATIONS
  if (!mutation().empty()) Mutate(mutation(), config_.rules);
#endif
  config_.spec = std::move(spec);
  config_.shards = shards;
  config_.incarnation = 0;
  RestartCoordinator();
}

Harness& Harness::Ready() {
  for (uint32_t s = 0; s < config_.shards; ++s) Position(s);
  const SessionId init = Open();
  Claim(init, Batch{kInitBatch, 1, 0});
  Submit(init, {Batch{kInitBatch, 1, 0}});
  coordinator_->OnSessionLost(init, now_ms_);
  Begin(1);
  Pump();
  return *this;
}

void Harness::RestartCoordinator() {
  incarnations_[0] = ++config_.incarnation;
  decisions_.resize(durable_);
  to_session_.clear();
  to_shard.clear();
  CoordinatorState state{manifests, {}, decisions_};
  for (const auto& [number, record] : epochs) state.epochs.push_back(record);
  auto restored = Coordinator::Restore(config_, std::move(state), now_ms_);
  if (!restored.ok()) {
    std::fprintf(stderr, "Restore: %s\n", restored.status().ToString().c_str());
    std::abort();
  }
  coordinator_ = *std::move(restored);
}

void Harness::Position(uint32_t shard, std::vector<Uid> undecided) {
  ShardPosition p;
  p.shard = shard;
  p.incarnation = incarnations_[shard];
  p.index = durable_;
  p.version = durable_ == 0 ? 0 : decisions_[durable_ - 1]->version;
  p.chain = durable_ == 0 ? 0 : decisions_[durable_ - 1]->chain;
  p.undecided = std::move(undecided);
  p.receipt_key = incarnations_[shard];
  coordinator_->OnShardPosition(p, now_ms_);
  Pump();
}

void Harness::RestartShard(uint32_t shard, std::vector<Uid> undecided) {
  coordinator_->OnShardLost(shard, now_ms_);
  ++incarnations_[shard];
  Position(shard, std::move(undecided));
}

SessionId Harness::Open(SessionId resume) {
  const SessionId id = coordinator_->OpenSession("worker", resume, now_ms_).value().session;
  Blocked(id);
  return id;
}

Batch Harness::B(uint64_t seq, uint32_t partition, uint32_t rows) { return {{1, partition, seq}, rows, 100 + seq}; }

void Harness::Claim(SessionId s, const Batch& b, std::optional<Uid> uid) {
  coordinator_->OnClaim(s, b, uid, now_ms_);
  Pump();
}

Uid Harness::Submit(SessionId s, const std::vector<Batch>& batches, std::optional<uint64_t> base) {
  const Uid uid{s, ++counters_[s]};
  Submit(s, uid, batches, base);
  return uid;
}

void Harness::Submit(SessionId s, Uid uid, const std::vector<Batch>& batches, std::optional<uint64_t> base) {
  Submission submission;
  submission.uid = uid;
  submission.batches = batches;
  submission.base_version = base.value_or(durable_ == 0 ? 0 : decisions_[durable_ - 1]->version);
  for (const Batch& b : batches) submission.rows += b.rows;
  submission.loss_sum = static_cast<double>(submission.rows) / 2;
  for (uint32_t shard = 0; shard < config_.shards; ++shard) submission.receipts.push_back(ReceiptOf(shard, incarnations_[shard], uid));
  coordinator_->OnOwnLog(uid);
  coordinator_->OnSubmit(s, std::move(submission), now_ms_);
  Pump();
}

void Harness::Blocked(SessionId s, bool blocked, uint64_t rows_done) {
  coordinator_->OnStatus(s, blocked, rows_done, now_ms_);
  Pump();
}

void Harness::Lose(SessionId s) {
  coordinator_->OnSessionLost(s, now_ms_);
  Pump();
}

void Harness::Advance(int64_t ms) {
  for (const int64_t end = now_ms_ + ms; now_ms_ < end;) {
    now_ms_ += 100;
    coordinator_->OnTick(now_ms_);
    Pump();
  }
}

void Harness::Train(SessionId s, const Batch& b) {
  Claim(s, b);
  Submit(s, {b});
}

Reply Harness::TakeReply(Tag tag) {
  Pump();
  for (Reply& r : replies) {
    if (r.tag == tag) return r;
  }
  return Reply{0, absl::UnavailableError("no reply yet"), {}};
}

Reply Harness::Begin(uint32_t epoch, uint32_t partitions, uint64_t batch_rows) {
  EpochRecord record;
  record.epoch = epoch;
  record.partitions = partitions;
  record.batch_rows = batch_rows;
  record.schema = config_.spec.schema;
  coordinator_->BeginEpoch(++tag_, record, now_ms_);
  return TakeReply(tag_);
}

Reply Harness::Commit(uint32_t epoch, const std::vector<Coordinator::PartitionCount>& counts) {
  coordinator_->CommitEpoch(++tag_, epoch, counts, now_ms_);
  return TakeReply(tag_);
}

Reply Harness::Checkpoint() {
  coordinator_->RequestCheckpoint(++tag_, now_ms_);
  return TakeReply(tag_);
}

Reply Harness::Rollback(uint64_t version) {
  coordinator_->Rollback(++tag_, version, now_ms_);
  return TakeReply(tag_);
}

void Harness::MakeDurable() {
  durable_ = decisions_.size();
  coordinator_->OnDecisionDurable(durable_, now_ms_);
  Pump();
}

void Harness::Accept(uint32_t shard, uint64_t index, uint64_t coordinator_incarnation) {
  coordinator_->OnAccepted(shard, index, coordinator_incarnation, now_ms_);
  Pump();
}

void Harness::Apply(uint32_t shard, uint64_t index) {
  coordinator_->OnApplied(shard, index, now_ms_);
  Pump();
}

void Harness::Pump() {
  for (std::vector<Output> outputs = coordinator_->TakeOutputs(); !outputs.empty(); outputs = coordinator_->TakeOutputs()) {
    for (Output& output : outputs) Deliver(output);
  }
}

void Harness::Deliver(Output& output) {
  if (auto* to = std::get_if<ToSession>(&output)) {
    to_session_[to->session].push_back(std::move(to->message));
  } else if (auto* shard = std::get_if<ToShard>(&output)) {
    to_shard.emplace_back(shard->shard, shard->message);
    if (const auto* decision = std::get_if<std::shared_ptr<const Decision>>(&shard->message)) {
      const Decision& d = **decision;
      if (auto_accept) coordinator_->OnAccepted(shard->shard, d.index, config_.incarnation, now_ms_);
      if (auto_apply) coordinator_->OnApplied(shard->shard, d.index, now_ms_);
      if (auto_checkpoint && d.kind == DecisionKind::kCheckpoint) {
        const uint64_t nonfinite = nonfinite_versions.contains(d.version) ? 1 : 0;
        coordinator_->OnCheckpointed(shard->shard, d.version, ShardDigest{shard->shard, 7, 100, nonfinite}, 5000, now_ms_);
      }
    } else if (const auto* query = std::get_if<NormQuery>(&shard->message); query != nullptr && auto_norm) {
      coordinator_->OnNorm(shard->shard, query->query, 50.0, now_ms_);
    }
  } else if (auto* append = std::get_if<AppendDecision>(&output)) {
    decisions_.push_back(append->decision);
    if (!auto_durable) return;
    durable_ = decisions_.size();
    coordinator_->OnDecisionDurable(append->decision->index, now_ms_);
  } else if (auto* commit = std::get_if<CommitManifest>(&output)) {
    const uint64_t version = commit->manifest.version;
    std::erase_if(manifests, [&](const Manifest& m) { return m.version == version; });
    manifests.push_back(std::move(commit->manifest));
    coordinator_->OnManifestDurable(version, now_ms_);
  } else if (auto* persist = std::get_if<PersistEpoch>(&output)) {
    const uint32_t epoch = persist->record.epoch;
    epochs[epoch] = std::move(persist->record);
    coordinator_->OnEpochDurable(epoch, now_ms_);
  } else if (const auto* drop = std::get_if<DropEpoch>(&output)) {
    dropped_epochs.push_back(drop->epoch);
    epochs.erase(drop->epoch);
  } else {
    replies.push_back(std::move(std::get<Reply>(output)));
  }
}

}  // namespace ballast::sim
