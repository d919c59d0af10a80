// A shard in a test, without network and coordinator: a run with a tensor of each kind, contributions from a seed, decisions in a chain,
// and the events as something to wait for. Not thread-safe, except RecordedEvents.
#ifndef BALLAST_SERVER_SHARD_SHARD_TESTING_H_
#define BALLAST_SERVER_SHARD_SHARD_TESTING_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "core/types.h"
#include "server/shard/run_shard.h"
#include "server/storage/memory_store.h"
#include "server/storage/store.h"

namespace ballast::testing {

class RecordedEvents : public ShardEvents {
 public:
  void OnAccepted(uint64_t index) override { Add(&RecordedEvents::accepted, index); }
  void OnApplied(uint64_t index, uint64_t) override { Add(&RecordedEvents::applied, index); }
  void OnNorm(uint64_t query, double norm2) override;
  void OnCheckpointed(uint64_t version, const ShardDigest& digest) override;
  void OnDisk(bool low, const std::string& reason) override;
  void OnOwnLog(const Uid& uid) override;
  void OnDecisionDurable(uint64_t index) override { Add(&RecordedEvents::durable, index); }
  void OnFailed(const absl::Status& status) override;

  using Indexes = std::set<uint64_t> RecordedEvents::*;  // &RecordedEvents::accepted, applied or durable
  // Waits until `index` is among them or the shard failed. Returns whether it is.
  bool Wait(Indexes indexes, uint64_t index);
  bool Has(Indexes indexes, uint64_t index);
  absl::Status WaitFailed();
  ShardDigest WaitCheckpointed(uint64_t version);
  double WaitNorm(uint64_t query);

  absl::Mutex mu;
  std::set<uint64_t> accepted ABSL_GUARDED_BY(mu), applied ABSL_GUARDED_BY(mu), durable ABSL_GUARDED_BY(mu);
  std::map<uint64_t, double> norms ABSL_GUARDED_BY(mu);
  std::map<uint64_t, ShardDigest> checkpoints ABSL_GUARDED_BY(mu);
  std::set<Uid> own_log ABSL_GUARDED_BY(mu);
  std::vector<bool> disk ABSL_GUARDED_BY(mu);
  absl::Status failed ABSL_GUARDED_BY(mu);

 private:
  void Add(Indexes indexes, uint64_t index) {
    absl::MutexLock lock(&mu);
    (this->*indexes).insert(index);
  }
};

// Tensors: 0 "w" and 1 "b" OPT, 2 "mean" MEAN, 3 "count" I64 SUM, 4 "tag" I64 SET, 5 "total" F32 SUM, 6 "copy" F32 SET.
RunSpec TestSpec(OptimizerKind optimizer = OptimizerKind::kAdam, Codec push_codec = Codec::kInt8);

// Values of block `block` of a contribution.
using FloatsOf = std::function<std::vector<float>(const Block& block)>;
using IntsOf = std::function<std::vector<int64_t>(const Block& block)>;

class TestShard {
 public:
  // Shard `shard` of `shards`; 0 is also the coordinator's log.
  explicit TestShard(RunSpec spec, uint32_t shard = 0, uint32_t shards = 1);
  ~TestShard();

  // Again: after Close, on the same directory and store, as the next incarnation. Where options.dir is empty the first call makes a folder,
  // which goes away with this object.
  absl::Status Open();
  void Close() { shard.reset(); }

  // ---- contributions: each block of this shard that `skip` does not name, `blocks_per_chunk` in each chunk
  std::vector<PushedChunk> Chunks(Uid uid, const FloatsOf& floats, const IntsOf& ints, bool exact = false,
                                  const std::set<uint32_t>& skip = {}, size_t blocks_per_chunk = 2);
  // From a seed: normal numbers; small integers.
  std::vector<PushedChunk> SeededChunks(Uid uid, uint64_t seed, bool exact = false);
  PushResult Push(std::vector<PushedChunk> chunks);  // waits for the answer
  PushResult PushSeeded(Uid uid, uint64_t seed, bool exact = false) { return Push(SeededChunks(uid, seed, exact)); }

  // ---- decisions: made and numbered here as the coordinator would; rows of a part: 10 + its place
  Decision Make(DecisionKind kind, const std::vector<Uid>& uids, float clip_scale = 1);
  Decision MakeRollback(uint64_t version, uint64_t step);  // of the next generation
  static void Reseal(uint64_t previous_chain, Decision& d);
  // Append (shard 0), sync, deliver; waits until it is applied. False when the shard failed instead.
  bool Decide(const Decision& d);
  bool Decide(DecisionKind kind, const std::vector<Uid>& uids, float clip_scale = 1) { return Decide(Make(kind, uids, clip_scale)); }
  // INIT from session 1 and then `n` steps of two contributions each, pushed in two orders.
  void Train(int n);

  uint64_t Hash() { return shard->StateHash(nullptr); }
  std::vector<float> Floats(uint32_t tensor);  // as pulled, fp32; blocks of this shard
  std::vector<int64_t> Ints(uint32_t tensor);

  const RunSpec spec;
  Layout layout;
  RunShardOptions options;
  std::unique_ptr<Store> store = std::make_unique<MemoryStore>();
  RecordedEvents events;
  std::unique_ptr<RunShard> shard;
  std::map<uint64_t, uint64_t> hash_at;  // decision index -> state hash, by Train
  uint64_t next_counter = 1;             // of session 1, by Train

 private:
  std::string Pulled(uint32_t tensor);
  std::string dir_;
  Decision last_;
};

}  // namespace ballast::testing

#endif  // BALLAST_SERVER_SHARD_SHARD_TESTING_H_
