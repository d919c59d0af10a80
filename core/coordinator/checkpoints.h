// The committed manifests of a run and the checkpoint under way. One at a time; requests that come meanwhile share the next one.
// A checkpoint is: CHECKPOINT decision (the cut) -> every shard's digest -> manifest, durable (the commit).
//
// A CHECKPOINT decision whose manifest was never committed, because server 0 crashed, means nothing: the next checkpoint supersedes it,
// and the shards drop what is not in ManifestCommitted.kept.
//
// The first manifest after a rollback says where the run went back to: those between are undone. They are dropped with its commit, and
// ignored where a crash left them behind. So are those that are not kept any more: servers drop their part when they hear of a newer
// manifest, perhaps before the record on server 0 is deleted.
//
// Used by the coordinator's owner thread.
#ifndef BALLAST_CORE_COORDINATOR_CHECKPOINTS_H_
#define BALLAST_CORE_COORDINATOR_CHECKPOINTS_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "core/coordinator/coordinator.h"
#include "core/coordinator/rules.h"
#include "core/types.h"

namespace ballast {

class Checkpoints {
 public:
  // `manifests`: committed, oldest first.
  Checkpoints(std::vector<Manifest> manifests, uint32_t kept_count, Rules rules = {});

  bool wanted() const { return wanted_; }
  void Want() { wanted_ = true; }
  void Want(Tag tag);
  std::vector<Tag> TakeTags();  // the request is answered otherwise: nothing is wanted any more
  // What is under way or wanted will not come, whatever the shards say of it later. Returns its tags. REQUIRES !committing().
  std::vector<Tag> Abandon();

  bool active() const { return active_.has_value(); }
  bool committing() const { return active_.has_value() && active_->committing; }  // its manifest is on the way to the disk
  // `manifest`: everything but digests, health and time. The wanting tags join it.
  void Start(Manifest manifest, uint32_t shards);
  // A shard's part is finished. A shard that checkpointed this very version before may say so before it has seen the decision.
  void Finished(uint32_t shard, uint64_t version, const ShardDigest& digest, int64_t unix_ms);
  // True once: every shard has finished and the CHECKPOINT decision is durable. Commit `manifest()` then.
  bool TakeComplete(uint64_t durable_index);
  const Manifest& manifest() const { return active_->manifest; }
  // The manifest is durable; returns the tags to answer. Nothing when no such manifest is being committed.
  std::optional<std::vector<Tag>> Commit(uint64_t version);

  const Manifest* newest() const { return manifests_.empty() ? nullptr : &manifests_.back(); }
  const Manifest* Find(uint64_t version) const;  // null: not kept
  const std::vector<Manifest>& kept() const { return manifests_; }
  // What the shards may drop now. REQUIRES a manifest.
  ManifestCommitted Retention() const;

 private:
  struct Active {
    Manifest manifest;
    std::vector<bool> finished;  // by shard
    bool committing = false;
    std::vector<Tag> tags;
  };
  void DropUndone();
  void Rotate();

  const Rules rules_;
  const uint32_t kept_count_;
  std::vector<Manifest> manifests_;
  std::optional<Active> active_;
  bool wanted_ = false;
  std::vector<Tag> tags_;  // of the wanted one
};

}  // namespace ballast

#endif  // BALLAST_CORE_COORDINATOR_CHECKPOINTS_H_
