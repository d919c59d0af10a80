#include "server/coordinator/runner.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "core/status.h"
#include "server/failpoint.h"
#include "server/log.h"
#include "version.h"

namespace ballast {
namespace {

constexpr absl::Duration kTickPeriod = absl::Milliseconds(50);

v1::Hello MyHello() {
  v1::Hello hello;
  hello.set_protocol(kProtocol);
  hello.set_release(kVersion);
  return hello;
}

}  // namespace

Runner::Runner(Options options, Store* store, RunOpener* opener, CoordinatorMetrics* metrics)
    : options_(std::move(options)),
      records_(store),
      opener_(opener),
      metrics_(metrics),
      followers_(options_.self, options_.servers, options_.cluster_id),
      mailbox_("coordinator", kTickPeriod, [this] { Tick(); }),
      store_thread_("coord-store"),
      opener_thread_("coord-opener") {
  RunAndWait([this] {
    context_.servers = options_.servers;
    context_.incarnation = options_.incarnation;
    context_.rules = options_.rules;
    context_.recovery_target_s = options_.recovery_target_s;
    context_.log_target = options_.log_target;
    context_.followers = &followers_;
    context_.records = &records_;
    context_.store_thread = &store_thread_;
    context_.metrics = metrics_;
    context_.fatal = options_.fatal;
    context_.post = [this](uint64_t id, std::function<void(RunHost&)> closure) {
      mailbox_.Post([this, id, closure = std::move(closure)] {
        RunHost* const host = FindId(id);
        if (host == nullptr) return;
        closure(*host);
        host->Flush();
      });
    };
  });
}

Runner::~Runner() { Stop(); }

void Runner::RunAndWait(std::function<void()> closure) {
  absl::Notification done;
  mailbox_.Post([&] {
    closure();
    done.Notify();
  });
  done.WaitForNotification();
}

// ---- life ----

void Runner::SetAddress(const std::string& address) {
  RunAndWait([&] { followers_.SetOwnAddress(address); });
}

absl::Status Runner::Recover() {
  BALLAST_FAILPOINT_STATUS("runs-load");
  auto runs = records_.LoadRuns();
  if (!runs.ok()) return runs.status();
  BALLAST_FAILPOINT_STATUS("runs-loaded");
  std::set<std::string> names;
  for (const RunDefinition& run : *runs) names.insert(run.spec.name);
  if (absl::Status removed = opener_->RemoveOthers(names); !removed.ok()) return removed;
  size_t number = 0;
  for (RunDefinition& run : *runs) {
    LogInfo("recovering", {{"run", run.spec.name}, {"number", absl::StrCat(++number, " of ", runs->size())}});
    if (absl::Status recovered = RecoverRun(std::move(run)); !recovered.ok()) return recovered;
  }
  RunAndWait([this] {
    recovered_ = true;
    for (uint32_t s = 1; s < options_.servers; ++s) TellRuns(s);
    TellWorkers();
  });
  return absl::OkStatus();
}

absl::Status Runner::RecoverRun(RunDefinition run) {
  const std::string name = run.spec.name;
  const uint64_t id = ++last_host_;
  auto local = opener_->Open(run, MakeLocalEvents(&context_, id));
  if (!local.ok()) return local.status();

  BALLAST_FAILPOINT_STATUS("ledger-load");
  CoordinatorState state;
  auto manifests = records_.LoadManifests(name);
  if (!manifests.ok()) return manifests.status();
  state.manifests = *std::move(manifests);
  auto epochs = records_.LoadEpochs(name);
  if (!epochs.ok()) return epochs.status();
  state.epochs = *std::move(epochs);
  // What the log still needs to hold reaches back to the oldest manifest that is kept.
  const uint64_t first = state.manifests.empty() ? 1 : state.manifests.front().index + 1;
  auto decisions = (*local)->shard->ReadDecisions(first, UINT64_MAX);
  if (!decisions.ok()) return decisions.status();
  state.decisions = *std::move(decisions);
  auto stopped = records_.LoadStopped(name);
  if (!stopped.ok()) return stopped.status();

  BALLAST_FAILPOINT_STATUS("ledger-loaded");
  absl::Status added;
  RunAndWait([&] {
    auto host = AddHost(id, std::move(run), std::move(state), *std::move(local));
    added = host.status();
    if (!host.ok() || !stopped->has_value()) return;
    (*host)->core().Stop(**stopped, MonotonicMs());
    (*host)->SetStoredStop(true);
    (*host)->Flush();
  });
  BALLAST_FAILPOINT("host-added");
  return added;
}

absl::StatusOr<RunHost*> Runner::AddHost(uint64_t id, RunDefinition run, CoordinatorState state, std::shared_ptr<OpenRun> local) {
  auto made = RunHost::Create(&context_, id, std::move(run), std::move(state), std::move(local));
  if (!made.ok()) return made.status();
  RunHost* const host = made->get();
  hosts_[host->run().spec.name] = *std::move(made);
  host->Flush();
  v1::ShardDown open;
  *open.mutable_open_run()->mutable_run() = ToProto(host->run());
  for (uint32_t s = 1; s < options_.servers; ++s) followers_.Send(s, open);
  metrics_->SetRuns(hosts_.size());
  return host;
}

void Runner::Drain(absl::Duration limit) {
  Signal drained;
  RunAndWait([&] {
    draining_ = true;
    drained_ = &drained;
    for (auto& [name, host] : hosts_) {
      host->CloseSessions("the server is stopping");
      host->Flush();
      const RunStatus status = host->Status();
      if (status.version <= status.manifest_version || !host->AllPositioned()) continue;
      drain_waits_.insert(host->id());
      const Tag tag = host->NewTag([this, id = host->id(), run = name](const absl::Status& done, const RunHost::ReplyValue&) {
        if (!done.ok())
          LogWarning("no checkpoint before the stop; the log has everything", {{"run", run}, {"reason", std::string(done.message())}});
        drain_waits_.erase(id);
      });
      host->core().RequestCheckpoint(tag, MonotonicMs());
      host->Flush();
    }
    CheckDrained();
  });
  drained.WaitFor(limit);
  RunAndWait([this] { drained_ = nullptr; });
}

void Runner::AbandonDrain() {
  mailbox_.Post([this] {
    drain_waits_.clear();
    CheckDrained();
  });
}

// A run that lost a shard cannot finish its checkpoint: it is not waited for. The log has everything.
void Runner::CheckDrained() {
  std::erase_if(drain_waits_, [this](uint64_t id) {
    RunHost* const host = FindId(id);
    return host == nullptr || !host->AllPositioned();
  });
  if (drained_ == nullptr || !drain_waits_.empty()) return;
  std::exchange(drained_, nullptr)->Set();
}

void Runner::FailPending() {
  RunAndWait([this] {
    draining_ = true;
    for (auto& [name, host] : hosts_) host->FailPending(absl::UnavailableError("the server is stopping"));
  });
}

void Runner::Stop() {
  opener_thread_.Stop();
  store_thread_.Stop();
  mailbox_.Post([this] {
    hosts_.clear();
    work_streams_.clear();
  });
  mailbox_.Stop();
}

void Runner::Tick() {
  uint64_t sessions = 0;
  for (auto& [name, host] : hosts_) {
    host->Tick();
    sessions += host->Status().sessions;
  }
  TellWorkers();
  CheckDrained();
  metrics_->SetSessions(sessions);
  metrics_->SetWorkers(workers_.size());
  metrics_->SetFollowers(followers_.connected());
  metrics_->SetMailbox(mailbox_.size());
}

// A session needs the address of every server, so nothing is served before each has connected once.
void Runner::TellWorkers() {
  if (!recovered_) return;
  std::vector<std::string> serve;
  if (followers_.AllKnown() && !draining_) {
    for (const auto& [name, host] : hosts_) {
      if (host->Status().wants_sessions) serve.push_back(name);
    }
  }
  workers_.Tell(followers_.Describe(), serve);
}

// What a server holds beside these runs it deletes, so the list must be whole: never before every run is recovered, and with those whose
// removal a crash of this server would still undo.
void Runner::TellRuns(uint32_t follower) {
  v1::ShardDown message;
  v1::ShardDown::Runs* const runs = message.mutable_runs();
  for (const auto& [name, host] : hosts_) runs->add_run(name);
  for (const auto& [name, waiting] : creating_) runs->add_run(name);
  for (const auto& [name, gone] : deleting_) {
    if (!gone) runs->add_run(name);
  }
  followers_.Send(follower, std::move(message));
}

// ---- looking up ----

RunHost* Runner::Find(const std::string& run) {
  const auto it = hosts_.find(run);
  return it == hosts_.end() ? nullptr : it->second.get();
}

RunHost* Runner::FindId(uint64_t id) {
  for (auto& [name, host] : hosts_) {
    if (host->id() == id) return host.get();
  }
  return nullptr;
}

absl::Status Runner::CheckOpen() const {
  if (draining_) return WithReason(absl::UnavailableError("the server is stopping"), "STOPPING");
  if (!recovered_) {
    return WithReason(
        absl::UnavailableError(absl::StrCat("the server is recovering its runs (", opener_->Progress(), "); try again in a few seconds")),
        "RECOVERING");
  }
  return absl::OkStatus();
}

absl::StatusOr<RunHost*> Runner::FindOrError(const std::string& run) {
  if (absl::Status open = CheckOpen(); !open.ok()) return open;
  RunHost* const host = Find(run);
  if (host != nullptr) return host;
  return WithReason(absl::NotFoundError(absl::StrCat("there is no run \"", run, "\"; `ballastctl run ls` lists the runs")), "NO_RUN",
                    {{"run", run}});
}

// ---- streams ----

template <typename Down>
bool Runner::CheckHello(const v1::Hello& hello, const std::shared_ptr<Peer<Down>>& peer) const {
  if (hello.protocol() == kProtocol) return true;
  peer->Close(WithReason(absl::FailedPreconditionError(absl::StrCat("the caller (release \"", hello.release(), "\") speaks protocol ",
                                                                    hello.protocol(), ", this server (release ", kVersion, ") protocol ",
                                                                    kProtocol, ": install the same release on both sides")),
                         "PROTOCOL_DIFFERS"));
  return false;
}

void Runner::OnMessage(StreamId stream, std::shared_ptr<Peer<v1::WorkerDown>> peer, std::shared_ptr<const v1::WorkerUp> message) {
  mailbox_.Post([=, this] {
    if (workers_.Knows(stream)) {
      workers_.OnFeeds(stream, *message);
    } else if (CheckHello(message->hello(), peer)) {
      workers_.Attach(stream, peer, *message);
      TellWorkers();
    }
    peer->Handled();
  });
}

void Runner::OnWorkerGone(StreamId stream) {
  mailbox_.Post([=, this] { workers_.Detach(stream); });
}

void Runner::OnMessage(StreamId stream, std::shared_ptr<Peer<v1::WorkDown>> peer, std::shared_ptr<const v1::WorkUp> message) {
  mailbox_.Post([=, this] {
    if (const auto it = work_streams_.find(stream); it == work_streams_.end()) {
      OpenWork(stream, peer, message->open());
    } else if (RunHost* const host = FindId(it->second.host)) {
      host->OnSessionMessage(it->second.session, *message);
      host->Flush();
    }
    peer->Handled();
  });
}

void Runner::OpenWork(StreamId stream, const std::shared_ptr<Peer<v1::WorkDown>>& peer, const v1::WorkUp::Open& open) {
  if (!CheckHello(open.hello(), peer)) return;
  auto host = FindOrError(open.run());
  if (!host.ok()) return peer->Close(host.status());
  if (!followers_.AllKnown()) {
    return peer->Close(
        WithReason(absl::UnavailableError(absl::StrCat(followers_.FirstMissing(), " has not connected yet")), "SERVER_MISSING"));
  }
  BALLAST_FAILPOINT("session-open");
  const auto opened = (*host)->OpenSession(peer, open.worker(), open.resume_session());
  if (!opened.ok()) return peer->Close(opened.status());
  work_streams_[stream] = {(*host)->id(), opened->session, open.worker()};
  workers_.AddSession(open.worker(), 1);

  v1::WorkDown message;
  v1::WorkDown::Welcome* const welcome = message.mutable_welcome();
  *welcome->mutable_hello() = MyHello();
  welcome->set_session(opened->session);
  *welcome->mutable_run() = (*host)->Describe(/*layout=*/true, /*tensors=*/true);
  welcome->mutable_run()->set_generation((*host)->run().generation);  // what its chunks carry; a rollback fences by session
  for (v1::ServerInfo& server : followers_.Describe()) *welcome->add_servers() = std::move(server);
  welcome->set_resumed(opened->resumed);
  welcome->set_coordinator_incarnation(options_.incarnation);
  peer->Send(std::move(message));
  (*host)->Flush();
  LogInfo("session opened", {{"run", open.run()}, {"worker", open.worker()}, {"session", absl::StrCat(opened->session)}});
}

void Runner::OnSessionGone(StreamId stream) {
  mailbox_.Post([=, this] {
    const auto it = work_streams_.find(stream);
    if (it == work_streams_.end()) return;
    workers_.AddSession(it->second.worker, -1);
    if (RunHost* const host = FindId(it->second.host)) {
      host->OnSessionLost(it->second.session);
      host->Flush();
    }
    work_streams_.erase(it);
  });
}

void Runner::OnMessage(StreamId stream, std::shared_ptr<Peer<v1::ShardDown>> peer, std::shared_ptr<const v1::ShardUp> message) {
  mailbox_.Post([=, this] {
    const std::optional<uint32_t> index = followers_.IndexOf(stream);
    if (!index) {
      OpenFollow(stream, peer, message->open());
      return peer->Handled();
    }
    std::string run;
    switch (message->kind_case()) {
      case v1::ShardUp::kPosition:
        run = message->position().run();
        break;
      case v1::ShardUp::kAccepted:
        run = message->accepted().run();
        break;
      case v1::ShardUp::kApplied:
        run = message->applied().run();
        break;
      case v1::ShardUp::kNorm:
        run = message->norm().run();
        break;
      case v1::ShardUp::kCheckpointed:
        run = message->checkpointed().run();
        break;
      case v1::ShardUp::kDisk:
        run = message->disk().run();
        break;
      case v1::ShardUp::kFailed:
        LogError("a server cannot serve its shard",
                 {{"server", absl::StrCat(*index)}, {"run", message->failed().run()}, {"reason", message->failed().reason()}});
        break;
      default:
        break;
    }
    if (RunHost* const host = Find(run)) {
      host->OnShardMessage(*index, *message);
      host->Flush();
    }
    peer->Handled();
  });
}

void Runner::OpenFollow(StreamId stream, const std::shared_ptr<Peer<v1::ShardDown>>& peer, const v1::ShardUp::Open& open) {
  if (!CheckHello(open.hello(), peer)) return;
  if (absl::Status connected = followers_.Connect(stream, peer, open); !connected.ok()) {
    LogWarning("a server was refused",
               {{"server", absl::StrCat(open.index())}, {"address", open.address()}, {"reason", std::string(connected.message())}});
    return peer->Close(connected);
  }
  v1::ShardDown welcome;
  *welcome.mutable_welcome()->mutable_hello() = MyHello();
  welcome.mutable_welcome()->set_coordinator_incarnation(options_.incarnation);
  welcome.mutable_welcome()->set_cluster_id(options_.cluster_id);
  welcome.mutable_welcome()->set_servers(options_.servers);
  welcome.mutable_welcome()->set_runs(hosts_.size());
  peer->Send(std::move(welcome));
  for (auto& [name, host] : hosts_) {
    host->OnShardLost(open.index());  // an earlier connection that nobody saw end
    host->Flush();
    v1::ShardDown message;
    *message.mutable_open_run()->mutable_run() = ToProto(host->run());
    peer->Send(std::move(message));
  }
  if (recovered_) TellRuns(open.index());
  TellWorkers();
}

void Runner::OnFollowerGone(StreamId stream) {
  mailbox_.Post([=, this] {
    const std::optional<uint32_t> index = followers_.Disconnect(stream);
    if (!index) return;
    for (auto& [name, host] : hosts_) {
      host->OnShardLost(*index);
      host->Flush();
    }
  });
}

}  // namespace ballast
