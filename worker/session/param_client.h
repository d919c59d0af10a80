// How a session moves bytes to and from the shards: a seam. grpc_param_client.h is the real one (raw streams, reconnects, pushes again);
// session_core_test.cc has one in memory.
#ifndef BALLAST_WORKER_SESSION_PARAM_CLIENT_H_
#define BALLAST_WORKER_SESSION_PARAM_CLIENT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "core/record/chunk.h"
#include "core/types.h"
#include "worker/model/parameter_store.h"

namespace ballast {

// The chunks of one contribution, for every shard in order. They are kept until the contribution is decided or given up, so that they can
// be pushed again; they never change. Threads: any; the encoder appends while the client sends.
class Outgoing {
 public:
  struct Chunk {
    std::string head;                            // EncodeChunkHead
    std::shared_ptr<const std::string> payload;  // shared with the transport: never copied
  };

  Outgoing(Uid uid, size_t shards) : uid_(uid), chunks_(shards) {}

  const Uid& uid() const { return uid_; }
  void Append(uint32_t shard, Chunk chunk) {
    absl::MutexLock lock(&mu_);
    chunks_[shard].push_back(std::move(chunk));
  }
  size_t size(uint32_t shard) const {
    absl::MutexLock lock(&mu_);
    return chunks_[shard].size();
  }
  Chunk at(uint32_t shard, size_t index) const {
    absl::MutexLock lock(&mu_);
    return chunks_[shard][index];
  }

 private:
  const Uid uid_;
  mutable absl::Mutex mu_;
  std::vector<std::vector<Chunk>> chunks_ ABSL_GUARDED_BY(mu_);
};

// Called from the client's threads; must only enqueue.
class ParamEvents {
 public:
  virtual ~ParamEvents() = default;
  // A receipt, or a refusal that pushing the same bytes again would not change.
  virtual void OnPushReply(const PushReply& reply) = 0;
  // Every value of this shard was written into the store that Pull named, as of `version`.
  virtual void OnPulled(uint32_t shard, uint64_t version) = 0;
};

// Any thread, none of them blocks on the network. Lost streams are opened again, and what has no receipt is pushed again, for as long as
// it takes: giving up is the coordinator's business.
class ParamClient {
 public:
  virtual ~ParamClient() = default;
  // Chunks were appended for this shard: sends those that were not sent.
  virtual void Push(const std::shared_ptr<Outgoing>& contribution, uint32_t shard) = 0;
  // The shard lost it: sends all of it again.
  virtual void PushAgain(const std::shared_ptr<Outgoing>& contribution, uint32_t shard) = 0;
  virtual void Forget(const Uid& uid) = 0;
  // Asks for the shard's values as of at least `min_version`. One want a shard: another takes its place. `into` is written until OnPulled.
  virtual void Pull(uint32_t shard, uint64_t min_version, std::shared_ptr<ParameterStore> into) = 0;
};

}  // namespace ballast

#endif  // BALLAST_WORKER_SESSION_PARAM_CLIENT_H_
