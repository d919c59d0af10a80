// The coordinator put together from its parts. Internal to this folder: others include coordinator.h.
//
// Every input changes a part and then calls Advance, which does all that has become possible, in a fixed order: grant, flush, decide,
// checkpoint. Nothing depends on when Advance is called, so that the order of inputs alone fixes the outputs.
//
// Files: coordinator.cc (restore, describe) · coordinator_sessions.cc (claims, submits, leases) · coordinator_shards.cc (positions,
// acceptance, digests, durability) · coordinator_steps.cc (grant, flush, decide) · coordinator_requests.cc (epochs, feeds, checkpoints) ·
// coordinator_rollback.cc.
#ifndef BALLAST_CORE_COORDINATOR_COORDINATOR_IMPL_H_
#define BALLAST_CORE_COORDINATOR_COORDINATOR_IMPL_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "core/coordinator/checkpoints.h"
#include "core/coordinator/coordinator.h"
#include "core/coordinator/epochs.h"
#include "core/coordinator/history.h"
#include "core/coordinator/ledger.h"
#include "core/coordinator/sessions.h"
#include "core/coordinator/shards.h"
#include "core/coordinator/step.h"

namespace ballast {

inline constexpr uint64_t kVersionsAheadMax = 8;  // decided minus applied by the slowest shard
inline constexpr uint32_t kLeaseGrowthMax = 16;   // times the lease of the spec
inline constexpr int kDeathsMax = 3;              // sessions that may end while they hold a batch
inline constexpr size_t kLossWindowSteps = 50;
inline constexpr size_t kPhasesMax = 32;         // names of StepTiming; others are not counted
inline constexpr size_t kReasonBytesMax = 1024;  // of a skip: it is kept in the log and sent to every server

class CoordinatorImpl final : public Coordinator {
 public:
  CoordinatorImpl(CoordinatorConfig config, CoordinatorState state, History history, Ledger ledger, int64_t now_ms);
  // Replays the marks and numbers of the decisions after the newest manifest. Errors: DataLoss.
  [[nodiscard]] absl::Status Replay(uint64_t after_index);

  absl::StatusOr<Opened> OpenSession(const std::string& worker, SessionId resume, int64_t now_ms) override;
  void OnSessionLost(SessionId session, int64_t now_ms) override;
  void OnSessionLeft(SessionId session, int64_t now_ms) override;
  void OnClaim(SessionId session, const Batch& batch, std::optional<Uid> uid, int64_t now_ms) override;
  void OnSubmit(SessionId session, Submission submission, int64_t now_ms) override;
  void OnSkip(SessionId session, const Batch& batch, std::string reason, int64_t now_ms) override;
  void OnStatus(SessionId session, bool blocked, uint64_t rows_done, int64_t now_ms) override;

  void OnShardPosition(const ShardPosition& position, int64_t now_ms) override;
  void OnShardLost(uint32_t shard, int64_t now_ms) override;
  void OnAccepted(uint32_t shard, uint64_t index, uint64_t coordinator_incarnation, int64_t now_ms) override;
  void OnApplied(uint32_t shard, uint64_t index, int64_t now_ms) override;
  void OnNorm(uint32_t shard, uint64_t query, double norm2, int64_t now_ms) override;
  void OnCheckpointed(uint32_t shard, uint64_t version, const ShardDigest& digest, int64_t unix_ms, int64_t now_ms) override;
  void OnDisk(uint32_t shard, bool low, const std::string& reason, int64_t now_ms) override;
  void OnOwnLog(const Uid& uid) override;

  void OnDecisionDurable(uint64_t index, int64_t now_ms) override;
  void OnManifestDurable(uint64_t version, int64_t now_ms) override;
  void OnEpochDurable(uint32_t epoch, int64_t now_ms) override;

  void BeginEpoch(Tag tag, const EpochRecord& epoch, int64_t now_ms) override;
  absl::StatusOr<FeedState> OpenFeed(uint32_t epoch, uint32_t partition) override;
  void CommitEpoch(Tag tag, uint32_t epoch, const std::vector<PartitionCount>& counts, int64_t now_ms) override;
  void RequestCheckpoint(Tag tag, int64_t now_ms) override;
  void Rollback(Tag tag, uint64_t version, int64_t now_ms) override;
  void Stop(const std::string& reason, int64_t now_ms) override;
  void OnTick(int64_t now_ms) override;

  std::vector<Output> TakeOutputs() override;
  RunStatus Describe() const override;

 private:
  enum class Health : uint8_t { kRunning, kStopped, kFailed };  // stopped: by request, may be resumed
  struct PendingSkip {
    Batch batch;
    std::string reason;
    SessionId session = 0;
  };
  struct NormRound {                             // the norm query of one step
    uint64_t query = 0;                          // number, grows
    std::vector<Uid> uids;                       // in the order of the sum; empty: none under way
    std::vector<std::optional<double>> answers;  // by shard
  };
  struct RollbackRound {  // from the request until the manifest of the version that it makes is committed
    uint64_t to = 0;      // version of the manifest
    uint64_t index = 0;   // of the ROLLBACK decision; 0: not appended yet
    std::vector<Tag> tags;
    Epochs::Rewound rewound = {};  // to be stored when the decision is durable: a crash before that has undone nothing
  };
  enum class Submitted : uint8_t { kOk, kKnown, kFenced, kStale, kReceipts };

  // ---- coordinator.cc
  void Apply(const Decision& decision);  // marks and numbers of a decision that is in the history
  void Send(SessionId session, SessionMessage message) { outputs_.push_back(ToSession{session, std::move(message)}); }
  void SendShard(uint32_t shard, ShardMessage message) { outputs_.push_back(ToShard{shard, std::move(message)}); }
  void Answer(Tag tag, absl::Status status) { outputs_.push_back(Reply{tag, std::move(status), std::monostate()}); }
  void AnswerManifest(Tag tag);          // with the newest, without its ledger
  void Fail(const std::string& reason);  // a person must look
  void CloseAll(const std::string& reason, bool final);
  absl::Status StoppedError() const;
  std::string WaitsFor() const;  // empty: nothing
  void Advance(int64_t now_ms);

  // ---- coordinator_sessions.cc
  bool IsSettled(const BatchId& batch) const;  // its decision is accepted by every shard
  bool AnswerDone(SessionId session, const Claim& claim);
  void AnswerSettled(const BatchId& batch);  // all who wait for it
  void Fence(Session& session, const Uid& uid);
  void EndSession(SessionId id, bool blame);
  std::string WrongClaim(const Session& session, const Batch& batch) const;  // empty: it may be parked
  void Expel(SessionId id, const std::string& reason, int64_t now_ms);
  void CountTiming(const std::vector<StepTiming>& timing);
  std::optional<Batch> BeingComputed(const Session& session) const;
  void ExpireLeases(int64_t now_ms);
  Submitted Check(const Submission& submission, SessionId session, OpenStep*& step, std::vector<uint32_t>& shards);
  OpenStep* StepOfSubmission(const Submission& submission, SessionId session);
  bool Known(const Uid& uid) const;

  // ---- coordinator_steps.cc
  bool MayGrant() const;
  bool IsFree(const BatchId& batch) const;
  bool IsSuspect(const BatchId& batch) const;
  std::optional<size_t> FirstFree(const Session& session) const;
  void Admit(int64_t now_ms);
  bool AdmitOne(Session& session, int64_t now_ms);
  void AdmitInit(int64_t now_ms);
  void GrantParked(Session& session, size_t at, OpenStep& step, int64_t now_ms);
  void FenceWaiters(const BatchId& batch);
  void FlushSlots(int64_t now_ms);
  bool FlushDue(const OpenStep& step, const Slot& slot, const Session& session, int64_t now_ms) const;
  bool Lingered(const OpenStep& step, int64_t now_ms) const;
  bool SomebodyWaits(SessionId but) const;
  bool NobodyCanAdd() const;
  bool Ready(const OpenStep& step, int64_t now_ms) const;
  OpenStep* NextReady(int64_t now_ms);
  bool DecideSteps(int64_t now_ms);
  bool WithdrawInvalid(OpenStep& step, int64_t now_ms);
  std::optional<double> Norm2(OpenStep& step);  // nothing: the shards are asked
  void Decide(OpenStep& step, float clip_scale);
  void DecideSkips();
  void Append(Decision decision);
  Decision NewDecision(DecisionKind kind);

  // ---- coordinator_shards.cc
  void SendMissing(uint32_t shard, uint64_t from_index);
  void RecheckReceipts(int64_t now_ms);
  void Settle();
  void AnnounceSettled(const Decision& decision);

  // ---- coordinator_requests.cc
  void StartCheckpoint(int64_t now_ms);
  void CheckpointDone(const std::vector<Tag>& tags);
  void CoverEpochs();  // epochs whose manifest is durable
  void CheckpointTimer(int64_t now_ms);

  // ---- coordinator_rollback.cc
  void StartRollback(uint64_t to, std::vector<Tag> tags);
  // durability: checkpoint
  bool Volatile() const { return spec_.durability == Durability::kCheckpoint; }
  bool StepsToLose() const;  // after the newest manifest: the servers hold them in memory only
  void RollBackLost();
  void DecideRollback();
  absl::Status CheckRollback(const Decision& d) const;  // of the log
  void ApplyRollback(const Decision& d);
  void StoreRewound();    // the decision is durable
  void FinishRollback();  // a manifest is durable
  bool RollbackPending() const { return rollback_.has_value() && rollback_->index == 0; }
  absl::Status RollingBackError() const;

  const CoordinatorConfig config_;
  const RunSpec& spec_;  // of config_

  Ledger ledger_;  // marks of every appended decision
  History history_;
  Sessions sessions_;
  Steps steps_;
  Shards shards_;
  Epochs epochs_;
  Checkpoints checkpoints_;

  Health health_ = Health::kRunning;
  std::string reason_;
  bool server_lost_ = false;  // one came back without what it held in memory
  std::optional<RollbackRound> rollback_;
  std::vector<std::pair<Tag, uint64_t>> rollbacks_wanted_;  // version; they wait for a manifest that is being committed
  bool resting_ = false;                                    // Advance is not entered again from within

  // Numbers of the newest appended decision, and of the newest durable one.
  uint64_t generation_;
  uint64_t version_ = 0;
  uint64_t step_ = 0;
  uint64_t durable_ = 0;
  uint64_t durable_version_ = 0;
  uint64_t settled_ = 0;   // decisions up to here are accepted by every shard
  uint64_t restored_ = 0;  // decisions up to here are of an earlier life
  uint64_t covered_ = 0;   // decisions up to here are in the manifest that was restored, or undone

  absl::flat_hash_map<BatchId, uint64_t> unsettled_;    // index of its decision
  absl::flat_hash_map<BatchId, SessionId> skipped_by_;  // who waits for SkipLogged
  absl::flat_hash_map<BatchId, int> deaths_;            // sessions that ended while they held it
  uint64_t lease_ms_ = spec_.lease_ms;                  // doubles when a session outlasts it: a batch may just take long
  std::deque<PendingSkip> pending_skips_;
  uint32_t skips_in_a_row_ = 0;
  SessionId last_granted_ = 0;  // round-robin
  NormRound norm_;

  std::deque<std::pair<double, uint64_t>> losses_;  // sum and rows of the last steps
  double restored_loss_;
  uint64_t max_lag_ = 0;
  std::map<std::string, double> timing_;
  uint64_t checkpoint_version_ = 0;  // of the last one started
  int64_t checkpoint_ms_ = 0;

  std::vector<Output> outputs_;
};

}  // namespace ballast

#endif  // BALLAST_CORE_COORDINATOR_COORDINATOR_IMPL_H_
