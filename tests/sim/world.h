// A whole Ballast in one thread: the real coordinator, and simulated shards, workers, Spark tasks, network and crashes around it. A seed
// fixes everything. Run makes one random move after another until all data is trained and committed, and checks after every move:
//
//   - a batch is in at most one durable decision that is not undone, and nothing is skipped that can be trained
//   - a rollback takes back exactly the decisions after its manifest, in the ledger, the epochs and the values of every shard
//   - what is acknowledged is decided, durably, and accepted by every shard
//   - a decided contribution is durable on every shard when its decision is (on shard 0: in the log before the decision)
//   - every shard applies a prefix of the one list of decisions
//   - no contribution is older than the run allows
//   - once no more faults happen everything is acknowledged and committed within a bounded number of moves, and the rows add up
//   - a twin that is still at work when its epoch is committed gets its answers too
//
// Files: world.cc (moves, faults, end) · world_coordinator.cc (outputs, promises, restart) · world_shards.cc · world_workers.cc ·
// world_network.cc (partitions) · world_spark.cc (tasks and driver).
#ifndef BALLAST_TESTS_SIM_WORLD_H_
#define BALLAST_TESTS_SIM_WORLD_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "core/coordinator/coordinator.h"
#include "tests/sim/parts.h"
#include "tests/sim/scenario.h"

namespace ballast::sim {

class World {
 public:
  explicit World(Scenario scenario);

  // Empty when every promise held; else the first broken one.
  std::string Run();

  uint64_t moves() const { return moves_; }
  int faults_made() const { return faults_made_; }
  const std::map<std::string, int>& seen() const { return seen_; }  // how often notable things happened, for the figures
  const std::vector<DecisionPtr>& decisions() const { return shards_[0].decisions; }

 private:
  using Move = std::function<void()>;
  enum class DriverPhase : uint8_t { kBegin, kBeginning, kTrain, kCommit, kCommitting, kEnd };

  // ---- world.cc
  void Collect();  // every move that is possible now
  void MakeMove();
  void Tick();
  bool MaybeFault();
  bool Finished() const;
  bool Volatile() const { return scenario_.durability == Durability::kCheckpoint; }
  bool MayBeUndone() const { return rollbacks_left_ < scenario_.rollbacks || Volatile(); }  // what the driver or a worker was told before
  void CheckEnd();
  void Violation(const std::string& what);
  void Note(const std::string& what);  // trace
  template <typename F>
  void Add(F&& move) {
    moves_now_.emplace_back(std::forward<F>(move));
  }

  // ---- world_coordinator.cc
  bool CoordinatorUp() const { return coordinator_ != nullptr; }
  void Drain();
  void Deliver(ToSession& out);
  void Deliver(ToShard& out);
  void Deliver(AppendDecision& out);
  void Deliver(CommitManifest& out);
  void Deliver(PersistEpoch& out);
  void Deliver(DropEpoch& out);
  void Deliver(Reply& out);
  void CheckAcknowledged(const BatchId& batch, const char* how);
  void CheckOnceDecided(const BatchId& batch, const char* how);
  void Undo(const Decision& rollback);
  void CheckDurable(const Decision& decision);
  void FinishDiskWrite(bool tell);
  void CollectCoordinator();
  void StartServer0();
  void CrashServer0();
  void DeliverWork(WorkStream& stream);

  // ---- world_shards.cc
  void CollectShards();
  void SyncShard(uint32_t s, bool tell);
  void Connect(uint32_t s);
  void CrashShard(uint32_t s);
  void ReceiveFollow(uint32_t s);
  void TakeManifest(uint32_t s, const ManifestCommitted& manifest);
  void SendFollow(uint32_t s);
  void ReceivePush(uint32_t w, uint32_t s);
  void GiveReceipt(uint32_t s, const Uid& uid, uint32_t w);
  void ApplyNext(uint32_t s);
  uint64_t SlowestVersion() const;

  // ---- world_workers.cc
  void CollectWorkers();
  void OpenSession(uint32_t w);
  void ReceiveWork(uint32_t w);
  void Receive(uint32_t w, const Grant& m);
  void Receive(uint32_t w, const Done& m);
  void Receive(uint32_t w, const Flush& m);
  void Receive(uint32_t w, const Refuse& m);
  void Receive(uint32_t w, const Decided& m);
  void Receive(uint32_t w, const SkipLogged& m);
  void Receive(uint32_t w, const CloseSession& m);
  void Claim(uint32_t w, SimWorker::Entry& entry);
  void Acknowledge(uint32_t w, const BatchId& batch);
  void Compute(uint32_t w, SimContribution& c);
  void Encode(uint32_t w, SimContribution& c);
  void Submit(uint32_t w, SimContribution& c);
  void SayStatus(uint32_t w);
  void LoseSession(uint32_t w, bool keep_bytes);
  void CrashWorker(uint32_t w);
  void Send(uint32_t w, WorkUp message);
  void ReceiveReceipt(uint32_t s, uint32_t w);

  // ---- world_network.cc
  bool MakePartition(uint32_t w, uint32_t s);
  bool Blocked(Partition::Link link, uint32_t w, uint32_t s, bool up) const;
  bool Parted(Partition::Link link, uint32_t w, uint32_t s) const { return Blocked(link, w, s, true) || Blocked(link, w, s, false); }
  void TickNetwork();
  void Notice(Partition& partition);
  void Heal(const Partition& partition);

  // ---- world_spark.cc
  void CollectSpark();
  void AddAttempts(uint32_t epoch);
  void StartAttempt(SimAttempt& a);
  void OpenFeed(SimAttempt& a);
  void SendRows(SimAttempt& a);
  void ReceiveFeed(uint32_t feed);
  void ReceiveAck(uint32_t feed);
  void Drive();
  void FeedAgain(const EpochReport& report);
  void DriveFromLedger();
  bool PartitionDone(uint32_t epoch, uint32_t partition) const;
  void LeaveWorker(SimAttempt& a, bool retry);
  Batch BatchOf(uint32_t epoch, uint32_t partition, uint64_t seq) const;

  const Scenario scenario_;
  Random rng_;
  int64_t now_ms_ = 0;
  int64_t next_tick_ms_ = 100;
  uint64_t moves_ = 0;
  int idle_ticks_ = 0;
  int faults_left_;
  int faults_made_ = 0;
  int rollbacks_left_;
  int leaves_made_ = 0;  // of these: a worker that leaves in order
  std::string violation_;
  std::map<std::string, int> seen_;
  std::vector<Move> moves_now_;

  CoordinatorConfig config_;
  std::unique_ptr<Coordinator> coordinator_;  // null: server 0 is down
  uint64_t incarnation_ = 0;
  std::vector<Manifest> manifests_;         // durable
  std::map<uint32_t, EpochRecord> epochs_;  // durable
  uint64_t log_needed_from_ = 1;
  std::deque<std::variant<Manifest, EpochRecord, DropEpoch, DropManifests>> disk_;  // not durable yet, in order
  std::map<BatchId, uint64_t> decided_;                                             // by durable decisions that are not undone: index
  std::set<BatchId> ever_decided_;
  std::set<BatchId> skipped_;
  std::vector<bool> disk_low_;
  std::list<WorkStream> streams_;
  std::vector<Partition> partitions_;

  std::vector<SimShard> shards_;
  std::vector<SimWorker> workers_;
  std::vector<std::vector<std::deque<Uid>>> push_;                          // [worker][shard]
  std::vector<std::vector<std::deque<std::pair<Uid, Receipt>>>> receipts_;  // [worker][shard]
  std::deque<SimFeed> feeds_;
  std::deque<SimAttempt> attempts_;
  DriverPhase driver_ = DriverPhase::kBegin;
  uint32_t epoch_ = 1;
  Tag tag_ = 0;
};

}  // namespace ballast::sim

#endif  // BALLAST_TESTS_SIM_WORLD_H_
