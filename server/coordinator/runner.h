// The coordinator role of server 0: one thread that owns every run's rules and answers every call of the Control service but artifacts and
// ListDecisions. Streams and unary calls post to it; answers leave through Peer and callbacks.
//
// Threads: one mailbox thread for all state; a store thread for synced puts; an opener thread for what takes seconds (opening and removing
// shards). All public methods from any thread; a callback runs once, on the mailbox thread, and must only enqueue or finish a call.
#ifndef BALLAST_SERVER_COORDINATOR_RUNNER_H_
#define BALLAST_SERVER_COORDINATOR_RUNNER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "ballast/v1/control.pb.h"
#include "server/coordinator/follower_registry.h"
#include "server/coordinator/peer.h"
#include "server/coordinator/plan.h"
#include "server/coordinator/run_host.h"
#include "server/coordinator/run_records.h"
#include "server/coordinator/worker_registry.h"
#include "server/mailbox.h"
#include "server/metrics.h"
#include "server/run_opener.h"
#include "server/storage/store.h"
#include "steady.h"

namespace ballast {

template <typename T>
using Callback = std::function<void(absl::StatusOr<T>)>;

// Most bytes that a feed may have unacknowledged (FeedPlace.window_bytes).
inline constexpr uint64_t kFeedWindowBytes = 64u << 20;

class Runner {
 public:
  struct Options {
    uint32_t servers = 1;
    uint64_t incarnation = 1;  // of server 0
    std::string cluster_id;
    v1::ServerInfo self;
    Rules rules;
    double recovery_target_s = 0;
    uint64_t log_target = 0;
    std::function<void(const absl::Status&)> fatal;  // from any thread: the process must stop
    // Whether an artifact is stored here (server/control/artifacts.h). Called on the opener thread.
    std::function<absl::StatusOr<bool>(const std::string& sha256)> has_artifact;
    // What a new run may take. Called on the opener thread.
    std::function<Machine()> machine;
  };
  Runner(Options options, Store* store, RunOpener* opener, CoordinatorMetrics* metrics);
  ~Runner();  // Stop()

  // Where others reach server 0, once the port is known; before Recover.
  void SetAddress(const std::string& address);
  // Opens every run, rules first, and then lets calls in (Unavailable, RECOVERING, until then). Blocks. Errors: as RunShard::Open.
  absl::Status Recover();
  // Refuses what is new, closes the sessions, takes a checkpoint of each run that needs one and can have one. Blocks at most `limit`.
  void Drain(absl::Duration limit);
  // Any thread: a Drain does not wait any longer, because nothing can be written any more.
  void AbandonDrain();
  // Answers every pending call with Unavailable, so that the gRPC server can shut down. Idempotent.
  void FailPending();
  // Ends the threads. The streams must have ended (the gRPC server is down); the shards must still be there.
  void Stop();

  void CreateRun(v1::RunSpec spec, Callback<v1::Run> done);
  void ListRuns(v1::RunFilter filter, Callback<v1::RunList> done);
  void StopRun(v1::StopRequest request, Callback<v1::Run> done);
  void DeleteRun(v1::RunRef ref, Callback<v1::Run> done);
  void BeginEpoch(v1::Epoch epoch, Callback<v1::EpochReport> done);
  void OpenFeed(v1::FeedRef ref, Callback<v1::FeedPlace> done);
  void CommitEpoch(v1::EpochCounts counts, Callback<v1::EpochReport> done);
  void Checkpoint(v1::RunRef ref, Callback<v1::Manifest> done);
  void Rollback(v1::ManifestRef ref, Callback<v1::Run> done);
  void ListManifests(v1::RunRef ref, Callback<v1::ManifestList> done);
  void Cluster(v1::ClusterRequest request, Callback<v1::ClusterState> done);

  // Streams: each message, then once the end.
  void OnMessage(StreamId stream, std::shared_ptr<Peer<v1::WorkerDown>> peer, std::shared_ptr<const v1::WorkerUp> message);
  void OnMessage(StreamId stream, std::shared_ptr<Peer<v1::WorkDown>> peer, std::shared_ptr<const v1::WorkUp> message);
  void OnMessage(StreamId stream, std::shared_ptr<Peer<v1::ShardDown>> peer, std::shared_ptr<const v1::ShardUp> message);
  void OnWorkerGone(StreamId stream);
  void OnSessionGone(StreamId stream);
  void OnFollowerGone(StreamId stream);

 private:
  struct WorkStream {
    uint64_t host = 0;
    SessionId session = 0;
    std::string worker;
  };

  void Tick();
  void TellWorkers();
  void TellRuns(uint32_t follower);
  void CheckDrained();

  RunHost* Find(const std::string& run);
  absl::StatusOr<RunHost*> FindOrError(const std::string& run);
  RunHost* FindId(uint64_t host);
  absl::Status CheckOpen() const;  // recovered and not draining
  template <typename Down>
  bool CheckHello(const v1::Hello& hello, const std::shared_ptr<Peer<Down>>& peer) const;

  void StartCreate(RunSpec spec, Callback<v1::Run> done);
  absl::Status PrepareCreate(RunDefinition* run);  // opener thread; sets the generation
  void FinishCreate(uint64_t id, RunDefinition run, absl::StatusOr<std::shared_ptr<OpenRun>> local, const Callback<v1::Run>& done);
  void RemoveDeleted(v1::Run run, Callback<v1::Run> done);  // store thread, mailbox, opener thread
  absl::Status RecoverRun(RunDefinition run);               // Recover's thread
  absl::StatusOr<RunHost*> AddHost(uint64_t id, RunDefinition run, CoordinatorState state, std::shared_ptr<OpenRun> local);
  void OpenWork(StreamId stream, const std::shared_ptr<Peer<v1::WorkDown>>& peer, const v1::WorkUp::Open& open);
  void OpenFollow(StreamId stream, const std::shared_ptr<Peer<v1::ShardDown>>& peer, const v1::ShardUp::Open& open);
  // Runs on the mailbox thread and waits for it.
  void RunAndWait(std::function<void()> closure);

  const Options options_;
  RunRecords records_;
  RunOpener* const opener_;
  CoordinatorMetrics* const metrics_;
  RunHost::Context context_;

  std::atomic<uint64_t> last_host_{0};

  // Mailbox thread only.
  FollowerRegistry followers_;
  WorkerRegistry workers_;
  std::map<std::string, std::unique_ptr<RunHost>> hosts_;
  std::map<StreamId, WorkStream> work_streams_;
  std::map<std::string, std::vector<std::function<void()>>> creating_;  // by name: calls that came meanwhile
  std::map<std::string, bool> deleting_;                                // by name: whether its records are gone for good
  bool recovered_ = false;
  bool draining_ = false;
  std::set<uint64_t> drain_waits_;  // hosts whose last checkpoint is not there yet
  Signal* drained_ = nullptr;

  // Last, so that they end before what they use. The mailbox ends last of the three.
  Mailbox mailbox_;
  Mailbox store_thread_;
  Mailbox opener_thread_;
};

}  // namespace ballast

#endif  // BALLAST_SERVER_COORDINATOR_RUNNER_H_
