// One run on server 0: the rules (core/coordinator) with everything that their outputs must reach: sessions, shards, log, store, callers.
// It moves messages and decides nothing.
//
// Threads: the runner's only, the constructor and destructor too. What has to wait (a synced put) goes to the store thread and comes back
// through Context::post.
#ifndef BALLAST_SERVER_COORDINATOR_RUN_HOST_H_
#define BALLAST_SERVER_COORDINATOR_RUN_HOST_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ballast/v1/control.pb.h"
#include "core/coordinator/coordinator.h"
#include "proto/convert.h"
#include "server/coordinator/follower_registry.h"
#include "server/coordinator/peer.h"
#include "server/coordinator/run_records.h"
#include "server/mailbox.h"
#include "server/metrics.h"
#include "server/run_table.h"

namespace ballast {

int64_t MonotonicMs();
int64_t UnixMs();

class RunHost {
 public:
  // Of the runner, which outlives its hosts.
  struct Context {
    uint32_t servers = 1;
    uint64_t incarnation = 1;
    Rules rules;
    double recovery_target_s = 0;  // a checkpoint is taken when a restart would replay for longer; 0: never for that
    uint64_t log_target = 0;       // and when the log is longer than this and than kLogStatesMax times the state; 0: never for that
    FollowerRegistry* followers = nullptr;
    RunRecords* records = nullptr;
    Mailbox* store_thread = nullptr;
    CoordinatorMetrics* metrics = nullptr;
    // Any thread: runs the closure on the runner's thread with the host of that id, then Flush; dropped when the host is gone.
    std::function<void(uint64_t host, std::function<void(RunHost&)>)> post;
    std::function<void(const absl::Status&)> fatal;  // a synced write failed: the process must stop
  };
  using ReplyValue = std::variant<std::monostate, EpochReport, Manifest>;
  using ReplyCallback = std::function<void(const absl::Status&, const ReplyValue&)>;

  // `local`: the opened shard 0. Errors: DataLoss when the state contradicts itself.
  static absl::StatusOr<std::unique_ptr<RunHost>> Create(const Context* context, uint64_t id, RunDefinition run, CoordinatorState state,
                                                         std::shared_ptr<OpenRun> local);
  ~RunHost();  // answers what is pending with Unavailable

  uint64_t id() const { return id_; }
  const RunDefinition& run() const { return run_; }
  Coordinator& core() { return *core_; }
  // Delivers what the rules put out. After every call of a method of core().
  void Flush();
  void Tick();

  // A tag whose Reply comes to `done`.
  Tag NewTag(ReplyCallback done);
  void FailPending(const absl::Status& status);

  // ---- sessions
  absl::StatusOr<Coordinator::Opened> OpenSession(std::shared_ptr<Peer<v1::WorkDown>> peer, const std::string& worker, SessionId resume);
  void OnSessionMessage(SessionId session, const v1::WorkUp& message);
  void OnSessionLost(SessionId session);
  void CloseSessions(const std::string& reason);  // the server stops: each is told, then its stream ends

  void OnDecisionDurable(uint64_t index);  // in the log of shard 0

  // ---- shards other than 0; messages before the position of a new connection are of an earlier one and ignored
  void OnShardMessage(uint32_t shard, const v1::ShardUp& message);
  void OnShardLost(uint32_t shard);
  bool AllPositioned() const;

  v1::Run Describe(bool layout, bool tensors) const;
  RunStatus Status() const { return core_->Describe(); }
  // The state as of now goes to the store when it is not what is stored there.
  void SetStoredStop(bool stopped) { stored_stop_ = stopped; }

 private:
  struct Session {
    std::shared_ptr<Peer<v1::WorkDown>> peer;
  };

  RunHost(const Context* context, uint64_t id, RunDefinition run, std::unique_ptr<Coordinator> core, std::shared_ptr<OpenRun> local);
  void Deliver(ToSession output);
  void Deliver(ToShard output);
  void Deliver(AppendDecision output);
  void Deliver(CommitManifest output);
  void Deliver(PersistEpoch output);
  void Deliver(DropEpoch output);
  void Deliver(Reply output);
  void DeliverToSelf(ShardMessage message);
  void CountProgress(const RunStatus& now);
  void StoreStop(const RunStatus& now);
  std::string DebtOverTarget() const;  // empty: it is not
  void BoundDebt(const RunStatus& now);

  const Context* const context_;
  const uint64_t id_;
  const RunDefinition run_;
  const std::unique_ptr<Coordinator> core_;
  const std::shared_ptr<OpenRun> local_;
  std::map<SessionId, Session> sessions_;
  std::map<Tag, ReplyCallback> pending_;
  Tag last_tag_ = 0;
  std::vector<bool> positioned_;             // by shard
  std::map<uint64_t, int64_t> appended_us_;  // decisions on their way to the disk, by index
  RunStatus counted_;                        // what the metrics hold already
  bool stored_stop_ = false;
  bool bounding_ = false;  // a checkpoint that BoundDebt asked for is under way, or was refused
};

// The events of shard 0, sent to its host.
std::unique_ptr<ShardEvents> MakeLocalEvents(const RunHost::Context* context, uint64_t host);

}  // namespace ballast

#endif  // BALLAST_SERVER_COORDINATOR_RUN_HOST_H_
