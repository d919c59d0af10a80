#include "tests/storage/opened_state.h"

#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/coordinator/coordinator.h"
#include "core/record/decision.h"
#include "core/record/hash.h"
#include "proto/convert_control.h"
#include "server/coordinator/run_records.h"
#include "server/run_opener.h"
#include "server/run_table.h"
#include "server/shard/shard_testing.h"
#include "server/storage/data_dir.h"
#include "server/storage/files.h"
#include "server/storage/rocks_store.h"

namespace ballast::testing {
namespace {

// A server is started with its identity; here the directory itself says who it is to be, unless that is what was damaged.
ServerIdentity IdentityOf(const std::string& dir) {
  ServerIdentity id{"ballast", 0, 1};
  for (absl::string_view line : absl::StrSplit(ReadFile(dir + "/IDENTITY").value_or(""), '\n')) {
    if (absl::ConsumePrefix(&line, "servers=")) (void)absl::SimpleAtoi(line, &id.servers);
  }
  return id;
}

uint64_t HashOf(const Encoding& encoding) {
  Hasher hasher;
  for (const Encoding::Piece& piece : encoding.pieces) {
    hasher.Add(piece.head_blocks);
    hasher.Add(piece.payload);
  }
  return hasher.Value();
}

class Opening {
 public:
  explicit Opening(const std::string& dir) : dir_(dir) {}

  absl::Status Open() {
    absl::StatusOr<std::unique_ptr<DataDir>> data = DataDir::Open(dir_, IdentityOf(dir_));
    if (!data.ok()) return data.status();
    data_ = *std::move(data);
    state_.incarnation = data_->incarnation();
    absl::StatusOr<std::unique_ptr<Store>> store = OpenRocksStore(data_->StoreDir(), [this](const absl::Status& s) { failed_ = s; });
    if (!store.ok()) return store.status();
    store_ = *std::move(store);
    opener_ = std::make_unique<RunOpener>(
        RunOpener::Options{.retain_all = false, .queue_bytes_max = 1 << 30, .disk_reserve_bytes = 0, .rules = {}}, data_.get(),
        store_.get(), &runs_, nullptr);
    RunRecords records(store_.get());
    absl::StatusOr<std::vector<RunDefinition>> runs = records.LoadRuns();
    if (!runs.ok()) return runs.status();
    std::set<std::string> names;
    for (const RunDefinition& run : *runs) names.insert(run.spec.name);
    if (absl::Status s = opener_->RemoveOthers(names); !s.ok()) return s;
    for (const RunDefinition& run : *runs) {
      if (absl::Status s = OpenOne(run, records); !s.ok()) return s;
    }
    if (absl::Status s = ReadRecords(); !s.ok()) return s;
    return failed_;
  }

  OpenedState& state() { return state_; }

 private:
  absl::Status OpenOne(const RunDefinition& run, RunRecords& records) {
    const std::string& name = run.spec.name;
    auto events = std::make_unique<RecordedEvents>();
    RecordedEvents* const told = events.get();
    absl::StatusOr<std::shared_ptr<OpenRun>> open = opener_->Open(run, std::move(events));
    if (!open.ok()) return open.status();
    RunShard& shard = *(*open)->shard;

    CoordinatorState state;
    absl::StatusOr<std::vector<Manifest>> manifests = records.LoadManifests(name);
    if (!manifests.ok()) return manifests.status();
    state.manifests = *manifests;
    absl::StatusOr<std::vector<EpochRecord>> epochs = records.LoadEpochs(name);
    if (!epochs.ok()) return epochs.status();
    state.epochs = *std::move(epochs);
    const uint64_t first = manifests->empty() ? 1 : manifests->front().index + 1;
    absl::StatusOr<std::vector<std::shared_ptr<const Decision>>> decisions = shard.ReadDecisions(first, UINT64_MAX);
    if (!decisions.ok()) return decisions.status();
    state.decisions = *std::move(decisions);
    const uint64_t newest = manifests->empty() ? 1 : manifests->back().index + 1;
    for (const auto& d : state.decisions) {
      if (d->index >= newest) state_.facts[absl::StrCat("decision ", name, " ", d->index)] = EncodeDecision(*d);
    }
    absl::StatusOr<std::optional<std::string>> stopped = records.LoadStopped(name);
    if (!stopped.ok()) return stopped.status();

    CoordinatorConfig config;
    config.spec = run.spec;
    config.generation = run.generation;
    config.shards = data_->identity().servers;
    config.incarnation = data_->incarnation();
    absl::StatusOr<std::unique_ptr<Coordinator>> coordinator = Coordinator::Restore(config, std::move(state), 0);
    if (!coordinator.ok()) return coordinator.status();
    const RunStatus status = (*coordinator)->Describe();
    const ShardPosition at = shard.Position();
    state_.facts["status " + name] = absl::StrCat(status.index, " ", status.version, " rows ", status.rows_trained, " + ",
                                                  status.rows_skipped, " stopped ", stopped->value_or("no"));
    state_.facts["position " + name] =
        absl::StrCat(at.index, " ", at.version, " chain ", absl::Hex(at.chain), " hash ", absl::Hex(shard.StateHash(nullptr)));
    for (const Manifest& m : *manifests) {
      auto read = shard.ReadCheckpoint(m.version, /*slots=*/true, {});
      if (read.ok()) state_.checkpoints[absl::StrCat(name, "@", m.version)] = HashOf(**read);
      state_.unreadable += !read.ok();
    }
    absl::MutexLock lock(&told->mu);
    return told->failed;
  }

  // Small records; checkpoints were read above.
  absl::Status ReadRecords() {
    for (const char* prefix : {"cluster/", "epoch/", "manifest/", "removed/", "run/", "stopped/"}) {
      const absl::Status scanned = store_->Scan(prefix, [this](absl::string_view key, absl::string_view value) {
        state_.facts[absl::StrCat("record ", key)] = std::string(value);
        return true;
      });
      if (!scanned.ok()) return scanned;
    }
    return absl::OkStatus();
  }

  const std::string dir_;
  OpenedState state_;
  absl::Status failed_;
  std::unique_ptr<DataDir> data_;
  std::unique_ptr<Store> store_;
  RunTable runs_;
  std::unique_ptr<RunOpener> opener_;
};

}  // namespace

absl::StatusOr<OpenedState> OpenState(const std::string& dir) {
  Opening opening(dir);
  if (absl::Status s = opening.Open(); !s.ok()) return s;
  return std::move(opening.state());
}

}  // namespace ballast::testing
