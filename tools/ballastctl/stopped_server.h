// What the data directory of a stopped server holds: the runs, their checkpoints, and on server 0 the manifests. Its lock is held
// meanwhile, so that no server starts on it. Blocks; one thread.
#ifndef BALLAST_TOOLS_BALLASTCTL_STOPPED_SERVER_H_
#define BALLAST_TOOLS_BALLASTCTL_STOPPED_SERVER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/types.h"
#include "proto/convert.h"
#include "server/shard/checkpoint_store.h"
#include "server/storage/files.h"
#include "server/storage/store.h"

namespace ballast::ctl {

class StoppedServer {
 public:
  struct Run {
    RunDefinition definition;
    std::map<uint64_t, CheckpointMeta> checkpoints;  // by version; committed or not
    std::vector<Manifest> manifests;                 // of server 0, oldest first: these checkpoints are committed
    std::vector<absl::Status> damages;               // records of checkpoints that cannot be read
  };
  enum class Access { kRead, kWrite };

  // kRead changes nothing on the disk. Errors: NotFound (no data directory), FailedPrecondition (a server runs on it), DataLoss (what
  // stands above all checkpoints is damaged; the text has file and offset).
  static absl::StatusOr<std::unique_ptr<StoppedServer>> Open(const std::string& dir, Access access);

  const std::string& dir() const { return dir_; }
  uint32_t index() const { return index_; }
  const std::map<std::string, Run>& runs() const { return runs_; }

  // All that is wrong with a checkpoint here; empty: each array matches its checksum, all together the digest, and the manifest has the
  // same.
  std::vector<absl::Status> Check(const Run& run, uint64_t version) const;
  // Reads every record that is no checkpoint's: runs, manifests, epochs, models. Errors: DataLoss naming file and offset.
  absl::Status CheckRecords() const;
  // The values of each block that this server owns. Errors: NotFound; DataLoss naming file and offset, or the record; those of `visit`.
  using Visit = absl::FunctionRef<absl::Status(const Block& block, absl::string_view bytes)>;
  absl::Status ReadValues(const Run& run, uint64_t version, Visit visit) const;

  // Deletes a manifest of server 0 and this server's part of the checkpoint; other servers drop theirs with the next checkpoint. REQUIRES
  // kWrite. Errors: FailedPrecondition with the reason for which it must stay.
  absl::Status Remove(const Run& run, uint64_t version);

 private:
  StoppedServer(std::string dir, uint32_t index, UniqueFd lock, std::unique_ptr<Store> store)
      : dir_(std::move(dir)), index_(index), lock_(std::move(lock)), store_(std::move(store)) {}
  absl::Status LoadRuns();
  absl::Status LoadCheckpoints(const std::string& name, Run* run);
  std::string ShardDir(const Run& run) const;
  absl::Status MayRemove(const Run& run, const Manifest& manifest) const;

  const std::string dir_;
  const uint32_t index_;
  const UniqueFd lock_;
  const std::unique_ptr<Store> store_;
  std::map<std::string, Run> runs_;
};

}  // namespace ballast::ctl

#endif  // BALLAST_TOOLS_BALLASTCTL_STOPPED_SERVER_H_
