// The rules of the step protocol for one run: who may train a batch, when a step closes, what is decided, who is told. A deterministic
// state machine: inputs are messages, completions and ticks; outputs are messages and records. It does no I/O, takes no lock and reads
// no clock, so that tests/sim can drive the very same code through any interleaving. No rule of the protocol lives anywhere else.
//
// Source of the rules: docs/ARCHITECTURE.md ("The step protocol"). In one line: log on arrival, submit, decide, apply.
//
// Use (server/coordinator does this, on one thread):
//   coordinator.OnClaim(session, batch, std::nullopt, now_ms);
//   for (Output& o : coordinator.TakeOutputs()) Deliver(std::move(o));   // in order
//
// Threads: one owner. `now_ms` is a monotonic clock in milliseconds, never smaller than in an earlier call.
#ifndef BALLAST_CORE_COORDINATOR_COORDINATOR_H_
#define BALLAST_CORE_COORDINATOR_COORDINATOR_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/coordinator/rules.h"
#include "core/types.h"

namespace ballast {

using SessionId = uint64_t;
using Tag = uint64_t;  // chosen by the caller of an asynchronous request, comes back in Reply

// ---- outputs -----------------------------------------------------------------------------------------------------------------------
struct Grant {
  Batch batch;
  uint64_t step = 0;          // a label, growing: batches of two steps never share a contribution
  uint64_t base_version = 0;  // pull at least this
  std::optional<Uid> uid;     // the claimed bytes stand: compute nothing
};
struct Done {  // nothing to train: decided before, or its epoch is not begun
  Batch batch;
  bool skipped = false;
  bool conflict = false;  // decided with another fingerprint
  uint64_t trained_fingerprint = 0;
  bool no_epoch = false;  // a rollback has undone its epoch: nothing is acknowledged, its feed must be opened again
};
struct Flush {
  uint64_t step = 0;
};
// kStale: compute the same batches again, from a newer version, under a new uid. kReceipts: push to `shards`, submit again. Both: the
// batches stay granted. kFenced: give the bytes up; the session holds none of their batches and none of its claims with this uid is
// answered: it claims those batches again, without a uid.
struct Refuse {
  enum class Reason : uint8_t { kStale = 1, kFenced = 2, kReceipts = 3 };
  Uid uid;
  Reason reason = Reason::kFenced;
  std::vector<uint32_t> shards;  // kReceipts: where the bytes are missing
};
struct Decided {  // sent when the decision is durable and accepted by every shard: only then are rows acknowledged
  Uid uid;
  uint64_t version = 0;
  std::vector<Batch> batches;
};
struct SkipLogged {
  Batch batch;
};
struct CloseSession {
  std::string reason;
  bool final = false;  // the run stopped
};
using SessionMessage = std::variant<Grant, Done, Flush, Refuse, Decided, SkipLogged, CloseSession>;
struct ToSession {
  SessionId session = 0;
  SessionMessage message;
};

struct NormQuery {
  uint64_t query = 0;
  std::vector<Uid> uids;  // in the order of the sum
};
struct ManifestCommitted {
  uint64_t version = 0;
  std::vector<uint64_t> kept;    // versions whose manifests and checkpoint blocks stay
  uint64_t log_needed_from = 0;  // decisions from this index stay in the log
  // A later one is in the making: a shard that connects hears of the manifests before it.
  bool Keeps(uint64_t v) const { return v > version || std::find(kept.begin(), kept.end(), v) != kept.end(); }
};
using ShardMessage = std::variant<std::shared_ptr<const Decision>, NormQuery, ManifestCommitted>;
struct ToShard {  // shard 0 too: the server delivers it to its own shard by the same path
  uint32_t shard = 0;
  ShardMessage message;
};

struct AppendDecision {  // append to shard 0's log and sync, then call OnDecisionDurable(index). The sync is the commit point.
  std::shared_ptr<const Decision> decision;
};
struct CommitManifest {  // put, synced, then call OnManifestDurable(version)
  Manifest manifest;
};
struct EpochRecord {  // what must survive about an epoch beyond the decisions
  uint32_t epoch = 0;
  uint32_t partitions = 0;
  uint64_t batch_rows = 0;
  std::string schema;
  bool committed = false;
  EpochReport report;  // when committed
};
struct PersistEpoch {  // put, synced, then call OnEpochDurable(epoch)
  EpochRecord record;
};
struct DropEpoch {  // delete, synced: the epoch was undone. No answer. Outputs for the store take effect in their order
  uint32_t epoch = 0;
};
struct Reply {
  Tag tag = 0;
  absl::Status status;
  std::variant<std::monostate, EpochReport, Manifest> value;
};
using Output = std::variant<ToSession, ToShard, AppendDecision, CommitManifest, PersistEpoch, DropEpoch, Reply>;

// ---- inputs ------------------------------------------------------------------------------------------------------------------------
struct Submission {
  Uid uid;
  std::vector<Batch> batches;
  uint64_t rows = 0;
  uint64_t base_version = 0;
  std::vector<Receipt> receipts;
  double loss_sum = 0;
  double residual_norm = 0;
  std::vector<StepTiming> timing;
};

struct ShardPosition {
  uint32_t shard = 0;
  uint64_t incarnation = 0;
  uint64_t index = 0;
  uint64_t version = 0;
  uint64_t chain = 0;
  std::vector<Uid> undecided;  // complete and durable there
  uint64_t receipt_key = 0;    // of ReceiptProof, in this life of the shard
};

struct FeedState {  // answer to OpenFeed, less the placement
  bool committed = false;
  uint64_t trained_below = 0;
  std::vector<SeqRange> trained;
};

struct RunStatus {
  enum class State : uint8_t { kWaiting = 1, kActive = 2, kStopped = 3 };
  State state = State::kWaiting;
  std::string reason;
  uint64_t generation = 1;  // grows when the run is rolled back
  uint64_t version = 0;     // of the newest durable decision
  uint64_t index = 0;
  uint64_t steps = 0;
  uint64_t steps_part_full = 0;
  uint64_t rows_trained = 0;
  uint64_t rows_skipped = 0;
  uint64_t duplicates = 0;
  double loss = 0;
  double residual_norm = 0;
  uint64_t manifest_version = 0;
  uint32_t sessions = 0;
  uint64_t max_lag = 0;
  std::vector<EpochReport> epochs;
  std::vector<StepTiming> timing;
  bool wants_sessions = false;  // an epoch is begun and not committed, and the run is not stopped
};

struct CoordinatorConfig {
  RunSpec spec;
  uint64_t generation = 1;  // in which the run was created
  uint32_t shards = 1;
  uint64_t incarnation = 1;  // of server 0; durable, grows at every start; part of every session id
  uint32_t manifests_kept = 2;
  Rules rules;  // all on; only test builds can turn one off
};

// What survives a crash of server 0.
struct CoordinatorState {
  std::vector<Manifest> manifests;  // committed, oldest first, with ledgers
  std::vector<EpochRecord> epochs;
  std::vector<std::shared_ptr<const Decision>> decisions;  // durable, ascending, without a gap, reaching back at least to the needed ones
};

class Coordinator {
 public:
  // Errors: DataLoss when the state contradicts itself (a gap or a broken chain between decisions, a manifest ahead of the log).
  static absl::StatusOr<std::unique_ptr<Coordinator>> Restore(CoordinatorConfig config, CoordinatorState state, int64_t now_ms);
  virtual ~Coordinator() = default;

  // ---- sessions. `resume` != 0: a session of an earlier incarnation whose contributions the worker still holds.
  struct Opened {
    SessionId session = 0;
    bool resumed = false;
  };
  virtual absl::StatusOr<Opened> OpenSession(const std::string& worker, SessionId resume, int64_t now_ms) = 0;
  // Lost: the stream ended; whatever it was computing may be why. Left: it said so, or the server ends it: no batch is to blame.
  virtual void OnSessionLost(SessionId session, int64_t now_ms) = 0;
  virtual void OnSessionLeft(SessionId session, int64_t now_ms) = 0;
  // Granted batches are computed in the order of the grants: that is how the one that ends a session is found.
  virtual void OnClaim(SessionId session, const Batch& batch, std::optional<Uid> uid, int64_t now_ms) = 0;
  virtual void OnSubmit(SessionId session, Submission submission, int64_t now_ms) = 0;
  virtual void OnSkip(SessionId session, const Batch& batch, std::string reason, int64_t now_ms) = 0;
  // A session that has said nothing yet is blocked until its first claim: it must say its first status after it has opened, before it
  // computes. `rows_done` only grows; rows of the first status are of the worker's earlier sessions.
  virtual void OnStatus(SessionId session, bool blocked, uint64_t rows_done, int64_t now_ms) = 0;

  // ---- shards, 0 included
  virtual void OnShardPosition(const ShardPosition& position, int64_t now_ms) = 0;  // the run is recovered there; missing decisions follow
  virtual void OnShardLost(uint32_t shard, int64_t now_ms) = 0;
  virtual void OnAccepted(uint32_t shard, uint64_t index, uint64_t coordinator_incarnation, int64_t now_ms) = 0;
  virtual void OnApplied(uint32_t shard, uint64_t index, int64_t now_ms) = 0;
  virtual void OnNorm(uint32_t shard, uint64_t query, double norm2, int64_t now_ms) = 0;
  virtual void OnCheckpointed(uint32_t shard, uint64_t version, const ShardDigest& digest, int64_t unix_ms, int64_t now_ms) = 0;
  virtual void OnDisk(uint32_t shard, bool low, const std::string& reason, int64_t now_ms) = 0;
  virtual void OnOwnLog(const Uid& uid) = 0;  // shard 0 appended the whole contribution (not yet synced); called before its receipt is sent

  // ---- completions of AppendDecision, CommitManifest, PersistEpoch
  virtual void OnDecisionDurable(uint64_t index, int64_t now_ms) = 0;
  virtual void OnManifestDurable(uint64_t version, int64_t now_ms) = 0;
  virtual void OnEpochDurable(uint32_t epoch, int64_t now_ms) = 0;

  // ---- requests. Asynchronous ones answer by Reply{tag}.
  virtual void BeginEpoch(Tag tag, const EpochRecord& epoch, int64_t now_ms) = 0;  // -> EpochReport
  virtual absl::StatusOr<FeedState> OpenFeed(uint32_t epoch, uint32_t partition) = 0;
  struct PartitionCount {
    uint32_t partition = 0;
    uint64_t batches = 0;
    uint64_t rows = 0;
  };
  virtual void CommitEpoch(Tag tag, uint32_t epoch, const std::vector<PartitionCount>& counts, int64_t now_ms) = 0;  // -> EpochReport
  virtual void RequestCheckpoint(Tag tag, int64_t now_ms) = 0;                                                       // -> Manifest
  // Back to a kept manifest: values, optimizer state and ledger; every session of before is closed and nothing of it counts any more.
  // Answered when the manifest of the version made by the ROLLBACK decision is committed, and only then is anything granted again.
  // Errors: NotFound (NO_MANIFEST), FailedPrecondition (NOT_HEALTHY), Unavailable (SERVER_MISSING, ROLLING_BACK).
  virtual void Rollback(Tag tag, uint64_t version, int64_t now_ms) = 0;  // -> Manifest
  virtual void Stop(const std::string& reason, int64_t now_ms) = 0;
  virtual void OnTick(int64_t now_ms) = 0;  // leases, linger, checkpoint timer; call at least every 100 ms

  [[nodiscard]] virtual std::vector<Output> TakeOutputs() = 0;
  virtual RunStatus Describe() const = 0;
};

// Where a new feed goes: the worker with the fewest feeds of this run (then of all runs, then by name) that is not in `avoid`; with
// nobody left, the best of the avoided ones. Returns the index, or -1 when there is no worker.
struct WorkerLoad {
  std::string name;
  std::string address;
  uint32_t run_feeds = 0;
  uint32_t feeds = 0;
};
int PlaceFeed(absl::Span<const WorkerLoad> workers, absl::Span<const std::string> avoid);

}  // namespace ballast

#endif  // BALLAST_CORE_COORDINATOR_COORDINATOR_H_
