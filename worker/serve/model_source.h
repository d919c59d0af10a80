// Where the inference service gets models from: a seam with two implementations, the one over the servers' Control and Shard services
// (worker/session) and a fake in the tests.
#ifndef BALLAST_WORKER_SERVE_MODEL_SOURCE_H_
#define BALLAST_WORKER_SERVE_MODEL_SOURCE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/types.h"
#include "worker/model/parameter_store.h"

namespace ballast {

// All that is needed to score with a run as of one manifest.
struct ModelParts {
  std::string archive;                           // the run's model artifact; its sha256 is checked by the source
  std::vector<TensorSpec> tensors;               // RunSpec.tensors
  std::shared_ptr<const ParameterStore> values;  // of the manifest's version; its tensors are `tensors`
};

// A manifest of a run. `identity` tells two of one version apart: a run may be removed and made again, or rolled back.
struct ManifestKey {
  uint64_t version = 0;
  uint64_t identity = 0;
  bool operator==(const ManifestKey&) const = default;
};

// Called from the inference service's threads, several at once. Calls may block on the network; they end within seconds.
class ModelSource {
 public:
  virtual ~ModelSource() = default;

  // The run's manifests, newest first; empty if it has none yet. Errors: NotFound if there is no such run; Unavailable.
  virtual absl::StatusOr<std::vector<ManifestKey>> Manifests(const std::string& run) = 0;

  // Errors: NotFound if the run or the manifest is gone; Unavailable; DataLoss.
  virtual absl::StatusOr<ModelParts> Fetch(const std::string& run, uint64_t version) = 0;
};

}  // namespace ballast

#endif  // BALLAST_WORKER_SERVE_MODEL_SOURCE_H_
