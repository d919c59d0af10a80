#include "core/coordinator/checkpoints.h"

#include <algorithm>
#include <utility>

namespace ballast {

Checkpoints::Checkpoints(std::vector<Manifest> manifests, uint32_t kept_count, Rules rules)
    : rules_(rules), kept_count_(std::max<uint32_t>(kept_count, 1)), manifests_(std::move(manifests)) {
  DropUndone();
  if (rules_.kept_after_restart) Rotate();
}

// Oldest first: a manifest after a rollback undoes those between it and where the run went back to.
void Checkpoints::DropUndone() {
  std::vector<Manifest> counting;
  for (Manifest& m : manifests_) {
    if (m.rolled_back_to != 0) std::erase_if(counting, [&](const Manifest& old) { return old.version > m.rolled_back_to; });
    counting.push_back(std::move(m));
  }
  manifests_ = std::move(counting);
}

const Manifest* Checkpoints::Find(uint64_t version) const {
  const auto it = std::find_if(manifests_.begin(), manifests_.end(), [&](const Manifest& m) { return m.version == version; });
  return it == manifests_.end() ? nullptr : &*it;
}

std::vector<Tag> Checkpoints::Abandon() {
  std::vector<Tag> tags = TakeTags();
  if (active_) tags.insert(tags.end(), active_->tags.begin(), active_->tags.end());
  active_.reset();
  return tags;
}

void Checkpoints::Want(Tag tag) {
  wanted_ = true;
  tags_.push_back(tag);
}

std::vector<Tag> Checkpoints::TakeTags() {
  wanted_ = false;
  return std::exchange(tags_, {});
}

void Checkpoints::Start(Manifest manifest, uint32_t shards) {
  manifest.shards.resize(shards);
  active_ = Active{std::move(manifest), std::vector<bool>(shards, false), false, TakeTags()};
}

void Checkpoints::Finished(uint32_t shard, uint64_t version, const ShardDigest& digest, int64_t unix_ms) {
  if (!active_ || active_->committing || active_->manifest.version != version || shard >= active_->finished.size()) return;
  active_->finished[shard] = true;
  active_->manifest.shards[shard] = digest;
  active_->manifest.created_unix_ms = std::max(active_->manifest.created_unix_ms, unix_ms);
}

bool Checkpoints::TakeComplete(uint64_t durable_index) {
  if (!active_ || active_->committing || (active_->manifest.index > durable_index && rules_.durable_cut)) return false;
  const auto missing = static_cast<size_t>(std::count(active_->finished.begin(), active_->finished.end(), false));
  if (missing > (rules_.whole_manifest ? 0 : active_->finished.size() - 1)) return false;
  Manifest& m = active_->manifest;
  m.healthy = std::all_of(m.shards.begin(), m.shards.end(), [](const ShardDigest& d) { return d.nonfinite == 0; });
  active_->committing = true;
  return true;
}

std::optional<std::vector<Tag>> Checkpoints::Commit(uint64_t version) {
  if (!active_ || !active_->committing || active_->manifest.version != version) return std::nullopt;
  Active done = std::move(*active_);
  active_.reset();
  // Two checkpoints of one version differ in the ledger only; the later one stands for both.
  std::erase_if(manifests_, [&](const Manifest& m) { return m.version == version; });
  manifests_.push_back(std::move(done.manifest));
  DropUndone();
  Rotate();
  return std::move(done.tags);
}

// Keeps the newest ones, and the newest healthy one however old it is: there must be something to roll back to.
void Checkpoints::Rotate() {
  const size_t first_kept = manifests_.size() - std::min<size_t>(manifests_.size(), kept_count_);
  size_t healthy = manifests_.size();
  while (healthy > 0 && !manifests_[healthy - 1].healthy) --healthy;
  std::vector<Manifest> kept;
  for (size_t i = 0; i < manifests_.size(); ++i) {
    if (i >= first_kept || (i + 1 == healthy && rules_.keep_healthy)) kept.push_back(std::move(manifests_[i]));
  }
  manifests_ = std::move(kept);
}

ManifestCommitted Checkpoints::Retention() const {
  ManifestCommitted m;
  m.version = manifests_.back().version;
  for (const Manifest& kept : manifests_) m.kept.push_back(kept.version);
  // A checkpoint whose blocks rotted falls back to the one before and its log.
  m.log_needed_from = manifests_.size() < 2 ? 1 : manifests_[manifests_.size() - 2].index + 1;
  if (!rules_.second_newest_cut) m.log_needed_from = manifests_.back().index + 1;
  return m;
}

}  // namespace ballast
