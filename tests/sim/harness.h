// Drives a real coordinator by hand, one message at a time, for the named tests. Shards and disk answer at once unless told not to.
#ifndef BALLAST_TESTS_SIM_HARNESS_H_
#define BALLAST_TESTS_SIM_HARNESS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/coordinator/coordinator.h"
#include "core/types.h"

namespace ballast::sim {

class Harness {
 public:
  static RunSpec Spec();                         // step_rows 8, contribution_rows 8, batches of 4 rows, staleness 0, SGD
  static RunSpec Async(uint32_t staleness_max);  // every batch is a step of its own

  // Name of the rule that every harness of this program goes without; empty: none. Only where BALLAST_MUTATIONS is defined.
  static std::string& mutation();

  explicit Harness(RunSpec spec = Spec(), uint32_t shards = 2);
  // Positions of all shards, initial weights (version 1) and epoch 1 with 4 partitions.
  Harness& Ready();

  // A new life of server 0 with what is durable. The shards still have to send their positions.
  void RestartCoordinator();
  void Position(uint32_t shard, std::vector<Uid> undecided = {});  // at the newest durable decision, in its present incarnation
  void RestartShard(uint32_t shard, std::vector<Uid> undecided = {});

  SessionId Open(SessionId resume = 0);  // says that it is blocked: what it claims is submitted at once
  static Batch B(uint64_t seq, uint32_t partition = 0, uint32_t rows = 4);
  void Claim(SessionId s, const Batch& b, std::optional<Uid> uid = std::nullopt);
  // Submits the batches under a new uid, with receipts of every shard. Base: the newest durable version, or `base`.
  Uid Submit(SessionId s, const std::vector<Batch>& batches, std::optional<uint64_t> base = std::nullopt);
  void Submit(SessionId s, Uid uid, const std::vector<Batch>& batches, std::optional<uint64_t> base = std::nullopt);
  void Blocked(SessionId s, bool blocked = true, uint64_t rows_done = 0);
  void Lose(SessionId s);                   // its stream ends
  void Advance(int64_t ms);                 // ticks every 100 ms
  void Train(SessionId s, const Batch& b);  // claim, submit, decide: one whole contribution
  Reply Begin(uint32_t epoch, uint32_t partitions = 4, uint64_t batch_rows = 4);
  Reply Commit(uint32_t epoch, const std::vector<Coordinator::PartitionCount>& counts);
  Reply Checkpoint();
  Reply Rollback(uint64_t version);

  // Messages to a session since the last call, of one kind.
  template <typename T>
  std::vector<T> Take(SessionId s) {
    std::vector<T> taken;
    std::vector<SessionMessage> rest;
    for (SessionMessage& m : to_session_[s]) {
      if (const T* match = std::get_if<T>(&m)) {
        taken.push_back(*match);
      } else {
        rest.push_back(std::move(m));
      }
    }
    to_session_[s] = std::move(rest);
    return taken;
  }
  size_t Granted(SessionId s) { return Take<Grant>(s).size(); }

  void Pump();  // delivers outputs
  void MakeDurable();
  void Accept(uint32_t shard, uint64_t index, uint64_t coordinator_incarnation);
  void Apply(uint32_t shard, uint64_t index);
  Coordinator& operator*() { return *coordinator_; }
  Coordinator* operator->() { return coordinator_.get(); }
  const std::vector<std::shared_ptr<const Decision>>& decisions() const { return decisions_; }
  const Decision& last() const { return *decisions_.back(); }
  uint64_t incarnation() const { return config_.incarnation; }
  int64_t now() const { return now_ms_; }

  bool auto_durable = true;
  bool auto_accept = true;
  bool auto_apply = true;
  bool auto_norm = true;
  bool auto_checkpoint = true;
  std::set<uint64_t> nonfinite_versions;  // of checkpoints

  std::vector<std::pair<uint32_t, ShardMessage>> to_shard;
  std::vector<Manifest> manifests;
  std::map<uint32_t, EpochRecord> epochs;
  std::vector<uint32_t> dropped_epochs;  // in the order of the store's writes
  std::vector<Reply> replies;

 private:
  void Deliver(Output& output);
  Reply TakeReply(Tag tag);

  CoordinatorConfig config_;
  std::unique_ptr<Coordinator> coordinator_;
  int64_t now_ms_ = 1000;
  Tag tag_ = 0;
  std::map<SessionId, uint64_t> counters_;
  std::vector<uint64_t> incarnations_;                      // of the shards
  std::vector<std::shared_ptr<const Decision>> decisions_;  // appended
  size_t durable_ = 0;
  std::map<SessionId, std::vector<SessionMessage>> to_session_;
};

// Batches of partition 0.
inline const Batch kB0 = Harness::B(0), kB1 = Harness::B(1), kB2 = Harness::B(2), kB3 = Harness::B(3), kB4 = Harness::B(4);

}  // namespace ballast::sim

#endif  // BALLAST_TESTS_SIM_HARNESS_H_
