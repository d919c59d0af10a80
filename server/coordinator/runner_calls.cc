// The unary calls of the Control service.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/layout/layout.h"
#include "core/status.h"
#include "proto/convert_control.h"
#include "server/coordinator/plan.h"
#include "server/coordinator/runner.h"
#include "server/failpoint.h"
#include "server/log.h"
#include "version.h"

namespace ballast {
namespace {

absl::Status SpecDiffers(const RunSpec& before, const RunSpec& after) {
  const std::vector<std::string> lines = SpecDifferences(before, after);
  StatusMetadata metadata;
  for (size_t i = 0; i < lines.size(); ++i) metadata[absl::StrCat("difference_", i)] = lines[i];
  return WithReason(absl::FailedPreconditionError(
                        absl::StrCat("run \"", after.name, "\" exists with another specification:\n  ", absl::StrJoin(lines, "\n  "),
                                     "\nUse another run_id, or the old values, or `ballastctl run rm ", after.name, "` first")),
                    "RUN_SPEC_DIFFERS", metadata);
}

absl::Status NoArtifact(absl::string_view what, const std::string& sha256) {
  return WithReason(
      absl::NotFoundError(absl::StrCat(what, " ", sha256, " is not on the server: upload it with PutArtifact, then create the run again")),
      "NO_ARTIFACT", {{"sha256", sha256}});
}

// Converts the value of a Reply to the message of its call.
template <typename Proto, typename Value>
RunHost::ReplyCallback Answer(Callback<Proto> done) {
  return [done = std::move(done)](const absl::Status& status, const RunHost::ReplyValue& value) {
    if (!status.ok()) return done(status);
    const Value* const got = std::get_if<Value>(&value);
    if (got == nullptr) return done(absl::InternalError("the coordinator answered with another kind of value"));
    done(ToProto(*got));
  };
}

}  // namespace

// ---- CreateRun: mailbox -> opener thread (checks, record, shard) -> mailbox ----

void Runner::CreateRun(v1::RunSpec proto, Callback<v1::Run> done) {
  auto spec = FromProto(proto);
  if (!spec.ok()) return done(WithReason(spec.status(), "BAD_SPEC"));
  if (absl::Status valid = ValidateSpec(*spec); !valid.ok()) return done(WithReason(valid, "BAD_SPEC"));
  mailbox_.Post([this, spec = *std::move(spec), done = std::move(done)]() mutable { StartCreate(std::move(spec), std::move(done)); });
}

void Runner::StartCreate(RunSpec spec, Callback<v1::Run> done) {
  if (absl::Status open = CheckOpen(); !open.ok()) return done(open);
  if (RunHost* const host = Find(spec.name)) {
    if (host->run().spec != spec) return done(SpecDiffers(host->run().spec, spec));
    v1::Run run = host->Describe(/*layout=*/true, /*tensors=*/true);
    for (std::string& line : PlanLines(host->run(), options_.servers)) run.add_plan(std::move(line));
    return done(std::move(run));
  }
  if (deleting_.contains(spec.name)) return done(absl::AbortedError(absl::StrCat("run \"", spec.name, "\" is being removed; try again")));
  if (const auto it = creating_.find(spec.name); it != creating_.end()) {
    it->second.push_back(
        [this, spec = std::move(spec), done = std::move(done)]() mutable { StartCreate(std::move(spec), std::move(done)); });
    return;
  }
  // Before the layout, whose blocks alone would fill the memory.
  if (absl::Status fits = opener_->CheckMemory(StateBytes(spec) / options_.servers); !fits.ok()) return done(fits);
  auto layout = MakeLayout(spec.tensors, options_.servers);
  if (!layout.ok()) return done(WithReason(layout.status(), "BAD_SPEC"));
  if (!spec.init.run.empty()) {
    RunHost* const source = Find(spec.init.run);
    if (source == nullptr || source->Status().manifest_version == 0) {
      return done(WithReason(absl::NotFoundError(absl::StrCat("init.run: there is no checkpoint of a run \"", spec.init.run, "\"")),
                             "NO_MANIFEST"));
    }
  }
  creating_[spec.name];
  opener_thread_.Post([this, run = RunDefinition{std::move(spec), 1, *std::move(layout)}, done = std::move(done)]() mutable {
    const uint64_t id = ++last_host_;
    const absl::Status prepared = PrepareCreate(&run);
    absl::StatusOr<std::shared_ptr<OpenRun>> local = nullptr;
    if (prepared.ok()) {
      local = opener_->Open(run, MakeLocalEvents(&context_, id));
    } else {
      local = prepared;
    }
    if (prepared.ok() && !local.ok()) (void)records_.DeleteRun(run.spec.name, run.generation);  // nothing of a run that was not created
    mailbox_.Post([this, id, run = std::move(run), local = std::move(local), done = std::move(done)]() mutable {
      FinishCreate(id, std::move(run), std::move(local), done);
    });
  });
}

// The record is stored before anything else exists: a crash from here on leaves a run that recovery completes.
absl::Status Runner::PrepareCreate(RunDefinition* run) {
  if (absl::Status disk = opener_->CheckDisk(0); !disk.ok()) return disk;
  if (absl::Status plan = CheckPlan(*run, options_.servers, options_.machine()); !plan.ok()) return plan;
  const std::pair<absl::string_view, const std::string*> artifacts[] = {{"the model", &run->spec.model_sha256},
                                                                        {"the initial weights", &run->spec.init.weights_sha256}};
  for (const auto& [what, sha256] : artifacts) {
    if (sha256->empty()) continue;
    const auto has = options_.has_artifact(*sha256);
    if (!has.ok()) return has.status();
    if (!*has) return NoArtifact(what, *sha256);
  }
  if (const InitSpec& init = run->spec.init; !init.run.empty() && init.version != 0) {
    auto manifests = records_.LoadManifests(init.run);
    if (!manifests.ok()) return manifests.status();
    const auto same = [&](const Manifest& manifest) { return manifest.version == init.version; };
    if (std::none_of(manifests->begin(), manifests->end(), same)) {
      return WithReason(absl::NotFoundError(absl::StrCat("init: run \"", init.run, "\" has no checkpoint of version ", init.version)),
                        "NO_MANIFEST");
    }
  }
  const auto generation = records_.NextGeneration(run->spec.name);
  if (!generation.ok()) return generation.status();
  run->generation = *generation;
  BALLAST_FAILPOINT_STATUS("run-store");
  const absl::Status stored = records_.PutRun(*run);
  BALLAST_FAILPOINT("run-stored");
  return stored;
}

void Runner::FinishCreate(uint64_t id, RunDefinition run, absl::StatusOr<std::shared_ptr<OpenRun>> local, const Callback<v1::Run>& done) {
  const std::string name = run.spec.name;
  const std::vector<std::function<void()>> waiting = std::move(creating_[name]);
  creating_.erase(name);
  absl::StatusOr<RunHost*> host = nullptr;
  if (local.ok()) {
    host = AddHost(id, std::move(run), {}, *std::move(local));
  } else {
    host = local.status();
  }
  if (host.ok()) {
    LogInfo("run created", {{"run", name}});
    v1::Run created = (*host)->Describe(/*layout=*/true, /*tensors=*/true);
    for (std::string& line : PlanLines((*host)->run(), options_.servers)) created.add_plan(std::move(line));
    created.set_created(true);
    BALLAST_FAILPOINT("run-created");
    done(std::move(created));
  } else {
    done(host.status());
  }
  for (const std::function<void()>& call : waiting) call();
}

// ---- the other calls on runs ----

void Runner::ListRuns(v1::RunFilter filter, Callback<v1::RunList> done) {
  mailbox_.Post([this, filter = std::move(filter), done = std::move(done)] {
    v1::RunList list;
    if (absl::Status open = CheckOpen(); !open.ok()) return done(open);
    if (!filter.name().empty()) {
      auto host = FindOrError(filter.name());
      if (!host.ok()) return done(host.status());
      *list.add_runs() = (*host)->Describe(filter.layout(), filter.spec_tensors());
      return done(std::move(list));
    }
    for (const auto& [name, host] : hosts_) *list.add_runs() = host->Describe(filter.layout(), filter.spec_tensors());
    done(std::move(list));
  });
}

void Runner::StopRun(v1::StopRequest request, Callback<v1::Run> done) {
  mailbox_.Post([this, request = std::move(request), done = std::move(done)] {
    auto host = FindOrError(request.run());
    if (!host.ok()) return done(host.status());
    (*host)->core().Stop(request.reason().empty() ? "stopped by request" : request.reason(), MonotonicMs());
    (*host)->Flush();
    TellWorkers();
    done((*host)->Describe(false, false));
  });
}

void Runner::DeleteRun(v1::RunRef ref, Callback<v1::Run> done) {
  mailbox_.Post([this, ref = std::move(ref), done = std::move(done)] {
    auto found = FindOrError(ref.run());
    if (!found.ok()) return done(found.status());
    RunHost* const host = *found;
    host->core().Stop("the run was removed", MonotonicMs());
    host->Flush();
    host->FailPending(WithReason(absl::AbortedError(absl::StrCat("run \"", ref.run(), "\" was removed")), "NO_RUN"));
    v1::Run run = host->Describe(false, false);
    run.set_reason(followers_.AllConnected() ? "" : absl::StrCat(followers_.FirstMissing(), " is away: it frees its disk when it is back"));
    hosts_.erase(ref.run());
    metrics_->SetRuns(hosts_.size());
    deleting_[ref.run()] = false;
    TellWorkers();
    // After the puts of this run that are on their way.
    store_thread_.Post([this, run = std::move(run), done]() mutable { RemoveDeleted(std::move(run), std::move(done)); });
  });
}

// The other servers hear of it only when no crash of this one can bring the run back: it could not go on without their shards.
void Runner::RemoveDeleted(v1::Run run, Callback<v1::Run> done) {
  BALLAST_FAILPOINT("run-delete");
  const std::string name = run.spec().name();
  const absl::Status deleted = records_.DeleteRun(name, run.generation());
  if (!deleted.ok()) return options_.fatal(deleted);
  BALLAST_FAILPOINT("run-deleted");
  mailbox_.Post([this, name] {
    deleting_[name] = true;
    v1::ShardDown close;
    close.mutable_close_run()->set_run(name);
    close.mutable_close_run()->set_remove(true);
    for (uint32_t s = 1; s < options_.servers; ++s) followers_.Send(s, close);
  });
  opener_thread_.Post([this, name, run = std::move(run), done = std::move(done)]() mutable {
    const absl::Status removed = opener_->Remove(name);
    mailbox_.Post([this, name, removed, run = std::move(run), done = std::move(done)]() mutable {
      deleting_.erase(name);
      if (!removed.ok()) return done(removed);
      done(std::move(run));
    });
  });
}

// ---- epochs, feeds, checkpoints ----

void Runner::BeginEpoch(v1::Epoch epoch, Callback<v1::EpochReport> done) {
  mailbox_.Post([this, epoch = std::move(epoch), done = std::move(done)]() mutable {
    auto host = FindOrError(epoch.run());
    if (!host.ok()) return done(host.status());
    const Tag tag = (*host)->NewTag(Answer<v1::EpochReport, EpochReport>(std::move(done)));
    BALLAST_FAILPOINT("epoch-begin");
    (*host)->core().BeginEpoch(tag, FromProto(epoch), MonotonicMs());
    (*host)->Flush();
    TellWorkers();
  });
}

void Runner::OpenFeed(v1::FeedRef ref, Callback<v1::FeedPlace> done) {
  mailbox_.Post([this, ref = std::move(ref), done = std::move(done)] {
    auto host = FindOrError(ref.run());
    if (!host.ok()) return done(host.status());
    const auto state = (*host)->core().OpenFeed(ref.epoch(), ref.partition());
    (*host)->Flush();
    if (!state.ok()) return done(state.status());
    v1::FeedPlace place;
    SetFeedState(*state, &place);
    const RunSpec& spec = (*host)->run().spec;
    place.set_window_bytes(kFeedWindowBytes);
    place.set_window_rows(2 * std::max({spec.step_rows, spec.contribution_rows, spec.batch_rows}));
    if (state->committed) return done(std::move(place));
    const std::vector<std::string> avoid(ref.avoid().begin(), ref.avoid().end());
    const v1::WorkerInfo* const worker = workers_.Place(ref.run(), avoid, MonotonicMs());
    if (worker == nullptr) {
      return done(
          WithReason(absl::UnavailableError("no worker is attached: start ballast-worker with the address of server 0"), "NO_WORKER"));
    }
    place.set_worker(worker->name());
    place.set_address(worker->address());
    done(std::move(place));
  });
}

void Runner::CommitEpoch(v1::EpochCounts counts, Callback<v1::EpochReport> done) {
  mailbox_.Post([this, counts = std::move(counts), done = std::move(done)]() mutable {
    auto host = FindOrError(counts.run());
    if (!host.ok()) return done(host.status());
    const Tag tag = (*host)->NewTag(Answer<v1::EpochReport, EpochReport>(std::move(done)));
    BALLAST_FAILPOINT("epoch-commit");
    (*host)->core().CommitEpoch(tag, counts.epoch(), FromProto(counts), MonotonicMs());
    (*host)->Flush();
  });
}

void Runner::Checkpoint(v1::RunRef ref, Callback<v1::Manifest> done) {
  mailbox_.Post([this, ref = std::move(ref), done = std::move(done)]() mutable {
    auto host = FindOrError(ref.run());
    if (!host.ok()) return done(host.status());
    const Tag tag = (*host)->NewTag([done = std::move(done)](const absl::Status& status, const RunHost::ReplyValue& value) {
      if (!status.ok()) return done(status);
      v1::Manifest manifest = ToProto(std::get<Manifest>(value));
      manifest.clear_ledger();
      done(std::move(manifest));
    });
    (*host)->core().RequestCheckpoint(tag, MonotonicMs());
    (*host)->Flush();
  });
}

void Runner::Rollback(v1::ManifestRef ref, Callback<v1::Run> done) {
  mailbox_.Post([this, ref = std::move(ref), done = std::move(done)]() mutable {
    auto host = FindOrError(ref.run());
    if (!host.ok()) return done(host.status());
    BALLAST_FAILPOINT("rollback-begin");
    const Tag tag =
        (*host)->NewTag([this, run = ref.run(), done = std::move(done)](const absl::Status& status, const RunHost::ReplyValue&) {
          if (!status.ok()) return done(status);
          const auto now = FindOrError(run);
          if (!now.ok()) return done(now.status());
          LogInfo("run rolled back", {{"run", run}, {"version", absl::StrCat((*now)->Status().version)}});
          BALLAST_FAILPOINT("rollback-done");
          done((*now)->Describe(false, false));
        });
    (*host)->core().Rollback(tag, ref.version(), MonotonicMs());
    (*host)->Flush();
    TellWorkers();
  });
}

void Runner::ListManifests(v1::RunRef ref, Callback<v1::ManifestList> done) {
  mailbox_.Post([this, ref = std::move(ref), done = std::move(done)] {
    auto host = FindOrError(ref.run());
    if (!host.ok()) return done(host.status());
    store_thread_.Post([this, run = ref.run(), done] {
      auto manifests = records_.LoadManifests(run);
      if (!manifests.ok()) return done(manifests.status());
      v1::ManifestList list;
      for (auto it = manifests->rbegin(); it != manifests->rend(); ++it) {
        *list.add_manifests() = ToProto(*it);
        list.mutable_manifests()->rbegin()->clear_ledger();
      }
      done(std::move(list));
    });
  });
}

void Runner::Cluster(v1::ClusterRequest, Callback<v1::ClusterState> done) {
  mailbox_.Post([this, done = std::move(done)] {
    v1::ClusterState state;
    state.set_release(kVersion);
    state.set_servers_expected(options_.servers);
    for (v1::ServerInfo& server : followers_.Describe()) *state.add_servers() = std::move(server);
    for (v1::WorkerInfo& worker : workers_.Describe()) *state.add_workers() = std::move(worker);
    done(std::move(state));
  });
}

}  // namespace ballast
