// A ModelSource over the test models of worker/model, for the tests of this folder: runs and their versions are set by the test, which also
// sees and may hold up what is fetched. Thread-safe.
#ifndef BALLAST_WORKER_SERVE_FAKE_MODEL_SOURCE_H_
#define BALLAST_WORKER_SERVE_FAKE_MODEL_SOURCE_H_

#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "worker/model/model.h"
#include "worker/serve/model_source.h"

namespace ballast {

class FakeModelSource : public ModelSource {
 public:
  // The run scores with testdata/<run>.pt and the values in that file.
  void SetVersions(const std::string& run, const std::vector<uint64_t>& newest_first, uint64_t identity = 1) {
    absl::MutexLock lock(&mu_);
    manifests_[run].clear();
    for (uint64_t version : newest_first) manifests_[run].push_back({version, identity});
  }
  void SetDown(bool down) {
    absl::MutexLock lock(&mu_);
    down_ = down;
  }
  void SetOnFetch(std::function<void()> on_fetch) {
    absl::MutexLock lock(&mu_);
    on_fetch_ = std::move(on_fetch);
  }
  int fetched() const {
    absl::MutexLock lock(&mu_);
    return fetched_;
  }

  absl::StatusOr<std::vector<ManifestKey>> Manifests(const std::string& run) override {
    absl::MutexLock lock(&mu_);
    if (down_) return absl::UnavailableError("server 0 does not answer");
    const auto it = manifests_.find(run);
    if (it == manifests_.end()) return absl::NotFoundError(absl::StrCat("no run ", run));
    return it->second;
  }

  absl::StatusOr<ModelParts> Fetch(const std::string& run, uint64_t) override {
    std::function<void()> on_fetch;
    {
      absl::MutexLock lock(&mu_);
      if (down_) return absl::UnavailableError("server 0 does not answer");
      ++fetched_;
      on_fetch = on_fetch_;
    }
    if (on_fetch) on_fetch();
    std::ifstream in(absl::StrCat("worker/model/testdata/", run, ".pt"), std::ios::binary);
    std::stringstream bytes;
    bytes << in.rdbuf();
    ModelParts parts;
    parts.archive = bytes.str();
    auto model = Model::Load(parts.archive, {});
    if (!model.ok()) return model.status();
    parts.tensors = (*model)->tensors();
    auto values = std::make_shared<ParameterStore>(parts.tensors);
    if (absl::Status status = (*model)->InitialValues(values.get()); !status.ok()) return status;
    parts.values = std::move(values);
    return parts;
  }

 private:
  mutable absl::Mutex mu_;
  std::map<std::string, std::vector<ManifestKey>> manifests_ ABSL_GUARDED_BY(mu_);
  std::function<void()> on_fetch_ ABSL_GUARDED_BY(mu_);
  bool down_ ABSL_GUARDED_BY(mu_) = false;
  int fetched_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace ballast

#endif  // BALLAST_WORKER_SERVE_FAKE_MODEL_SOURCE_H_
