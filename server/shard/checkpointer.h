// Takes checkpoints while steps go on. A CHECKPOINT decision makes every block owed. The owner thread pays them in ascending order: in idle
// moments one by one, and always before a step changes one. A paid block is a copy in a bounded ring; a thread of its own checks it, writes
// it to the store and, when all are there, the record that makes the checkpoint count. A full ring delays the owner, never the cut.
//
// Threads: methods marked "owner" from the shard's owner thread, the others from any; callbacks come from the writer thread.
// Errors: a failed store ends everything (on_failed): the process must stop.
#ifndef BALLAST_SERVER_SHARD_CHECKPOINTER_H_
#define BALLAST_SERVER_SHARD_CHECKPOINTER_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/shard/checkpoint_store.h"
#include "server/shard/shard_values.h"
#include "server/storage/store.h"

namespace ballast {

struct CheckpointerOptions {
  uint64_t ring_bytes_max = 64u << 20;
  std::function<void(const CheckpointMeta&, double seconds)> on_done;
  std::function<void(const absl::Status&)> on_failed;
  std::function<void()> on_room;  // the ring has room again and blocks are owed
};

class Checkpointer {
 public:
  // Everything outlives it.
  Checkpointer(CheckpointerOptions options, Store* store, const ShardBlocks* blocks, const ShardValues* values);
  ~Checkpointer();  // gives up what is not finished: nothing of it is left behind

  // Owner. Owes every block as it is now. One checkpoint at a time: what an earlier one still owes is paid first. `log_synced` is called by
  // the writer before the checkpoint may count: the log must hold the decision for good by then.
  void Begin(const ReplicaPosition& position, std::function<absl::Status()> log_synced);
  // Owner. Block `block` is about to change: pays it and the owed ones before it. Waits for room in the ring.
  void BeforeChange(size_t block);
  // Owner. Pays one block if one is owed and there is room. False: nothing more to do until on_room.
  bool PayOne();

  // Owner.
  bool owing() const { return job_ != nullptr; }

  // Deletes the checkpoint of this version, on the writer's thread.
  void Drop(uint64_t version);

 private:
  struct Job {  // one checkpoint
    ReplicaPosition position;
    std::function<absl::Status()> log_synced;
    std::chrono::steady_clock::time_point started;
    std::unique_ptr<Store::Bulk> bulk;
    std::vector<uint64_t> hashes;
    uint64_t bytes = 0;
    uint64_t nonfinite = 0;
  };
  struct PaidBlock {
    std::shared_ptr<Job> job;
    size_t block = 0;
    std::vector<std::string> arrays;  // values, then slots
    uint64_t bytes = 0;
  };
  struct DropVersion {
    uint64_t version = 0;
  };
  using Item = std::variant<PaidBlock, DropVersion>;

  void Pay();
  void Push(Item item, uint64_t bytes);
  void Run();
  absl::Status Write(PaidBlock& paid);
  absl::Status Finish(Job& job);

  const CheckpointerOptions options_;
  Store* const store_;
  const ShardBlocks* const blocks_;
  const ShardValues* const values_;

  // Owner.
  std::shared_ptr<Job> job_;
  size_t next_owed_ = 0;  // blocks from here on are owed, while job_ is set

  absl::Mutex mu_;
  std::deque<Item> ring_ ABSL_GUARDED_BY(mu_);
  uint64_t ring_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  bool owed_ ABSL_GUARDED_BY(mu_) = false;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace ballast

#endif  // BALLAST_SERVER_SHARD_CHECKPOINTER_H_
