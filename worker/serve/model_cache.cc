#include "worker/serve/model_cache.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/status.h"

namespace ballast {
namespace {

bool Passing(const absl::Status& status) { return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status); }

}  // namespace

absl::StatusOr<std::vector<OutputTensor>> ServedModel::Infer(const BatchView& batch) const {
  absl::MutexLock lock(&mu_);
  return model_->Infer(batch);
}

ModelCache::ModelCache(ModelCacheOptions options, std::shared_ptr<ModelSource> source)
    : options_(std::move(options)), source_(std::move(source)) {}

absl::StatusOr<std::vector<uint64_t>> ModelCache::Versions(const std::string& run) {
  const auto manifests = Manifests(run);
  if (!manifests.ok()) return manifests.status();
  std::vector<uint64_t> versions;
  for (const ManifestKey& manifest : *manifests) versions.push_back(manifest.version);
  return versions;
}

absl::StatusOr<std::vector<ManifestKey>> ModelCache::Manifests(const std::string& run) {
  const absl::Time now = options_.now();
  {
    absl::MutexLock lock(&mu_);
    const auto it = listings_.find(run);
    if (it != listings_.end() && now - it->second.at <= options_.recheck) return it->second.manifests;
  }
  auto manifests = source_->Manifests(run);
  absl::MutexLock lock(&mu_);
  if (manifests.ok()) {
    listings_[run] = Listing{now, *manifests};
    return manifests;
  }
  const auto it = listings_.find(run);
  // Scoring goes on from what is known while server 0 is away.
  if (it != listings_.end() && Passing(manifests.status())) return it->second.manifests;
  if (absl::IsNotFound(manifests.status())) {
    listings_.erase(run);
    return WithReason(manifests.status(), "MODEL_NOT_FOUND", {{"run", run}});
  }
  return manifests;
}

absl::StatusOr<std::shared_ptr<const ServedModel>> ModelCache::Get(const std::string& run, uint64_t version) {
  const auto manifests = Manifests(run);
  if (!manifests.ok()) return manifests.status();
  if (manifests->empty()) {
    return WithReason(absl::FailedPreconditionError(absl::StrCat("run ", run, " has no checkpoint yet: there is nothing to score with")),
                      "MODEL_NOT_READY", {{"run", run}});
  }
  const auto manifest =
      std::find_if(manifests->begin(), manifests->end(), [&](const ManifestKey& m) { return version == 0 || m.version == version; });
  if (manifest == manifests->end()) {
    return WithReason(absl::NotFoundError(absl::StrCat("run ", run, " has no manifest of version ", version, ", the newest is ",
                                                       manifests->front().version)),
                      "MODEL_NOT_FOUND", {{"run", run}});
  }
  const Key key{run, manifest->version, manifest->identity};
  std::shared_ptr<Entry> entry;
  {
    absl::MutexLock lock(&mu_);
    const auto it = entries_.find(key);
    if (it != entries_.end()) {
      entry = it->second;
      mu_.Await(absl::Condition(
          +[](Entry* e) { return !e->loading; }, entry.get()));
      if (!entry->status.ok()) return entry->status;
      // It may have been evicted while this caller waited; what it holds stays good.
      const auto now = entries_.find(key);
      if (now != entries_.end() && now->second == entry) recency_.splice(recency_.begin(), recency_, entry->recency);
      return entry->model;
    }
    entry = entries_[key] = std::make_shared<Entry>();
  }
  auto model = Load(run, manifest->version);
  absl::MutexLock lock(&mu_);
  entry->loading = false;
  if (!model.ok()) {
    entry->status = model.status();
    entries_.erase(key);  // the next caller tries again
    return model.status();
  }
  entry->model = *model;
  recency_.push_front(key);
  entry->recency = recency_.begin();
  bytes_ += (*model)->bytes();
  Evict();
  return model;
}

absl::StatusOr<std::shared_ptr<const ServedModel>> ModelCache::Load(const std::string& run, uint64_t version) {
  auto parts = source_->Fetch(run, version);
  if (!parts.ok()) return parts.status();
  auto model = Model::Load(parts->archive, parts->tensors);
  if (!model.ok()) return model.status();
  const uint64_t bytes = parts->archive.size() + parts->values->bytes();
  if (absl::Status status = (*model)->SetInferValues(std::move(parts->values)); !status.ok()) return status;
  return std::make_shared<const ServedModel>(version, bytes, *std::move(model));
}

void ModelCache::Evict() {
  while (bytes_ > options_.bytes_max && recency_.size() > 1) {
    const auto it = entries_.find(recency_.back());
    bytes_ -= it->second->model->bytes();
    entries_.erase(it);
    recency_.pop_back();
  }
}

uint64_t ModelCache::bytes() const {
  absl::MutexLock lock(&mu_);
  return bytes_;
}

}  // namespace ballast
