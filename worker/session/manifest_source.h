// ModelSource over the servers: a run's newest manifests from Control, its model file by digest, its values from every shard's checkpoint.
// Also where the initial values of a run come from (InitSpec).
// Threads: any; the calls block on the network, each with a deadline.
#ifndef BALLAST_WORKER_SESSION_MANIFEST_SOURCE_H_
#define BALLAST_WORKER_SESSION_MANIFEST_SOURCE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/types.h"
#include "worker/model/model.h"
#include "worker/model/parameter_store.h"
#include "worker/serve/model_source.h"
#include "worker/session/cluster.h"
#include "worker/session/model_files.h"

namespace ballast {

class ManifestSource final : public ModelSource {
 public:
  // Both outlive this.
  ManifestSource(Cluster* cluster, ModelFiles* files) : cluster_(cluster), files_(files) {}

  absl::StatusOr<std::vector<ManifestKey>> Manifests(const std::string& run) override;
  absl::StatusOr<ModelParts> Fetch(const std::string& run, uint64_t version) override;

 private:
  Cluster* const cluster_;
  ModelFiles* const files_;
};

// Fills `out` as spec.init says: a safetensors artifact, a manifest of another run (by the tensors' names), or what the model file holds.
// Errors: those of the sources; InvalidArgument naming the tensors that do not fit.
absl::Status InitialValues(const RunSpec& spec, const Model& model, ModelFiles* files, ModelSource* source, ParameterStore* out);

}  // namespace ballast

#endif  // BALLAST_WORKER_SESSION_MANIFEST_SOURCE_H_
