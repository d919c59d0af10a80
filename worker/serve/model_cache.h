// Loaded models by (run, manifest), bounded in bytes, least recently used out first. The newest version of a run is asked again
// after `recheck`. One caller loads a model, others that want the same one wait for it.
// Threads: any, concurrently. Get blocks on the source and on loading, never while it holds the cache's lock.
#ifndef BALLAST_WORKER_SERVE_MODEL_CACHE_H_
#define BALLAST_WORKER_SERVE_MODEL_CACHE_H_

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "steady.h"
#include "worker/model/model.h"
#include "worker/serve/model_source.h"

namespace ballast {

// A model with the values of one manifest. Shared by requests; `mu` admits one forward at a time (torch uses its threads inside it).
class ServedModel {
 public:
  ServedModel(uint64_t version, uint64_t bytes, std::unique_ptr<Model> model)
      : version_(version), bytes_(bytes), description_(model->description()), model_(std::move(model)) {}

  uint64_t version() const { return version_; }
  uint64_t bytes() const { return bytes_; }
  const ModelDescription& description() const { return description_; }
  absl::StatusOr<std::vector<OutputTensor>> Infer(const BatchView& batch) const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const uint64_t version_;
  const uint64_t bytes_;
  const ModelDescription description_;
  mutable absl::Mutex mu_;
  const std::unique_ptr<Model> model_ ABSL_PT_GUARDED_BY(mu_);
};

struct ModelCacheOptions {
  uint64_t bytes_max = uint64_t{4} << 30;       // of archives and values; one model alone may exceed it
  absl::Duration recheck = absl::Seconds(3);    // how old the list of a run's versions may be
  std::function<absl::Time()> now = SteadyNow;  // replaced in tests
};

class ModelCache {
 public:
  ModelCache(ModelCacheOptions options, std::shared_ptr<ModelSource> source);

  // Versions of the run's manifests, newest first, at most `recheck` old. Errors: those of ModelSource::Manifests.
  absl::StatusOr<std::vector<uint64_t>> Versions(const std::string& run) ABSL_LOCKS_EXCLUDED(mu_);

  // `version` 0: the newest. Errors: NotFound (no such run or manifest), FailedPrecondition (the run has no manifest yet), those of the
  // source and of Model::Load.
  absl::StatusOr<std::shared_ptr<const ServedModel>> Get(const std::string& run, uint64_t version) ABSL_LOCKS_EXCLUDED(mu_);

  uint64_t bytes() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  using Key = std::tuple<std::string, uint64_t, uint64_t>;  // run, version, identity
  struct Entry {
    bool loading = true;
    absl::Status status;
    std::shared_ptr<const ServedModel> model;
    std::list<Key>::iterator recency;  // valid once loaded
  };
  struct Listing {
    absl::Time at;
    std::vector<ManifestKey> manifests;
  };

  absl::StatusOr<std::vector<ManifestKey>> Manifests(const std::string& run) ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<std::shared_ptr<const ServedModel>> Load(const std::string& run, uint64_t version);
  void Evict() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const ModelCacheOptions options_;
  const std::shared_ptr<ModelSource> source_;
  mutable absl::Mutex mu_;
  std::map<std::string, Listing> listings_ ABSL_GUARDED_BY(mu_);
  std::map<Key, std::shared_ptr<Entry>> entries_ ABSL_GUARDED_BY(mu_);
  std::list<Key> recency_ ABSL_GUARDED_BY(mu_);  // most recent first
  uint64_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace ballast

#endif  // BALLAST_WORKER_SERVE_MODEL_CACHE_H_
