#include "server/shard/recovery.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "core/record/decision.h"
#include "proto/convert.h"
#include "server/failpoint.h"
#include "server/log.h"
#include "server/shard/run_shard.h"
#include "server/shard/shard_blocks.h"
#include "server/shard/thread_team.h"
#include "server/storage/files.h"
#include "steady.h"

namespace ballast {
namespace {

// More would wait for memory.
constexpr unsigned kApplyThreadsMax = 8;

absl::StatusOr<RunDefinition> ParseDefinition(const std::string& run_proto) {
  v1::Run run;
  if (!run.ParseFromString(run_proto)) return absl::DataLossError("RUN record: not a Run message");
  return FromProto(run);
}

// Loads the newest good checkpoint; leaves `replica` at the beginning when there is none.
absl::Status StartFromCheckpoint(Store& store, Replica& replica, RecoveryProgress* progress,
                                 std::map<uint64_t, CheckpointMeta>* checkpoints) {
  const absl::Time start = SteadyNow();
  while (!checkpoints->empty()) {
    const CheckpointMeta& meta = checkpoints->rbegin()->second;
    if (progress != nullptr) progress->Expect(meta.digest.bytes);
    absl::Status s = LoadCheckpoint(store, meta, replica, progress);
    if (s.ok()) {
      LogInfo("checkpoint loaded", {{"run", replica.blocks().spec().name},
                                    {"version", absl::StrCat(meta.position.version)},
                                    {"mib", absl::StrCat(meta.digest.bytes >> 20)},
                                    {"seconds", absl::StrFormat("%.1f", absl::ToDoubleSeconds(SteadyNow() - start))}});
    }
    if (!absl::IsDataLoss(s)) return s;
    LogWarning(
        "a checkpoint is damaged; recovery goes on with the one before it and more log",
        {{"run", replica.blocks().spec().name}, {"version", absl::StrCat(meta.position.version)}, {"error", std::string(s.message())}});
    checkpoints->erase(std::prev(checkpoints->end()));
  }
  return absl::OkStatus();
}

// Zeros again, after a damaged checkpoint wrote half of the values.
void ClearValues(Replica& replica) {
  for (size_t b = 0; b < replica.blocks().size(); ++b) {
    for (int slot = -1; slot < replica.blocks().slots(b); ++slot) {
      replica.values().CopyIn(b, slot, std::string(replica.values().Bytes(b, slot), '\0'));
    }
  }
}

absl::Status CheckRunRecord(const std::string& dir, const RunRecord& want, absl::string_view body) {
  absl::StatusOr<RunRecord> have = ParseRunRecord(body);
  if (!have.ok()) return have.status();
  if (have->shard == want.shard && have->shards == want.shards && have->run_proto == want.run_proto) return absl::OkStatus();
  if (have->shard != want.shard || have->shards != want.shards) {
    return absl::FailedPreconditionError(absl::StrCat(dir, " holds the log of shard ", have->shard, " of ", have->shards,
                                                      ", this is shard ", want.shard, " of ", want.shards));
  }
  // Another release may write the same definition in other bytes.
  absl::StatusOr<RunDefinition> logged = ParseDefinition(have->run_proto), asked = ParseDefinition(want.run_proto);
  if (!logged.ok()) return logged.status();
  if (!asked.ok()) return asked.status();
  if (logged->spec == asked->spec && logged->generation == asked->generation && logged->layout == asked->layout) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(dir, " holds the log of run ", logged->spec.name, " with another definition"));
}

}  // namespace

absl::StatusOr<Recovered> RecoverShard(const std::string& dir, const RunRecord& run, Store& store, Replica& replica,
                                       const RecoveryHooks& hooks, std::map<uint64_t, CheckpointMeta>* checkpoints) {
  const std::string& name = replica.blocks().spec().name;
  ThreadTeam team(std::clamp(std::thread::hardware_concurrency(), 1u, kApplyThreadsMax));
  replica.BeginRecovery(&team);
  const absl::Cleanup recovered = [&] { replica.EndRecovery(); };
  if (absl::Status s = MakeDirs(dir); !s.ok()) return s;
  absl::StatusOr<std::map<uint64_t, CheckpointMeta>> all = ListCheckpoints(store, name);
  if (!all.ok()) return all.status();
  BALLAST_FAILPOINT_STATUS("checkpoint-load");
  if (hooks.progress != nullptr) {
    if (absl::StatusOr<uint64_t> bytes = LogFileBytes(dir); bytes.ok()) hooks.progress->Expect(*bytes);
  }
  *checkpoints = *std::move(all);
  // A checkpoint counts only when the log holds its decision for good: a log that ends before it has lost something.
  uint64_t promised_index = 0;
  for (const auto& [version, meta] : *checkpoints) promised_index = std::max(promised_index, meta.position.index);
  const bool had_checkpoints = !checkpoints->empty();
  if (absl::Status s = StartFromCheckpoint(store, replica, hooks.progress, checkpoints); !s.ok()) return s;
  if (had_checkpoints && checkpoints->empty()) ClearValues(replica);
  BALLAST_FAILPOINT_STATUS("checkpoint-loaded");

  const auto visit = [&](const RecordHeader& header, const LogPosition& at, absl::string_view body) -> absl::Status {
    if (header.kind == RecordKind::kRun) return CheckRunRecord(dir, run, body);
    BALLAST_FAILPOINT_STATUS("record-replay");
    absl::Status s = replica.Replay(
        header, at, body, [&](std::shared_ptr<const Decision> d) { hooks.decided(std::move(d), at); }, hooks.before_change,
        [&](const Decision& rollback) {
          if (replica.blocks().size() > 0) hooks.before_change(replica.blocks().size() - 1);  // of all
          return RestoreValues(store, *checkpoints, rollback, replica);
        });
    BALLAST_FAILPOINT("record-replayed");
    if (hooks.progress != nullptr) hooks.progress->Read(RecordBytes(header.body_bytes), 1);
    return s;
  };
  Recovered out;
  const absl::Time start = SteadyNow();
  absl::StatusOr<LogEnd> end = ReadLog(dir, /*sync_first=*/true, visit);
  if (!end.ok()) return absl::Status(end.status().code(), absl::StrCat("log in ", dir, ": ", end.status().message()));
  BALLAST_FAILPOINT_STATUS("log-replayed");
  out.log = *end;
  out.replay_seconds = absl::ToDoubleSeconds(SteadyNow() - start);
  if (replica.replayed_index() < promised_index) {
    return absl::DataLossError(absl::StrCat("the log in ", dir, " ends at decision ", replica.replayed_index(), ", but decision ",
                                            promised_index, " was made: acknowledged data is lost"));
  }
  const absl::StatusOr<uint64_t> begun = LoggedGeneration(store, name);
  if (!begun.ok()) return begun.status();
  if (*begun != 0 && end->tail_segment == 0) {
    return absl::DataLossError(
        absl::StrCat("the log of run ", name, " was begun in ", dir, ", but there is none: acknowledged data is lost"));
  }
  if (end->torn_segment != 0) {
    LogInfo("dropped what a crash left behind the last synced record",
            {{"file", SegmentPath(dir, end->torn_segment)}, {"offset", absl::StrCat(end->torn_offset)}});
  }
  replica.staging().ComputeNorms();
  return out;
}

namespace {

absl::StatusOr<std::vector<UndoneRange>> FindUndone(const std::string& shard_dir) {
  std::vector<UndoneRange> undone;
  const auto visit = [&](const RecordHeader& header, const LogPosition&, absl::string_view body) -> absl::Status {
    if (header.kind != RecordKind::kDecision) return absl::OkStatus();
    const absl::StatusOr<Decision> d = ParseDecision(body);
    if (d.ok() && d->kind == DecisionKind::kRollback) undone.push_back({d->rollback_version, d->index});
    return d.status();
  };
  const absl::StatusOr<LogEnd> end = ReadLog(shard_dir, /*sync_first=*/false, visit);
  if (!end.ok()) return absl::Status(end.status().code(), absl::StrCat("log in ", shard_dir, ": ", end.status().message()));
  return undone;
}

}  // namespace

absl::StatusOr<ReplayResult> ReplayShardLog(const std::string& shard_dir) {
  absl::StatusOr<std::vector<UndoneRange>> undone = FindUndone(shard_dir);
  if (!undone.ok()) return undone.status();
  std::unique_ptr<Replica> replica;
  RunRecord run;
  const auto visit = [&](const RecordHeader& header, const LogPosition& at, absl::string_view body) -> absl::Status {
    if (header.kind == RecordKind::kRun) {
      if (replica != nullptr) return CheckRunRecord(shard_dir, run, body);
      absl::StatusOr<RunRecord> record = ParseRunRecord(body);
      if (!record.ok()) return record.status();
      absl::StatusOr<RunDefinition> definition = ParseDefinition(record->run_proto);
      if (!definition.ok()) return definition.status();
      run = *std::move(record);
      absl::StatusOr<std::unique_ptr<Replica>> made = Replica::Create(
          ShardBlocks(definition->spec, definition->generation, definition->layout, run.shard), RunShardOptions().staged_bytes_max);
      if (!made.ok()) return made.status();
      replica = *std::move(made);
      replica->LeaveOut(*std::move(undone));
      return absl::OkStatus();
    }
    if (replica == nullptr) return absl::DataLossError("the log does not begin with its RUN record");
    return replica->Replay(
        header, at, body, [](std::shared_ptr<const Decision>) {}, [](size_t) {}, [](const Decision&) { return absl::OkStatus(); });
  };
  absl::StatusOr<LogEnd> end = ReadLog(shard_dir, /*sync_first=*/false, visit);
  if (!end.ok()) return absl::Status(end.status().code(), absl::StrCat("log in ", shard_dir, ": ", end.status().message()));
  if (replica == nullptr) return absl::NotFoundError(absl::StrCat("no log in ", shard_dir));
  if (replica->lost()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "run ", replica->blocks().spec().name,
        " was trained with durability \"checkpoint\": ", "its log does not hold the contributions after the newest checkpoint"));
  }
  const ReplicaPosition& position = replica->position();
  return ReplayResult{replica->blocks().spec().name, run.shard, position.version, position.index, replica->values().Root()};
}

}  // namespace ballast
