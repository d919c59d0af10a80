#include "server/shard/run_shard.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "core/record/decision.h"
#include "core/record/log_record.h"
#include "server/failpoint.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/shard/checkpoint_store.h"
#include "server/shard/checkpointer.h"
#include "server/shard/decision_index.h"
#include "server/shard/owner_queue.h"
#include "server/shard/publisher.h"
#include "server/shard/push_intake.h"
#include "server/shard/recovery.h"
#include "server/shard/recovery_progress.h"
#include "server/shard/replica.h"
#include "server/storage/segment_log.h"

namespace ballast {
namespace {

// Reading, checking and copying a log, beside applying it: measured with tools/bench/recovery.
constexpr double kReadSecondsPerByte = 1.5e-9;

double Seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
double UnixSeconds() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

class RunShardImpl : public RunShard {
 public:
  RunShardImpl(RunShardOptions options, std::unique_ptr<Replica> replica, Store* store, ShardEvents* events, ShardMetrics* metrics)
      : options_(std::move(options)),
        store_(store),
        events_(events),
        metrics_(metrics),
        replica_(std::move(replica)),
        intake_(&options_, replica_.get(), events, metrics),
        decisions_(options_.dir),
        publisher_([this] { queue_.Post([this] { Publish(); }); }),
        checkpointer_(std::make_unique<Checkpointer>(MakeCheckpointerOptions(), store, &replica_->blocks(), &replica_->values())),
        queue_(options_.queue_bytes_max, metrics) {}

  ~RunShardImpl() override {
    queue_.Stop();
    if (thread_.joinable()) thread_.join();
    publisher_.Close();
    checkpointer_.reset();  // may wait for the log
    log_.reset();           // syncs; its callbacks may still come
    if (metrics_ != nullptr) {
      metrics_->AddLogDebt(-debt_);
      metrics_->AddDebtSeconds(-debt_seconds_);
    }
  }

  // Before any other thread may call: rebuilds the state, opens the log behind it, starts the owner.
  absl::Status Recover(const std::string& run_record);

  ShardPosition Position() override {
    ShardPosition out;
    queue_.RunAndWait([&] {
      const ReplicaPosition& p = replica_->position();
      out = {options_.shard, options_.incarnation, p.index, p.version, p.chain, {}, options_.receipt_key};
      const uint64_t synced = log_->synced_sequence();
      for (const Contribution* held : replica_->staging().Complete()) {
        if (held->last.sequence <= synced) out.undecided.push_back(held->uid);
      }
    });
    return out;
  }

  absl::StatusOr<std::vector<std::shared_ptr<const Decision>>> ReadDecisions(uint64_t first, uint64_t last) override {
    return decisions_.Read(first, last);
  }

  absl::Status Push(PushedChunk&& chunk, std::function<void(const PushResult&)> done) override {
    return queue_.Push(chunk.head.size() + chunk.payload.size(), [&]() -> OwnerQueue::Task {
      auto taken = std::make_shared<PushedChunk>(std::move(chunk));
      return [this, taken, done = std::move(done)] { intake_.Take(*taken, done); };
    });
  }

  void AppendDecision(std::shared_ptr<const Decision> decision) override {
    const uint64_t index = decision->index;
    absl::MutexLock lock(&append_mu_);
    if (index <= decisions_.last()) return;  // recovered: durable long ago
    AppendToLog(std::move(decision), [this, index] {
      BALLAST_FAILPOINT("decision-durable");
      events_->OnDecisionDurable(index);
    });
  }

  void Deliver(std::shared_ptr<const Decision> decision) override {
    queue_.Post([this, decision = std::move(decision)] { HandleDecision(decision); });
  }

  void QueryNorm(NormQuery query) override {
    queue_.Post([this, query = std::move(query)] {
      absl::StatusOr<double> norm2 = replica_->Norm(query.uids);
      if (!norm2.ok()) return Fail(norm2.status());
      events_->OnNorm(query.query, *norm2);
    });
  }

  void OnManifestCommitted(ManifestCommitted manifest) override {
    queue_.Post([this, manifest = std::move(manifest)] { HandleManifest(manifest); });
  }

  void ReportAgain() override {
    queue_.Post([this] {
      if (options_.coordinator_log) {
        for (const Contribution* held : replica_->staging().Complete()) events_->OnOwnLog(held->uid);
      }
      if (!checkpoints_.empty()) events_->OnCheckpointed(checkpoints_.rbegin()->first, checkpoints_.rbegin()->second.digest);
    });
    absl::MutexLock lock(&disk_mu_);
    events_->OnDisk(disk_low_, disk_reason_);
  }

  uint64_t Pull(uint64_t min_version, Codec codec, std::function<void(std::shared_ptr<const Encoding>)> ready) override {
    return publisher_.Pull(min_version, codec, std::move(ready));
  }
  void CancelPull(uint64_t id) override { publisher_.Cancel(id); }

  absl::StatusOr<std::shared_ptr<const Encoding>> ReadCheckpoint(uint64_t version, bool slots,
                                                                 absl::Span<const uint32_t> tensors) override {
    absl::StatusOr<std::map<uint64_t, CheckpointMeta>> all = ListCheckpoints(*store_, replica_->blocks().spec().name);
    if (!all.ok()) return all.status();
    const auto meta = all->find(version);
    if (meta == all->end()) return absl::NotFoundError(absl::StrCat("no checkpoint of version ", version, " on server ", options_.shard));
    return EncodeCheckpoint(*store_, meta->second, replica_->blocks(), slots, tensors);
  }

  uint64_t StateHash(uint64_t* version) override {
    uint64_t hash = 0;
    queue_.RunAndWait([&] {
      hash = replica_->values().Root();
      if (version != nullptr) *version = replica_->position().version;
    });
    return hash;
  }

  ReplayDebt Debt() const override { return {debt_seconds_, static_cast<uint64_t>(debt_.load())}; }

 private:
  CheckpointerOptions MakeCheckpointerOptions();
  SegmentLogOptions MakeLogOptions(std::string run_record);

  void Run();
  void RefuseRest();
  void Fail(const absl::Status& status);

  // ---- owner
  void HandleDecision(const std::shared_ptr<const Decision>& decision);
  void AfterApply(const Decision& d);
  void HandleManifest(const ManifestCommitted& manifest);
  void CutLog(uint64_t needed_from);
  void Publish();
  void CountDebt();

  void AppendToLog(std::shared_ptr<const Decision> decision, std::function<void()> on_synced) ABSL_EXCLUSIVE_LOCKS_REQUIRED(append_mu_);

  const RunShardOptions options_;
  Store* const store_;
  ShardEvents* const events_;
  ShardMetrics* const metrics_;  // may be null
  std::atomic<bool> failed_{false};

  // Owner.
  std::unique_ptr<Replica> replica_;
  PushIntake intake_;
  std::map<uint64_t, CheckpointMeta> checkpoints_;  // finished, by version
  double apply_seconds_ = 0;                        // of every decision so far, of the replayed ones too
  std::map<uint64_t, double> apply_before_cut_;     // apply_seconds_ at the cut of a checkpoint, by version
  double apply_covered_ = 0;                        // up to the newest manifest

  std::unique_ptr<SegmentLog> log_;
  absl::Mutex append_mu_;  // decisions enter log and index in the same order; taken by the coordinator's thread (shard 0) or the owner
  DecisionIndex decisions_;
  Publisher publisher_;
  std::unique_ptr<Checkpointer> checkpointer_;
  absl::Mutex disk_mu_;  // held while the event is given, so that the last one is the newest
  bool disk_low_ ABSL_GUARDED_BY(disk_mu_) = false;
  std::string disk_reason_ ABSL_GUARDED_BY(disk_mu_);
  std::atomic<int64_t> debt_{0};  // bytes of log that a restart would read
  std::atomic<double> debt_seconds_{0};

  OwnerQueue queue_;
  std::thread thread_;
};

CheckpointerOptions RunShardImpl::MakeCheckpointerOptions() {
  CheckpointerOptions o;
  o.ring_bytes_max = options_.ring_bytes_max;
  o.on_done = [this](const CheckpointMeta& meta, double seconds) {
    if (metrics_ != nullptr) metrics_->CheckpointDone(seconds, meta.digest.bytes, UnixSeconds());
    queue_.Post([this, meta] { checkpoints_[meta.position.version] = meta; });
    events_->OnCheckpointed(meta.position.version, meta.digest);
  };
  o.on_failed = [this](const absl::Status& s) {
    if (metrics_ != nullptr) metrics_->CheckpointFailed();
    Fail(s);
  };
  o.on_room = [this] { queue_.TellRoom(); };
  return o;
}

SegmentLogOptions RunShardImpl::MakeLogOptions(std::string run_record) {
  SegmentLogOptions o;
  o.dir = options_.dir;
  o.run_record = std::move(run_record);
  o.segment_bytes = options_.segment_bytes;
  o.disk_reserve_bytes = options_.disk_reserve_bytes;
  o.retain_all = options_.retain_all;
  o.on_failed = [this](const absl::Status& s) { Fail(s); };
  o.on_disk = [this](bool low, const std::string& reason) {
    absl::MutexLock lock(&disk_mu_);
    disk_low_ = low;
    disk_reason_ = reason;
    events_->OnDisk(low, reason);
  };
  o.on_group = [this](uint64_t bytes, double sync_seconds) {
    debt_ += static_cast<int64_t>(bytes);
    if (metrics_ == nullptr) return;
    metrics_->LogWritten(bytes);
    metrics_->Synced(sync_seconds);
    metrics_->AddLogDebt(static_cast<int64_t>(bytes));
  };
  o.on_cut = [this](uint64_t bytes) {
    const int64_t cut = std::min<int64_t>(static_cast<int64_t>(bytes), debt_);
    debt_ -= cut;
    if (metrics_ != nullptr) metrics_->AddLogDebt(-cut);
  };
  return o;
}

absl::Status RunShardImpl::Recover(const std::string& run_record) {
  BALLAST_FAILPOINT_STATUS("recovery-begin");
  const RunRecord record{options_.shard, options_.shards, run_record};
  RecoveryHooks hooks;
  hooks.decided = [this](std::shared_ptr<const Decision> d, const LogPosition& at) {
    // A checkpoint that the crash cut short, or that turned out to be damaged, is made again from the same cut.
    if (d->kind == DecisionKind::kCheckpoint && d->index == replica_->position().index && !replica_->lost() &&
        !checkpoints_.contains(d->version)) {
      checkpointer_->Begin(replica_->position(), [] { return absl::OkStatus(); });
    }
    decisions_.Add(std::move(d), at);
  };
  hooks.before_change = [this](size_t block) { checkpointer_->BeforeChange(block); };
  RecoveryProgress progress(replica_->blocks().spec().name, metrics_, Seconds);
  hooks.progress = &progress;
  absl::StatusOr<Recovered> recovered = RecoverShard(options_.dir, record, *store_, *replica_, hooks, &checkpoints_);
  if (!recovered.ok()) return recovered.status();
  debt_ = static_cast<int64_t>(recovered->log.bytes);
  if (metrics_ != nullptr) metrics_->AddLogDebt(debt_);
  apply_seconds_ = recovered->replay_seconds;
  CountDebt();

  absl::StatusOr<std::unique_ptr<SegmentLog>> log = SegmentLog::Open(MakeLogOptions(EncodeRunRecord(record)), recovered->log);
  if (!log.ok()) return log.status();
  log_ = *std::move(log);
  intake_.Use(log_.get());
  if (absl::Status s = PutLogBegun(*store_, replica_->blocks().spec().name, replica_->blocks().generation()); !s.ok()) return s;
  BALLAST_FAILPOINT("log-begun");
  const ReplicaPosition& position = replica_->position();
  LogInfo("run recovered", {{"run", replica_->blocks().spec().name},
                            {"shard", absl::StrCat(options_.shard)},
                            {"version", absl::StrCat(position.version)},
                            {"index", absl::StrCat(position.index)},
                            {"hash", absl::StrFormat("%016x", replica_->values().Root())}});
  queue_.TellRoom();
  BALLAST_FAILPOINT("run-recovered");
  Publish();
  thread_ = std::thread([this] { Run(); });
  return absl::OkStatus();
}

void RunShardImpl::Run() {
  queue_.Run([this](bool must) { return must ? checkpointer_->PayOne() : checkpointer_->owing(); });
  // Whoever waits for an answer gets one: the far end of a stream would wait for ever.
  intake_.Close();
  for (const OwnerQueue::Task& task : queue_.TakeRest()) task();
}

void RunShardImpl::Fail(const absl::Status& status) {
  if (failed_.exchange(true)) return;
  intake_.Close();
  LogError("a shard failed and stops", {{"run", replica_->blocks().spec().name}, {"error", std::string(status.message())}});
  events_->OnFailed(status);
}

// ---- decisions ----

void RunShardImpl::AppendToLog(std::shared_ptr<const Decision> decision, std::function<void()> on_synced) {
  BALLAST_FAILPOINT("decision-append");
  const std::string bytes = EncodeDecision(*decision);
  const absl::string_view body = bytes;
  absl::StatusOr<LogPosition> at = log_->Append(RecordKind::kDecision, absl::MakeConstSpan(&body, 1), std::move(on_synced));
  if (!at.ok()) return Fail(at.status());
  decisions_.Add(std::move(decision), *at);
  BALLAST_FAILPOINT("decision-appended");
}

void RunShardImpl::HandleDecision(const std::shared_ptr<const Decision>& decision) {
  if (failed_) return;
  const uint64_t index = decision->index;
  const ReplicaPosition& position = replica_->position();
  if (index <= position.index) {  // sent again after a reconnect
    events_->OnAccepted(index);
    events_->OnApplied(index, position.version);
    return;
  }
  if (absl::Status s = replica_->Check(*decision); !s.ok()) return Fail(s);
  {
    absl::MutexLock lock(&append_mu_);
    if (index > decisions_.last()) AppendToLog(decision, nullptr);
  }
  if (failed_) return;
  BALLAST_FAILPOINT("decision-accept");
  events_->OnAccepted(index);

  BALLAST_FAILPOINT("decision-apply");
  if (decision->kind == DecisionKind::kRollback) {
    BALLAST_FAILPOINT("rollback-restore");
    if (replica_->blocks().size() > 0) checkpointer_->BeforeChange(replica_->blocks().size() - 1);  // of all
    if (absl::Status s = RestoreValues(*store_, checkpoints_, *decision, *replica_); !s.ok()) return Fail(s);
    BALLAST_FAILPOINT("rollback-restored");
  }
  const double start = Seconds();
  const uint64_t before = position.version;
  replica_->Apply(*decision, [this](size_t block) { checkpointer_->BeforeChange(block); });
  BALLAST_FAILPOINT("decision-applied");
  if (position.version != before) {
    apply_seconds_ += Seconds() - start;
    if (metrics_ != nullptr) metrics_->Applied(Seconds() - start);
    CountDebt();
  }
  AfterApply(*decision);
  BALLAST_FAILPOINT("version-publish");
  Publish();
  BALLAST_FAILPOINT("apply-report");
  events_->OnApplied(index, position.version);
  BALLAST_FAILPOINT("apply-reported");
}

void RunShardImpl::AfterApply(const Decision& d) {
  if (std::optional<HashRoot> root = replica_->RootDue(); root.has_value()) {
    BALLAST_FAILPOINT("root-append");
    const std::string bytes = EncodeHashRoot(*root);
    const absl::string_view body = bytes;
    absl::StatusOr<LogPosition> at = log_->Append(RecordKind::kHashRoot, absl::MakeConstSpan(&body, 1), nullptr);
    if (!at.ok()) return Fail(at.status());
    BALLAST_FAILPOINT("root-appended");
  }
  if (d.kind != DecisionKind::kCheckpoint || replica_->lost()) return;
  BALLAST_FAILPOINT("checkpoint-begin");
  apply_before_cut_[d.version] = apply_seconds_;
  const uint64_t appended = decisions_.SequenceOf(d.index);
  checkpointer_->Begin(replica_->position(), [this, appended] { return log_->WaitSynced(appended); });
  queue_.TellRoom();
}

void RunShardImpl::HandleManifest(const ManifestCommitted& manifest) {
  BALLAST_FAILPOINT("manifest-take");
  if (const auto cut = apply_before_cut_.find(manifest.version); cut != apply_before_cut_.end()) {
    apply_covered_ = cut->second;
    apply_before_cut_.erase(apply_before_cut_.begin(), std::next(cut));
    CountDebt();
  }
  for (auto it = checkpoints_.begin(); it != checkpoints_.end();) {
    if (manifest.Keeps(it->first)) {
      ++it;
      continue;
    }
    checkpointer_->Drop(it->first);
    it = checkpoints_.erase(it);
  }
  // Two checkpoints must be good enough to start from, so the log reaches back to the older one.
  auto newest = checkpoints_.find(manifest.version);
  if (newest == checkpoints_.end() || newest == checkpoints_.begin()) return;
  CutLog(std::min(manifest.log_needed_from, std::prev(newest)->second.position.index + 1));
  BALLAST_FAILPOINT("manifest-taken");
}

// A restart applies what no manifest covers, and reads and checks all that is kept.
void RunShardImpl::CountDebt() {
  const double now = apply_seconds_ - apply_covered_ + kReadSecondsPerByte * static_cast<double>(debt_);
  if (metrics_ != nullptr) metrics_->AddDebtSeconds(now - debt_seconds_);
  debt_seconds_ = now;
}

void RunShardImpl::CutLog(uint64_t needed_from) {
  Staging& staging = replica_->staging();
  const uint64_t segment = std::min(decisions_.SegmentOf(needed_from), staging.FirstNeededSegment(needed_from));
  if (options_.retain_all || segment == 0) return;
  log_->Cut(segment);
  decisions_.CutBelowSegment(segment);
  staging.ForgetSegmentsBelow(segment);
}

void RunShardImpl::Publish() {
  const uint64_t version = replica_->position().version;
  if (version == 0 || replica_->lost()) return;
  publisher_.Serve(version, [&](Codec codec) { return replica_->values().Encode(version, codec); });
}

}  // namespace

absl::StatusOr<std::unique_ptr<RunShard>> RunShard::Open(RunShardOptions options, const RunSpec& spec, uint64_t generation,
                                                         const Layout& layout, std::string run_record, Store* store, ShardEvents* events,
                                                         ShardMetrics* metrics) {
  absl::StatusOr<std::unique_ptr<Replica>> replica =
      Replica::Create(ShardBlocks(spec, generation, layout, options.shard), options.staged_bytes_max);
  if (!replica.ok()) return replica.status();
  auto shard = std::make_unique<RunShardImpl>(std::move(options), *std::move(replica), store, events, metrics);
  if (absl::Status s = shard->Recover(run_record); !s.ok()) return s;
  return std::unique_ptr<RunShard>(std::move(shard));
}

}  // namespace ballast
