#include "server/coordinator/run_host.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/status.h"
#include "proto/convert_control.h"
#include "server/coordinator/plan.h"
#include "server/failpoint.h"
#include "server/log.h"

namespace ballast {
namespace {

constexpr uint64_t kLogStatesMax = 4;  // a checkpoint that the length of the log asks for writes at most a quarter of what the log did

template <typename Clock, typename Unit>
int64_t Now() {
  return std::chrono::duration_cast<Unit>(Clock::now().time_since_epoch()).count();
}
int64_t MonotonicUs() { return Now<std::chrono::steady_clock, std::chrono::microseconds>(); }

class LocalEvents : public ShardEvents {
 public:
  LocalEvents(const RunHost::Context* context, uint64_t host) : context_(context), host_(host) {}

  void OnAccepted(uint64_t index) override {
    Post([=, incarnation = context_->incarnation](RunHost& host) { host.core().OnAccepted(0, index, incarnation, MonotonicMs()); });
  }
  void OnApplied(uint64_t index, uint64_t) override {
    Post([=](RunHost& host) { host.core().OnApplied(0, index, MonotonicMs()); });
  }
  void OnNorm(uint64_t query, double norm2) override {
    Post([=](RunHost& host) { host.core().OnNorm(0, query, norm2, MonotonicMs()); });
  }
  void OnCheckpointed(uint64_t version, const ShardDigest& digest) override {
    Post([=](RunHost& host) { host.core().OnCheckpointed(0, version, digest, UnixMs(), MonotonicMs()); });
  }
  void OnDisk(bool low, const std::string& reason) override {
    Post([=](RunHost& host) { host.core().OnDisk(0, low, reason, MonotonicMs()); });
  }
  void OnOwnLog(const Uid& uid) override {
    Post([=](RunHost& host) { host.core().OnOwnLog(uid); });
  }
  void OnDecisionDurable(uint64_t index) override {
    Post([=](RunHost& host) { host.OnDecisionDurable(index); });
  }
  void OnFailed(const absl::Status& status) override { context_->fatal(status); }

 private:
  void Post(std::function<void(RunHost&)> closure) { context_->post(host_, std::move(closure)); }

  const RunHost::Context* const context_;
  const uint64_t host_;
};

}  // namespace

int64_t MonotonicMs() { return Now<std::chrono::steady_clock, std::chrono::milliseconds>(); }
int64_t UnixMs() { return Now<std::chrono::system_clock, std::chrono::milliseconds>(); }

std::unique_ptr<ShardEvents> MakeLocalEvents(const RunHost::Context* context, uint64_t host) {
  return std::make_unique<LocalEvents>(context, host);
}

absl::StatusOr<std::unique_ptr<RunHost>> RunHost::Create(const Context* context, uint64_t id, RunDefinition run, CoordinatorState state,
                                                         std::shared_ptr<OpenRun> local) {
  CoordinatorConfig config;
  config.spec = run.spec;
  config.generation = run.generation;
  config.shards = context->servers;
  config.incarnation = context->incarnation;
  config.rules = context->rules;
  auto core = Coordinator::Restore(std::move(config), std::move(state), MonotonicMs());
  if (!core.ok()) return core.status();
  ShardPosition position = local->shard->Position();
  position.shard = 0;
  position.incarnation = context->incarnation;
  auto host = std::unique_ptr<RunHost>(new RunHost(context, id, std::move(run), *std::move(core), std::move(local)));
  host->core().OnShardPosition(position, MonotonicMs());
  host->positioned_[0] = true;
  host->local_->shard->ReportAgain();
  return host;
}

RunHost::RunHost(const Context* context, uint64_t id, RunDefinition run, std::unique_ptr<Coordinator> core, std::shared_ptr<OpenRun> local)
    : context_(context),
      id_(id),
      run_(std::move(run)),
      core_(std::move(core)),
      local_(std::move(local)),
      positioned_(context->servers, false),
      counted_(core_->Describe()) {}

RunHost::~RunHost() { FailPending(absl::UnavailableError("the server is stopping")); }

void RunHost::Flush() {
  for (std::vector<Output> outputs = core_->TakeOutputs(); !outputs.empty(); outputs = core_->TakeOutputs()) {
    for (Output& output : outputs) std::visit([this](auto& o) { Deliver(std::move(o)); }, output);
  }
}

void RunHost::Tick() {
  core_->OnTick(MonotonicMs());
  Flush();
  const RunStatus now = core_->Describe();
  CountProgress(now);
  StoreStop(now);
  BoundDebt(now);
}

// Of this server's shard: the others own as many elements and apply the same decisions.
std::string RunHost::DebtOverTarget() const {
  const ReplayDebt debt = local_->shard->Debt();
  const uint64_t state = StateBytes(run_.spec) / context_->servers;
  if (context_->recovery_target_s > 0 && debt.seconds > context_->recovery_target_s) return absl::StrFormat("%.1f s", debt.seconds);
  if (context_->log_target > 0 && debt.log_bytes > std::max(context_->log_target, kLogStatesMax * state))
    return absl::StrFormat("%.1f MB", static_cast<double>(debt.log_bytes) * 1e-6);
  return "";
}

void RunHost::BoundDebt(const RunStatus& now) {
  if (bounding_ || now.version <= now.manifest_version) return;  // one more would cover nothing
  const std::string debt = DebtOverTarget();
  if (debt.empty() || !AllPositioned()) return;
  bounding_ = true;
  LogInfo("a checkpoint bounds the log and the time of a restart", {{"run", run_.spec.name}, {"log", debt}});
  core_->RequestCheckpoint(NewTag([this](const absl::Status& done, const ReplyValue&) { bounding_ = !done.ok(); }), MonotonicMs());
  Flush();
}

// ---- outputs ----

void RunHost::Deliver(ToSession output) {
  const auto it = sessions_.find(output.session);
  if (it == sessions_.end()) return;  // its stream ended meanwhile
  const bool closing = std::holds_alternative<CloseSession>(output.message);
  const bool decided = std::holds_alternative<Decided>(output.message);
  if (decided) BALLAST_FAILPOINT("ack-send");
  it->second.peer->Send(ToProto(output.message));
  if (decided) BALLAST_FAILPOINT("ack-sent");
  if (!closing) return;
  it->second.peer->Close(absl::OkStatus());
  sessions_.erase(it);
}

void RunHost::Deliver(ToShard output) {
  if (output.shard == 0) return DeliverToSelf(std::move(output.message));
  if (positioned_[output.shard]) context_->followers->Send(output.shard, ToProto(run_.spec.name, output.message));
}

void RunHost::DeliverToSelf(ShardMessage message) {
  if (auto* decision = std::get_if<std::shared_ptr<const Decision>>(&message)) {
    if ((*decision)->kind == DecisionKind::kStep) {
      for (const Part& part : (*decision)->parts)
        context_->metrics->Lag((*decision)->version - 1 - std::min(part.base_version, (*decision)->version - 1));
    }
    local_->shard->Deliver(std::move(*decision));
  } else if (auto* query = std::get_if<NormQuery>(&message)) {
    local_->shard->QueryNorm(std::move(*query));
  } else {
    auto& committed = std::get<ManifestCommitted>(message);
    context_->store_thread->Post([context = context_, run = run_.spec.name, committed] {
      BALLAST_FAILPOINT("manifest-drop");
      if (absl::Status dropped = context->records->DropManifests(run, [&](uint64_t version) { return committed.Keeps(version); });
          !dropped.ok())
        context->fatal(dropped);
      BALLAST_FAILPOINT("manifest-dropped");
    });
    local_->shard->OnManifestCommitted(std::move(committed));
  }
}

void RunHost::Deliver(AppendDecision output) {
  BALLAST_FAILPOINT("step-decide");
  if (output.decision->kind == DecisionKind::kRollback) BALLAST_FAILPOINT("rollback-decide");
  const uint64_t index = output.decision->index;
  appended_us_[index] = MonotonicUs();
  local_->shard->AppendDecision(std::move(output.decision));
}

void RunHost::Deliver(CommitManifest output) {
  context_->store_thread->Post([context = context_, id = id_, manifest = std::move(output.manifest)] {
    BALLAST_FAILPOINT("manifest-put");
    if (absl::Status put = context->records->PutManifest(manifest); !put.ok()) return context->fatal(put);
    BALLAST_FAILPOINT("manifest-stored");
    LogInfo("checkpoint committed", {{"run", manifest.run}, {"version", absl::StrCat(manifest.version)}});
    context->post(id, [version = manifest.version](RunHost& host) { host.core().OnManifestDurable(version, MonotonicMs()); });
  });
}

void RunHost::Deliver(PersistEpoch output) {
  context_->store_thread->Post([context = context_, id = id_, run = run_.spec.name, record = std::move(output.record)] {
    BALLAST_FAILPOINT("epoch-put");
    if (absl::Status put = context->records->PutEpoch(run, record); !put.ok()) return context->fatal(put);
    BALLAST_FAILPOINT("epoch-stored");
    context->post(id, [epoch = record.epoch](RunHost& host) { host.core().OnEpochDurable(epoch, MonotonicMs()); });
  });
}

void RunHost::Deliver(DropEpoch output) {
  context_->store_thread->Post([context = context_, run = run_.spec.name, epoch = output.epoch] {
    BALLAST_FAILPOINT("epoch-drop");
    if (absl::Status dropped = context->records->DropEpoch(run, epoch); !dropped.ok()) return context->fatal(dropped);
    BALLAST_FAILPOINT("epoch-dropped");
  });
}

void RunHost::Deliver(Reply output) {
  const auto it = pending_.find(output.tag);
  if (it == pending_.end()) return;
  const ReplyCallback done = std::move(it->second);
  pending_.erase(it);
  done(output.status, output.value);
}

void RunHost::OnDecisionDurable(uint64_t index) {
  if (const auto it = appended_us_.find(index); it != appended_us_.end()) {
    context_->metrics->Committed(1e-6 * static_cast<double>(MonotonicUs() - it->second));
    appended_us_.erase(it);
  }
  core_->OnDecisionDurable(index, MonotonicMs());
}

// ---- callers ----

Tag RunHost::NewTag(ReplyCallback done) {
  pending_[++last_tag_] = std::move(done);
  return last_tag_;
}

void RunHost::FailPending(const absl::Status& status) {
  const std::map<Tag, ReplyCallback> pending = std::exchange(pending_, {});
  for (const auto& [tag, done] : pending) done(status, std::monostate());
}

// ---- sessions ----

absl::StatusOr<Coordinator::Opened> RunHost::OpenSession(std::shared_ptr<Peer<v1::WorkDown>> peer, const std::string& worker,
                                                         SessionId resume) {
  auto opened = core_->OpenSession(worker, resume, MonotonicMs());
  if (opened.ok()) sessions_[opened->session] = {std::move(peer)};
  return opened;
}

void RunHost::OnSessionMessage(SessionId session, const v1::WorkUp& message) {
  if (!sessions_.contains(session)) return;  // closed already; the worker has yet to read it
  const int64_t now = MonotonicMs();
  switch (message.kind_case()) {
    case v1::WorkUp::kClaim: {
      BALLAST_FAILPOINT("claim-take");
      std::optional<Uid> uid;
      if (message.claim().has_uid()) uid = FromProto(message.claim().uid());
      return core_->OnClaim(session, FromProto(message.claim().batch()), uid, now);
    }
    case v1::WorkUp::kSubmit:
      BALLAST_FAILPOINT("submit-take");
      core_->OnSubmit(session, FromProto(message.submit()), now);
      BALLAST_FAILPOINT("submit-taken");
      return;
    case v1::WorkUp::kSkip:
      return core_->OnSkip(session, FromProto(message.skip().batch()), message.skip().reason(), now);
    case v1::WorkUp::kStatus:
      return core_->OnStatus(session, message.status().blocked(), message.status().rows_done(), now);
    case v1::WorkUp::kLeave: {
      const Session left = std::move(sessions_.at(session));
      sessions_.erase(session);
      core_->OnSessionLeft(session, now);
      return left.peer->Close(absl::OkStatus());
    }
    case v1::WorkUp::kOpen:
    case v1::WorkUp::KIND_NOT_SET: {
      const Session broken = std::move(sessions_.at(session));
      OnSessionLost(session);
      return broken.peer->Close(
          WithReason(absl::InvalidArgumentError("Work: expected claim, submit, skip, status or leave"), "UNKNOWN_MESSAGE"));
    }
  }
}

void RunHost::OnSessionLost(SessionId session) {
  if (sessions_.erase(session) > 0) core_->OnSessionLost(session, MonotonicMs());
}

void RunHost::CloseSessions(const std::string& reason) {
  const std::map<SessionId, Session> closed = std::exchange(sessions_, {});
  for (const auto& [id, session] : closed) {
    session.peer->Send(ToProto(SessionMessage(CloseSession{reason, false})));
    session.peer->Close(absl::UnavailableError(reason));
    core_->OnSessionLeft(id, MonotonicMs());
  }
}

// ---- shards ----

void RunHost::OnShardMessage(uint32_t shard, const v1::ShardUp& message) {
  const int64_t now = MonotonicMs();
  const bool known = positioned_[shard];
  switch (message.kind_case()) {
    case v1::ShardUp::kPosition:
      if (known || message.position().generation() != run_.generation) return;
      positioned_[shard] = true;
      return core_->OnShardPosition(FromProto(shard, context_->followers->incarnation(shard), message.position()), now);
    case v1::ShardUp::kAccepted:
      if (known) core_->OnAccepted(shard, message.accepted().index(), message.accepted().coordinator_incarnation(), now);
      return;
    case v1::ShardUp::kApplied:
      if (known) core_->OnApplied(shard, message.applied().index(), now);
      return;
    case v1::ShardUp::kNorm:
      if (known) core_->OnNorm(shard, message.norm().query(), message.norm().norm2(), now);
      return;
    case v1::ShardUp::kCheckpointed:
      if (known) core_->OnCheckpointed(shard, message.checkpointed().version(), FromProto(message.checkpointed().digest()), UnixMs(), now);
      return;
    case v1::ShardUp::kDisk:
      return core_->OnDisk(shard, message.disk().low(), message.disk().reason(), now);
    default:
      return;  // Open and Failed are the runner's
  }
}

void RunHost::OnShardLost(uint32_t shard) {
  if (!positioned_[shard]) return;
  positioned_[shard] = false;
  core_->OnShardLost(shard, MonotonicMs());
}

bool RunHost::AllPositioned() const {
  return std::all_of(positioned_.begin(), positioned_.end(), [](bool positioned) { return positioned; });
}

// ---- what others see ----

v1::Run RunHost::Describe(bool layout, bool tensors) const {
  v1::Run out;
  if (layout) {
    out = ToProto(run_);
  } else {
    *out.mutable_spec() = ToProto(run_.spec);
  }
  if (!tensors) out.mutable_spec()->clear_tensors();
  SetStatus(core_->Describe(), &out);
  for (uint32_t shard = 1; shard < positioned_.size() && out.reason().empty(); ++shard) {
    if (!positioned_[shard]) out.set_reason(absl::StrCat("waits for server ", shard));
  }
  return out;
}

void RunHost::CountProgress(const RunStatus& now) {
  const auto grown = [](uint64_t after, uint64_t before) { return after - std::min(after, before); };
  CoordinatorMetrics& metrics = *context_->metrics;
  metrics.Steps(grown(now.steps, counted_.steps), grown(now.steps_part_full, counted_.steps_part_full));
  metrics.Rows(grown(now.rows_trained, counted_.rows_trained), grown(now.rows_skipped, counted_.rows_skipped));
  metrics.Duplicates(grown(now.duplicates, counted_.duplicates));
  counted_ = now;
}

void RunHost::StoreStop(const RunStatus& now) {
  const bool stopped = now.state == RunStatus::State::kStopped;
  if (stopped == stored_stop_) return;
  stored_stop_ = stopped;
  if (stopped) LogWarning("run stopped", {{"run", run_.spec.name}, {"reason", now.reason}});
  std::optional<std::string> reason;
  if (stopped) reason = now.reason;
  context_->store_thread->Post([context = context_, run = run_.spec.name, reason] {
    if (absl::Status put = context->records->PutStopped(run, reason); !put.ok()) context->fatal(put);
  });
}

}  // namespace ballast
