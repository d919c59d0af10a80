// A run of one shard on a disk that fails: a fixed script of decisions, what it must come to (from an undisturbed run in memory), and lives
// of a server that carry the script on from wherever recovery says it stands. Not thread-safe.
#ifndef BALLAST_TESTS_STORAGE_SHARD_LIFE_H_
#define BALLAST_TESTS_STORAGE_SHARD_LIFE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/types.h"
#include "server/shard/shard_testing.h"
#include "server/storage/data_dir.h"

namespace ballast::testing {

// The same for every life. Decision i has index i + 1: INIT, then steps of two contributions, each seventh a CHECKPOINT.
struct Script {
  RunSpec spec;
  uint32_t shard = 0;  // of two; 0 also keeps the coordinator's log
  std::vector<Decision> decisions;
  std::map<uint64_t, uint64_t> hash_at;  // index -> state hash

  static Script Make(const RunSpec& spec, uint32_t shard, size_t decisions);
};

// What was acknowledged, and may never be missing again. Each promise leaves the process at once, through a pipe: what its death took with
// it was not promised.
struct Promises {
  uint64_t index = 0;      // shard 0: the newest durable decision
  uint64_t attempted = 0;  // no decision above it was ever handed to the shard
  uint64_t incarnation = 0;
  std::set<Uid> receipts;                  // other shards: contributions that are durable
  std::map<uint64_t, uint64_t> manifests;  // version -> index of the decision; acknowledged by the store
  bool completed = false;                  // a life that ran to its end

  enum class Kind : uint64_t { kDecided, kAttempted, kIncarnation, kReceipt, kManifest, kCompleted };
  void Add(Kind kind, uint64_t a, uint64_t b = 0);
  void ReadAll(int fd);  // what a process that ended has told
  int pipe = -1;         // where Add tells it, too
};

// Runs `life` in a process of its own; what it promised is in `promises` afterwards. Returns its wait status. Its output goes to `log`.
int RunInChild(const std::string& log, Promises& promises, const std::function<void(Promises&)>& life);

class ShardLife {
 public:
  // Opens data directory, store and shard, in the order of ballast-server.
  static absl::StatusOr<std::unique_ptr<ShardLife>> Open(const Script& script, const std::string& dir);

  // Compares what was recovered with the promises and with the undisturbed run. Errors: Internal naming what is wrong.
  absl::Status Check(Promises& promises);

  // Carries the script on, up to decision `last`; false when the shard failed on the way. Adds to the promises what is acknowledged.
  // `wait`: for each checkpoint to finish before the next step.
  bool Run(uint64_t last, bool wait, Promises& promises);

  uint64_t index() { return test_.shard->Position().index; }
  uint64_t Hash() { return test_.Hash(); }
  const std::string& log_dir() const { return test_.options.dir; }
  absl::Status Failed();
  absl::Status WaitFailed() { return test_.events.WaitFailed(); }

 private:
  ShardLife(const Script& script) : script_(script), test_(script.spec, script.shard, 2) {}
  bool Push(Uid uid, bool exact, Promises& promises);
  bool CommitManifests(bool wait, Promises& promises);

  const Script& script_;
  std::unique_ptr<DataDir> data_;
  TestShard test_;
  std::map<uint64_t, uint64_t> committed_;  // manifests in the store: version -> index
  std::map<uint64_t, uint64_t> taken_;      // checkpoints decided in this life: version -> index
};

}  // namespace ballast::testing

#endif  // BALLAST_TESTS_STORAGE_SHARD_LIFE_H_
