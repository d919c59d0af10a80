// What one server owns of one run: weights, optimizer slots, the log of contributions and decisions, checkpoints, published encodings.
//
// One owner thread changes the state; one log thread writes and syncs; one checkpoint thread writes SSTs. Everybody else calls the methods
// below, which only enqueue (bounded in bytes) or read what was published. Events leave through ShardEvents.
//
// The rules of the protocol are not here: a shard logs bytes, gives receipts when core/coordinator/receipt.h says so, and applies decisions
// in order. docs/ARCHITECTURE.md "Push", "Pull", "Checkpoint" follow one block through these files.
#ifndef BALLAST_SERVER_SHARD_RUN_SHARD_H_
#define BALLAST_SERVER_SHARD_RUN_SHARD_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/coordinator/coordinator.h"
#include "core/types.h"

namespace ballast {

class Store;         // server/storage/store.h: RocksDB behind a seam
class ShardMetrics;  // server/metrics.h

// Events of a shard, for the coordinator: server 0 hands its own to the mailbox of the coordinator thread, the others send them over
// Follow. Called from the shard's threads, in order per kind; must only enqueue.
class ShardEvents {
 public:
  virtual ~ShardEvents() = default;
  virtual void OnAccepted(uint64_t index) = 0;                   // the decision is held (s > 0: appended, not yet synced)
  virtual void OnApplied(uint64_t index, uint64_t version) = 0;  // and published
  virtual void OnNorm(uint64_t query, double norm2) = 0;
  virtual void OnCheckpointed(uint64_t version, const ShardDigest& digest) = 0;
  virtual void OnDisk(bool low, const std::string& reason) = 0;
  virtual void OnOwnLog(const Uid& uid) = 0;              // shard 0: the whole contribution is appended; before its receipt
  virtual void OnDecisionDurable(uint64_t index) = 0;     // shard 0: AppendDecision is synced
  virtual void OnFailed(const absl::Status& status) = 0;  // a write or fsync failed, or replay cannot go on: the process must stop
};

struct RunShardOptions {
  std::string dir;  // of this run and shard: <data dir>/runs/<run>/shard-<s>
  uint32_t shard = 0;
  uint32_t shards = 1;
  uint64_t incarnation = 1;                  // of this server
  uint64_t receipt_key = 0;                  // of ReceiptProof: at random in each life
  bool coordinator_log = false;              // server 0: this log also takes the decisions first
  bool retain_all = false;                   // --log-retain=all
  uint64_t queue_bytes_max = 256u << 20;     // pushes waiting for the owner thread; at the limit Push answers ResourceExhausted
  uint64_t disk_reserve_bytes = 512u << 20;  // below: OnDisk(low)
  uint64_t segment_bytes = 64u << 20;
  // Undecided contributions in memory. A backstop: the quotas of the admitted sessions are smaller. At the limit a push is refused
  // (TOO_LARGE).
  uint64_t staged_bytes_max = uint64_t{4} << 30;
  uint64_t ring_bytes_max = 64u << 20;  // blocks of a checkpoint on their way to the store
  Rules rules;
};

// One chunk as it came from the wire, its bytes owned here.
struct PushedChunk {
  Uid uid;
  uint32_t index = 0;
  bool last = false;
  std::string head;     // canonical bytes of the Chunk message up to the payload (core/record/chunk.h)
  std::string payload;  // may be large: moved, never copied
};

// Receipt or refusal of one contribution. `error` empty: the receipt.
struct PushResult {
  Uid uid;
  Receipt receipt;
  std::string error;
  std::string detail;
};

// Values of one version in one codec, chunked for the wire, made once and shared by all readers.
struct Encoding {
  uint64_t version = 0;
  struct Piece {
    std::vector<uint32_t> tensors;  // that have a block in it
    std::string head_blocks;        // canonical BlockHead fields of a Chunk (the data plane writes the fields before and after)
    std::string payload;
  };
  std::vector<Piece> pieces;
};

// What a restart would have to do.
struct ReplayDebt {
  double seconds = 0;      // as fast as this process applied it
  uint64_t log_bytes = 0;  // kept, read and checked
};

class RunShard {
 public:
  // Opens or creates; recovers: newest local checkpoint whose blocks all check, then the log through the same Apply. Blocks for seconds.
  // `run_record`: serialized ballast.v1.Run (spec and layout), first record of the log. `events` outlives the shard.
  // Errors: DataLoss with file and offset when an acknowledged version cannot be rebuilt.
  static absl::StatusOr<std::unique_ptr<RunShard>> Open(RunShardOptions options, const RunSpec& spec, uint64_t generation,
                                                        const Layout& layout, std::string run_record, Store* store, ShardEvents* events,
                                                        ShardMetrics* metrics);
  virtual ~RunShard() = default;  // stops the threads; what is appended is synced

  // ---- state after recovery, and later as of now
  virtual ShardPosition Position() = 0;  // undecided: complete and durable contributions
  // Decisions in the local log, ascending, from `first` on: server 0 restores its coordinator from them; ListDecisions reads them.
  virtual absl::StatusOr<std::vector<std::shared_ptr<const Decision>>> ReadDecisions(uint64_t first, uint64_t last) = 0;

  // ---- push. Any thread. `done` is called once per contribution, when its receipt is due or when it is refused, from the owner or the log
  // thread. A contribution that is held already (same uid, complete) gets its receipt again; its bytes are dropped. Errors (`chunk` is left
  // as it was; push it again later): ResourceExhausted at queue_bytes_max.
  virtual absl::Status Push(PushedChunk&& chunk, std::function<void(const PushResult&)> done) = 0;

  // Says again what a coordinator that (re)connected cannot know: OnOwnLog of each complete undecided contribution (shard 0),
  // OnCheckpointed of the newest checkpoint that is finished here, OnDisk as it is. Call it after the position was handed over; harmless
  // when repeated.
  virtual void ReportAgain() = 0;

  // ---- decisions
  virtual void AppendDecision(std::shared_ptr<const Decision> decision) = 0;  // shard 0 only: append + sync -> OnDecisionDurable
  virtual void Deliver(std::shared_ptr<const Decision> decision) = 0;  // apply, in order, idempotent; appended first where it is not held
  virtual void QueryNorm(NormQuery query) = 0;
  virtual void OnManifestCommitted(ManifestCommitted manifest) = 0;  // cuts the log, drops old checkpoints

  // ---- pull. Any thread. `ready` is called once, from the caller's or the owner thread, when a version >= min_version is published.
  // Null: the shard is closed first. Cancel with the returned id when the reader goes away (0: `ready` was called already).
  virtual uint64_t Pull(uint64_t min_version, Codec codec, std::function<void(std::shared_ptr<const Encoding>)> ready) = 0;
  virtual void CancelPull(uint64_t id) = 0;
  // Values of a committed checkpoint, fp32 and I64, with optimizer slots if asked. Reads the store: not for the I/O thread.
  virtual absl::StatusOr<std::shared_ptr<const Encoding>> ReadCheckpoint(uint64_t version, bool slots,
                                                                         absl::Span<const uint32_t> tensors) = 0;

  virtual ReplayDebt Debt() const = 0;  // any thread

  virtual uint64_t StateHash(uint64_t* version) = 0;  // blocks until the owner answers
};

// Generation of the run whose log was begun on this server; 0: none was.
absl::StatusOr<uint64_t> LoggedGeneration(Store& store, const std::string& run);
// All that the shards of a deleted run left in the store, synced. The log directory is the caller's to remove, after this.
absl::Status DeleteShardRecords(Store& store, const std::string& run);

// ballast-server --replay DIR --print-hash: replays one run's retained log from INIT; prints nothing itself.
struct ReplayResult {
  std::string run;
  uint32_t shard = 0;
  uint64_t version = 0;
  uint64_t index = 0;
  uint64_t hash = 0;
};
absl::StatusOr<ReplayResult> ReplayShardLog(const std::string& shard_dir);

}  // namespace ballast

#endif  // BALLAST_SERVER_SHARD_RUN_SHARD_H_
