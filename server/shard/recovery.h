// Rebuilds a shard from what is on disk: the newest checkpoint whose blocks all check, then the log through the same Apply. Also replays a
// whole retained log without a server. Blocks; one thread. Errors: DataLoss with file and offset, never a state that is older than what was
// promised.
#ifndef BALLAST_SERVER_SHARD_RECOVERY_H_
#define BALLAST_SERVER_SHARD_RECOVERY_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/record/log_record.h"
#include "core/types.h"
#include "server/shard/checkpoint_store.h"
#include "server/shard/recovery_progress.h"
#include "server/shard/replica.h"
#include "server/storage/segment_reader.h"
#include "server/storage/store.h"

namespace ballast {

struct RecoveryHooks {
  std::function<void(std::shared_ptr<const Decision>, const LogPosition&)> decided;  // each decision of the log, after it took effect
  std::function<void(size_t block)> before_change;
  RecoveryProgress* progress = nullptr;  // may be null
};

struct Recovered {
  LogEnd log;
  double replay_seconds = 0;  // of the log
};

// `replica` is new. `checkpoints` receives those that are still believed. A directory without a log is a new run, unless its log was begun
// on this server before.
absl::StatusOr<Recovered> RecoverShard(const std::string& dir, const RunRecord& run, Store& store, Replica& replica,
                                       const RecoveryHooks& hooks, std::map<uint64_t, CheckpointMeta>* checkpoints);

}  // namespace ballast

#endif  // BALLAST_SERVER_SHARD_RECOVERY_H_
