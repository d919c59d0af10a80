// A pushed chunk's way into a shard: offered, checked and added to the staging, appended to the log, and for the last chunk of a
// contribution the receipt, when core/coordinator/receipt.h says that it is due. Threads: the owner; Close any.
#ifndef BALLAST_SERVER_SHARD_PUSH_INTAKE_H_
#define BALLAST_SERVER_SHARD_PUSH_INTAKE_H_

#include <atomic>
#include <functional>

#include "server/shard/replica.h"
#include "server/shard/run_shard.h"
#include "server/storage/segment_log.h"

namespace ballast {

class PushIntake {
 public:
  using Done = std::function<void(const PushResult&)>;

  // All outlive it; `metrics` may be null.
  PushIntake(const RunShardOptions* options, Replica* replica, ShardEvents* events, ShardMetrics* metrics)
      : options_(options), replica_(replica), events_(events), metrics_(metrics) {}
  // Before the first Take.
  void Use(SegmentLog* log) { log_ = log; }

  // `done` as in RunShard::Push.
  void Take(PushedChunk& chunk, const Done& done);
  // From here on everything is refused.
  void Close() { closed_ = true; }

 private:
  void Add(PushedChunk& chunk, CheckedChunk checked, const Done& done);
  void OnComplete(const Contribution& held, const Done& done);
  PushResult Receive(const Uid& uid, uint64_t checksum, double norm2) const;  // the answer that is its receipt
  void AnswerHeld(Uid uid, const Done& done);
  void Refuse(Uid uid, const absl::Status& why, const Done& done);

  const RunShardOptions* const options_;
  Replica* const replica_;
  ShardEvents* const events_;
  ShardMetrics* const metrics_;
  SegmentLog* log_ = nullptr;
  std::atomic<bool> closed_{false};
};

}  // namespace ballast

#endif  // BALLAST_SERVER_SHARD_PUSH_INTAKE_H_
