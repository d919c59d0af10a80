// What server 0 must remember about runs beyond the log: definitions, manifests, epochs, stops. Records of the Store, one key each:
//   run/<run>   manifest/<run>/<version>   epoch/<run>/<epoch>   stopped/<run>   removed/<run>
// Threads: any; every write is synced when it returns. Errors: the store's, and DataLoss when a record does not parse.
#ifndef BALLAST_SERVER_COORDINATOR_RUN_RECORDS_H_
#define BALLAST_SERVER_COORDINATOR_RUN_RECORDS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/coordinator/coordinator.h"
#include "core/types.h"
#include "proto/convert.h"
#include "server/storage/store.h"

namespace ballast {

class RunRecords {
 public:
  explicit RunRecords(Store* store) : store_(store) {}

  // Of a new run. Clears first what a crash in DeleteRun left of an earlier one: its manifests and epochs must not count for this one.
  absl::Status PutRun(const RunDefinition& run);
  absl::StatusOr<std::vector<RunDefinition>> LoadRuns() const;  // by name
  // Every record of the run. What stays is its generation: a run of the same name begins above it, so that nothing of the old one, on a
  // server that was away or in a worker, can be taken for the new one's.
  absl::Status DeleteRun(const std::string& run, uint64_t generation);
  // Of the next run of this name: 1, when there was none.
  absl::StatusOr<uint64_t> NextGeneration(const std::string& run) const;

  absl::Status PutManifest(const Manifest& manifest);
  absl::StatusOr<std::vector<Manifest>> LoadManifests(const std::string& run) const;  // oldest first
  // Forgets those that are not kept.
  absl::Status DropManifests(const std::string& run, absl::FunctionRef<bool(uint64_t version)> keeps);

  absl::Status PutEpoch(const std::string& run, const EpochRecord& epoch);
  absl::Status DropEpoch(const std::string& run, uint32_t epoch);
  absl::StatusOr<std::vector<EpochRecord>> LoadEpochs(const std::string& run) const;  // ascending

  // The reason why a run is stopped; nullopt: it is not.
  absl::Status PutStopped(const std::string& run, const std::optional<std::string>& reason);
  absl::StatusOr<std::optional<std::string>> LoadStopped(const std::string& run) const;

 private:
  absl::Status DeleteAllButDefinition(const std::string& run);

  Store* const store_;
};

}  // namespace ballast

#endif  // BALLAST_SERVER_COORDINATOR_RUN_RECORDS_H_
