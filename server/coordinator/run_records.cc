#include "server/coordinator/run_records.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/record/wire.h"
#include "proto/convert_control.h"

namespace ballast {
namespace {

// Numbers have a fixed width, so that keys sort as numbers do.
std::string RunKey(absl::string_view run) { return absl::StrCat("run/", run); }
std::string ManifestPrefix(absl::string_view run) { return absl::StrCat("manifest/", run, "/"); }
std::string ManifestKey(absl::string_view run, uint64_t version) { return absl::StrFormat("manifest/%s/%020d", run, version); }
std::string EpochPrefix(absl::string_view run) { return absl::StrCat("epoch/", run, "/"); }
std::string EpochKey(absl::string_view run, uint32_t epoch) { return absl::StrFormat("epoch/%s/%010d", run, epoch); }
std::string StoppedKey(absl::string_view run) { return absl::StrCat("stopped/", run); }
std::string RemovedKey(absl::string_view run) { return absl::StrCat("removed/", run); }

absl::Status Damaged(absl::string_view key) {
  return absl::DataLossError(absl::StrCat("the record \"", key, "\" of the store does not parse"));
}

// 1: Epoch, 2: EpochReport, 3: committed.
std::string EncodeEpoch(const std::string& run, const EpochRecord& epoch) {
  std::string bytes;
  WireWriter out(&bytes);
  out.Message(1, ToProto(run, epoch).SerializeAsString());
  out.Message(2, ToProto(epoch.report).SerializeAsString());
  out.Bool(3, epoch.committed);
  return bytes;
}

bool ParseEpoch(absl::string_view bytes, EpochRecord* out) {
  v1::Epoch epoch;
  v1::EpochReport report;
  bool committed = false, parsed = true;
  WireReader in(bytes);
  while (in.Next()) {
    if (in.field() == 1) {
      parsed = parsed && epoch.ParseFromString(std::string(in.Bytes()));
    } else if (in.field() == 2) {
      parsed = parsed && report.ParseFromString(std::string(in.Bytes()));
    } else if (in.field() == 3) {
      committed = in.Bool();
    }
  }
  *out = FromProto(epoch);
  out->report = FromProto(report);
  out->committed = committed;
  return in.ok() && parsed;
}

}  // namespace

absl::Status RunRecords::PutRun(const RunDefinition& run) {
  if (absl::Status cleared = DeleteAllButDefinition(run.spec.name); !cleared.ok()) return cleared;
  return store_->Put(RunKey(run.spec.name), ToProto(run).SerializeAsString());
}

absl::StatusOr<std::vector<RunDefinition>> RunRecords::LoadRuns() const {
  std::vector<RunDefinition> runs;
  absl::Status problem;
  const absl::Status scanned = store_->Scan("run/", [&](absl::string_view key, absl::string_view value) {
    v1::Run proto;
    if (!proto.ParseFromString(std::string(value))) {
      problem = Damaged(key);
      return false;
    }
    auto run = FromProto(proto);
    if (!run.ok()) {
      problem = absl::DataLossError(absl::StrCat("the record \"", key, "\" of the store is not valid: ", run.status().message()));
      return false;
    }
    runs.push_back(*std::move(run));
    return true;
  });
  if (!scanned.ok()) return scanned;
  if (!problem.ok()) return problem;
  return runs;
}

// The definition goes first: without it nothing looks at the others, until a run of the same name is stored.
absl::Status RunRecords::DeleteRun(const std::string& run, uint64_t generation) {
  absl::Status status = store_->Put(RemovedKey(run), absl::StrCat(generation));
  if (status.ok()) status = store_->Delete(RunKey(run));
  return status.ok() ? DeleteAllButDefinition(run) : status;
}

absl::Status RunRecords::DeleteAllButDefinition(const std::string& run) {
  absl::Status status = store_->DeletePrefix(ManifestPrefix(run));
  if (status.ok()) status = store_->DeletePrefix(EpochPrefix(run));
  if (status.ok()) status = store_->Delete(StoppedKey(run));
  return status;
}

absl::StatusOr<uint64_t> RunRecords::NextGeneration(const std::string& run) const {
  const auto removed = store_->Get(RemovedKey(run));
  if (absl::IsNotFound(removed.status())) return 1;
  if (!removed.ok()) return removed.status();
  uint64_t generation = 0;
  if (!absl::SimpleAtoi(*removed, &generation)) return Damaged(RemovedKey(run));
  return generation + 1;
}

absl::Status RunRecords::PutManifest(const Manifest& manifest) {
  return store_->Put(ManifestKey(manifest.run, manifest.version), ToProto(manifest).SerializeAsString());
}

absl::StatusOr<std::vector<Manifest>> RunRecords::LoadManifests(const std::string& run) const {
  std::vector<Manifest> manifests;
  absl::Status problem;
  const absl::Status scanned = store_->Scan(ManifestPrefix(run), [&](absl::string_view key, absl::string_view value) {
    v1::Manifest proto;
    if (!proto.ParseFromString(std::string(value))) problem = Damaged(key);
    manifests.push_back(FromProto(proto));
    return problem.ok();
  });
  if (!scanned.ok()) return scanned;
  if (!problem.ok()) return problem;
  return manifests;
}

absl::Status RunRecords::DropManifests(const std::string& run, absl::FunctionRef<bool(uint64_t version)> keeps) {
  auto manifests = LoadManifests(run);
  if (!manifests.ok()) return manifests.status();
  for (const Manifest& manifest : *manifests) {
    if (keeps(manifest.version)) continue;
    if (absl::Status deleted = store_->Delete(ManifestKey(run, manifest.version)); !deleted.ok()) return deleted;
  }
  return absl::OkStatus();
}

absl::Status RunRecords::PutEpoch(const std::string& run, const EpochRecord& epoch) {
  return store_->Put(EpochKey(run, epoch.epoch), EncodeEpoch(run, epoch));
}

absl::Status RunRecords::DropEpoch(const std::string& run, uint32_t epoch) { return store_->Delete(EpochKey(run, epoch)); }

absl::StatusOr<std::vector<EpochRecord>> RunRecords::LoadEpochs(const std::string& run) const {
  std::vector<EpochRecord> epochs;
  absl::Status problem;
  const absl::Status scanned = store_->Scan(EpochPrefix(run), [&](absl::string_view key, absl::string_view value) {
    epochs.emplace_back();
    if (!ParseEpoch(value, &epochs.back())) problem = Damaged(key);
    return problem.ok();
  });
  if (!scanned.ok()) return scanned;
  if (!problem.ok()) return problem;
  return epochs;
}

absl::Status RunRecords::PutStopped(const std::string& run, const std::optional<std::string>& reason) {
  return reason ? store_->Put(StoppedKey(run), *reason) : store_->Delete(StoppedKey(run));
}

absl::StatusOr<std::optional<std::string>> RunRecords::LoadStopped(const std::string& run) const {
  auto reason = store_->Get(StoppedKey(run));
  if (reason.ok()) return *std::move(reason);
  if (absl::IsNotFound(reason.status())) return std::nullopt;
  return reason.status();
}

}  // namespace ballast
