#include "tools/ballastctl/stopped_server.h"

#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "ballast/v1/run.pb.h"
#include "core/layout/layout.h"
#include "core/record/decision.h"
#include "core/record/log_record.h"
#include "server/coordinator/run_records.h"
#include "server/shard/replica.h"
#include "server/shard/shard_blocks.h"
#include "server/storage/rocks_store.h"
#include "server/storage/segment_reader.h"

namespace ballast::ctl {
namespace {

namespace fs = std::filesystem;

absl::StatusOr<uint32_t> IndexOf(const std::string& dir) {
  const absl::StatusOr<std::string> text = ReadFile(dir + "/IDENTITY");
  if (!text.ok()) return absl::NotFoundError(absl::StrCat(dir, " is no data directory of a ballast-server: it has no IDENTITY"));
  uint32_t index = 0;
  for (absl::string_view line : absl::StrSplit(*text, '\n')) {
    if (absl::ConsumePrefix(&line, "server=") && absl::SimpleAtoi(line, &index)) return index;
  }
  return absl::DataLossError(absl::StrCat(dir, "/IDENTITY at byte 0: it does not say which server this is"));
}

absl::StatusOr<UniqueFd> Lock(const std::string& dir) {
  const std::string path = dir + "/LOCK";
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return FileError("open", path, errno);
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return fd;
  if (errno != EWOULDBLOCK) return FileError("lock", path, errno);
  return absl::FailedPreconditionError(absl::StrCat("a ballast-server runs on ", dir, ": stop it first"));
}

// The definition that the log of a shard begins with.
absl::StatusOr<RunDefinition> LoggedDefinition(const std::string& shard_dir) {
  absl::StatusOr<RunDefinition> found = absl::NotFoundError(absl::StrCat("no log in ", shard_dir));
  const auto visit = [&](const RecordHeader& header, const LogPosition&, absl::string_view body) -> absl::Status {
    if (header.kind != RecordKind::kRun) return absl::OkStatus();
    const absl::StatusOr<RunRecord> record = ParseRunRecord(body);
    v1::Run run;
    if (record.ok() && run.ParseFromString(record->run_proto)) found = FromProto(run);
    return absl::CancelledError("that is all");
  };
  const absl::StatusOr<LogEnd> read = ReadLog(shard_dir, /*sync_first=*/false, visit);
  return found.ok() || read.ok() || absl::IsCancelled(read.status()) ? found : read.status();
}

}  // namespace

absl::StatusOr<std::unique_ptr<StoppedServer>> StoppedServer::Open(const std::string& dir, Access access) {
  const absl::StatusOr<uint32_t> index = IndexOf(dir);
  if (!index.ok()) return index.status();
  absl::StatusOr<UniqueFd> lock = Lock(dir);
  if (!lock.ok()) return lock.status();
  const std::string store_dir = dir + "/store";
  absl::StatusOr<std::unique_ptr<Store>> store = access == Access::kWrite ? OpenRocksStore(store_dir) : ReadRocksStore(store_dir);
  if (!store.ok()) return store.status();
  auto server = std::unique_ptr<StoppedServer>(new StoppedServer(dir, *index, *std::move(lock), *std::move(store)));
  if (absl::Status loaded = server->LoadRuns(); !loaded.ok()) return loaded;
  return server;
}

// Server 0 has records of the runs; the others know of a run by its log.
absl::Status StoppedServer::LoadRuns() {
  const RunRecords records(store_.get());
  const absl::StatusOr<std::vector<RunDefinition>> stored = records.LoadRuns();
  if (!stored.ok()) return stored.status();
  for (const RunDefinition& definition : *stored) {
    Run& run = runs_[definition.spec.name];
    run.definition = definition;
    absl::StatusOr<std::vector<Manifest>> manifests = records.LoadManifests(definition.spec.name);
    if (!manifests.ok()) return manifests.status();
    run.manifests = *std::move(manifests);
  }
  const absl::StatusOr<std::vector<std::string>> names = ListDir(dir_ + "/runs");
  if (!names.ok() && !absl::IsNotFound(names.status())) return names.status();
  for (const std::string& name : names.value_or(std::vector<std::string>())) {
    if (runs_.contains(name) || index_ == 0) continue;
    const absl::StatusOr<RunDefinition> definition = LoggedDefinition(absl::StrCat(dir_, "/runs/", name, "/shard-", index_));
    if (!definition.ok()) return definition.status();
    runs_[name].definition = *definition;
  }
  for (auto& [name, run] : runs_) {
    if (absl::Status s = LoadCheckpoints(name, &run); !s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status StoppedServer::LoadCheckpoints(const std::string& name, Run* run) {
  absl::StatusOr<std::map<uint64_t, CheckpointMeta>> checkpoints = ListCheckpoints(*store_, name);
  if (!checkpoints.ok()) return checkpoints.status();
  run->checkpoints = *std::move(checkpoints);
  return store_->Scan(absl::StrCat("ckpt/", name, "/meta/"), [&](absl::string_view key, absl::string_view sealed) {
    if (const auto opened = OpenValue(key, sealed); !opened.ok()) {
      run->damages.push_back(absl::DataLossError(absl::StrCat(dir_, ": ", opened.status().message())));
    }
    return true;
  });
}

std::string StoppedServer::ShardDir(const Run& run) const {
  return absl::StrCat(dir_, "/runs/", run.definition.spec.name, "/shard-", index_);
}

std::vector<absl::Status> StoppedServer::Check(const Run& run, uint64_t version) const {
  const RunDefinition& definition = run.definition;
  const auto found = run.checkpoints.find(version);
  if (found == run.checkpoints.end()) {
    return {absl::DataLossError(
        absl::StrCat(dir_, ": the checkpoint ", definition.spec.name, "@", version, " has a manifest but no readable record"))};
  }
  const CheckpointMeta& meta = found->second;
  auto replica = Replica::Create(ShardBlocks(definition.spec, definition.generation, definition.layout, index_), /*staged_bytes_max=*/0);
  if (!replica.ok()) return {replica.status()};
  const ShardBlocks& blocks = (*replica)->blocks();
  std::vector<absl::Status> wrong;
  for (size_t b = 0; b < blocks.size(); ++b) {
    for (int slot = -1; slot < blocks.slots(b); ++slot) {
      const std::string key = BlockKey(definition.spec.name, version, b, slot);
      const absl::StatusOr<std::string> value = ReadCheckpointArray(*store_, key, (*replica)->values().Bytes(b, slot));
      if (value.ok()) {
        (*replica)->values().CopyIn(b, slot, *value);
      } else {
        wrong.push_back(absl::DataLossError(absl::StrCat(dir_, ": ", value.status().message())));
      }
    }
  }
  if (wrong.empty() && (meta.blocks != blocks.size() || (*replica)->values().Root() != meta.digest.digest)) {
    wrong.push_back(
        absl::DataLossError(absl::StrCat(dir_, ": the blocks of ", definition.spec.name, "@", version, " do not have its digest")));
  }
  for (const Manifest& manifest : run.manifests) {
    for (const ShardDigest& shard : manifest.shards) {
      if (manifest.version != version || shard.shard != index_ || shard.digest == meta.digest.digest) continue;
      wrong.push_back(
          absl::DataLossError(absl::StrCat(dir_, ": the manifest of ", definition.spec.name, "@", version, " has another digest")));
    }
  }
  return wrong;
}

absl::Status StoppedServer::CheckRecords() const {
  for (const char* prefix : {"artifact-bytes/", "artifact/", "cluster/", "epoch/", "manifest/", "removed/", "run/", "stopped/"}) {
    const absl::Status read = store_->Scan(prefix, [](absl::string_view, absl::string_view) { return true; });
    if (!read.ok()) return absl::Status(read.code(), absl::StrCat(dir_, ": ", read.message()));
  }
  return absl::OkStatus();
}

absl::Status StoppedServer::ReadValues(const Run& run, uint64_t version, Visit visit) const {
  const RunDefinition& definition = run.definition;
  if (!run.checkpoints.contains(version)) {
    return absl::NotFoundError(absl::StrCat(dir_, " has no checkpoint ", definition.spec.name, "@", version));
  }
  const ShardBlocks blocks(definition.spec, definition.generation, definition.layout, index_);
  for (size_t b = 0; b < blocks.size(); ++b) {
    const uint64_t bytes = blocks.block(b).count * ElementBytes(blocks.tensor(b).dtype);
    const absl::StatusOr<std::string> value = ReadCheckpointArray(*store_, BlockKey(definition.spec.name, version, b, -1), bytes);
    if (!value.ok()) return absl::DataLossError(absl::StrCat(dir_, ": ", value.status().message()));
    if (absl::Status s = visit(blocks.block(b), *value); !s.ok()) return s;
  }
  return absl::OkStatus();
}

// A start needs a manifest and all decisions after it; a ROLLBACK among those needs the manifest that it goes back to.
absl::Status StoppedServer::MayRemove(const Run& run, const Manifest& manifest) const {
  const std::string name = absl::StrCat(run.definition.spec.name, "@", manifest.version);
  const Manifest* healthy = nullptr;
  const Manifest* newest = nullptr;  // of those that would stay
  for (const Manifest& m : run.manifests) {
    if (m.healthy) healthy = &m;
    if (m.version != manifest.version) newest = &m;
  }
  if (healthy != nullptr && healthy->version == manifest.version) {
    return absl::FailedPreconditionError(
        absl::StrCat(name, " is the newest checkpoint whose values are all finite: without it the run has no good state to go back to"));
  }
  if (newest == nullptr) return absl::FailedPreconditionError(absl::StrCat(name, " is the only checkpoint of its run"));
  uint64_t first = 0;
  bool wanted = false;
  const auto visit = [&](const RecordHeader& header, const LogPosition&, absl::string_view body) -> absl::Status {
    if (header.kind != RecordKind::kDecision) return absl::OkStatus();
    const absl::StatusOr<Decision> d = ParseDecision(body);
    if (!d.ok()) return d.status();
    if (first == 0) first = d->index;
    wanted |= d->index > newest->index && d->kind == DecisionKind::kRollback && d->rollback_version == manifest.version;
    return absl::OkStatus();
  };
  const absl::StatusOr<LogEnd> end = ReadLog(ShardDir(run), /*sync_first=*/false, visit);
  if (!end.ok()) return end.status();
  if (first == 0 || first > newest->index + 1) {
    return absl::FailedPreconditionError(absl::StrCat(name, " must stay: the log does not reach back to ", run.definition.spec.name, "@",
                                                      newest->version, ", from which the next start would begin"));
  }
  if (wanted) return absl::FailedPreconditionError(absl::StrCat(name, " must stay: a rollback in the log goes back to it"));
  return absl::OkStatus();
}

absl::Status StoppedServer::Remove(const Run& run, uint64_t version) {
  const std::string& name = run.definition.spec.name;
  if (index_ != 0) {
    return absl::FailedPreconditionError(absl::StrCat(dir_, " is of server ", index_, ", manifests are on server 0: remove it there"));
  }
  const auto manifest = std::find_if(run.manifests.begin(), run.manifests.end(), [&](const Manifest& m) { return m.version == version; });
  if (manifest == run.manifests.end()) return absl::NotFoundError(absl::StrCat(dir_, " has no manifest of ", name, "@", version));
  if (absl::Status may = MayRemove(run, *manifest); !may.ok()) return may;
  // The manifest first: blocks without one are nobody's.
  if (absl::Status dropped = RunRecords(store_.get()).DropManifests(name, [&](uint64_t v) { return v != version; }); !dropped.ok())
    return dropped;
  return DeleteCheckpoint(*store_, name, version);
}

}  // namespace ballast::ctl
