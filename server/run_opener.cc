#include "server/run_opener.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include <filesystem>
#include <random>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/status.h"
#include "server/failpoint.h"
#include "server/log.h"
#include "server/storage/files.h"
#include "steady.h"

namespace ballast {
namespace {

uint64_t RandomKey() {
  std::random_device device;
  return uint64_t{device()} << 32 | device();
}

}  // namespace

absl::StatusOr<std::shared_ptr<OpenRun>> RunOpener::Open(const RunDefinition& run, std::unique_ptr<ShardEvents> events) {
  BALLAST_FAILPOINT_STATUS("run-open");
  const absl::Time start = SteadyNow();
  const ServerIdentity& identity = dir_->identity();
  const auto logged = LoggedGeneration(*store_, run.spec.name);
  if (!logged.ok()) return logged.status();
  if (*logged != 0 && *logged < run.generation) {  // removed while this server was away, then created again
    if (absl::Status removed = Remove(run.spec.name); !removed.ok()) return removed;
  }
  RunShardOptions options;
  options.dir = dir_->ShardDir(run.spec.name, identity.server);
  options.shard = identity.server;
  options.shards = identity.servers;
  options.incarnation = options_.incarnation;
  options.receipt_key = RandomKey();
  options.coordinator_log = identity.server == 0;
  options.retain_all = options_.retain_all;
  options.queue_bytes_max = options_.queue_bytes_max;
  options.disk_reserve_bytes = options_.disk_reserve_bytes;
  options.rules = options_.rules;
  auto shard = RunShard::Open(std::move(options), run.spec, run.generation, run.layout, ToProto(run).SerializeAsString(), store_,
                              events.get(), metrics_);
  if (!shard.ok()) return shard.status();
  const ShardPosition position = (*shard)->Position();
  LogInfo("run opened", {{"run", run.spec.name},
                         {"version", absl::StrCat(position.version)},
                         {"decision", absl::StrCat(position.index)},
                         {"undecided", absl::StrCat(position.undecided.size())},
                         {"seconds", absl::StrCat(absl::ToDoubleSeconds(SteadyNow() - start))}});
  BALLAST_FAILPOINT("run-opened");
  runs_->Add({run.spec, run.generation, run.layout, std::move(events), *std::move(shard)});
  return runs_->Find(run.spec.name);
}

// Records first: a directory without records is found again by RemoveOthers, records without a directory would not be.
absl::Status RunOpener::Remove(const std::string& run) {
  runs_->Close(run);
  BALLAST_FAILPOINT("run-remove");
  if (absl::Status deleted = DeleteShardRecords(*store_, run); !deleted.ok()) return deleted;
  BALLAST_FAILPOINT("run-forgotten");
  std::error_code error;
  std::filesystem::remove_all(dir_->RunDir(run), error);
  if (error) return absl::InternalError(absl::StrCat("cannot remove ", dir_->RunDir(run), ": ", error.message()));
  BALLAST_FAILPOINT("run-removed");
  LogInfo("run removed", {{"run", run}});
  return absl::OkStatus();
}

absl::Status RunOpener::RemoveOthers(const std::set<std::string>& known) {
  auto names = ListDir(dir_->RunDir(""));
  if (absl::IsNotFound(names.status())) return absl::OkStatus();
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    if (known.contains(name)) continue;
    if (absl::Status removed = Remove(name); !removed.ok()) return removed;
  }
  return absl::OkStatus();
}

std::string RunOpener::Progress() const {
  constexpr double kMiB = 1 << 20;
  return absl::StrFormat("%.0f of %.0f MiB read", metrics_->RecoveryBytesRead() / kMiB, metrics_->RecoveryBytesExpected() / kMiB);
}

absl::Status RunOpener::CheckDisk(uint64_t bytes) const {
  struct statvfs disk;
  const std::string path = dir_->RunDir("");
  if (statvfs(path.c_str(), &disk) != 0 && statvfs(dir_->StoreDir().c_str(), &disk) != 0) return absl::OkStatus();
  const uint64_t available = uint64_t{disk.f_bavail} * disk.f_frsize;
  if (available >= bytes && available - bytes >= options_.disk_reserve_bytes) return absl::OkStatus();
  return WithReason(absl::ResourceExhaustedError(absl::StrCat("the disk of ", path, " has ", available >> 20, " MiB free, ", bytes >> 20,
                                                              " MiB are wanted, and ", options_.disk_reserve_bytes >> 20,
                                                              " MiB stay in reserve (--disk-reserve): free some space")),
                    "DISK_LOW");
}

absl::Status RunOpener::CheckMemory(uint64_t bytes) {
  const uint64_t memory = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  if (bytes <= memory) return absl::OkStatus();
  return WithReason(absl::ResourceExhaustedError(absl::StrCat("the run needs ", bytes >> 20, " MiB of memory on each server, this one has ",
                                                              memory >> 20, " MiB: use more servers, or a smaller model")),
                    "RUN_TOO_LARGE");
}

}  // namespace ballast
