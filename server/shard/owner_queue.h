// What the owner thread of a shard has to do: tasks (decisions, questions) ahead of pushed chunks, which are bounded in bytes, and between
// them, or when there is nothing else, the blocks that the checkpoint in progress is owed.
//
// Threads: Run belongs to the owner; everything else any thread.
#ifndef BALLAST_SERVER_SHARD_OWNER_QUEUE_H_
#define BALLAST_SERVER_SHARD_OWNER_QUEUE_H_

#include <cstdint>
#include <deque>
#include <functional>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace ballast {

class ShardMetrics;  // server/metrics.h

class OwnerQueue {
 public:
  using Task = std::function<void()>;

  // `metrics` may be null.
  OwnerQueue(uint64_t push_bytes_max, ShardMetrics* metrics) : push_bytes_max_(push_bytes_max), metrics_(metrics) {}
  ~OwnerQueue();

  // Ahead of the pushes that wait: a decision never waits for bytes of later steps.
  void Post(Task task) ABSL_LOCKS_EXCLUDED(mu_);
  // Takes a push of `bytes`; `make` is called only if there is room. Errors: ResourceExhausted.
  absl::Status Push(uint64_t bytes, absl::FunctionRef<Task()> make) ABSL_LOCKS_EXCLUDED(mu_);
  // Behind the pushes that wait, so that the answer includes them. Blocks until it is done.
  void RunAndWait(absl::FunctionRef<void()> what) ABSL_LOCKS_EXCLUDED(mu_);
  // An owed block could be paid.
  void TellRoom() ABSL_LOCKS_EXCLUDED(mu_);

  // Until Stop. `pay(must)` pays one owed block if there is room, or if `must` is false only looks; returns whether more can be paid now.
  void Run(absl::FunctionRef<bool(bool must)> pay) ABSL_LOCKS_EXCLUDED(mu_);
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);
  // After Run: the pushes and questions that are left.
  std::deque<Task> TakeRest() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const uint64_t push_bytes_max_;
  ShardMetrics* const metrics_;

  absl::Mutex mu_;
  std::deque<Task> tasks_ ABSL_GUARDED_BY(mu_);
  std::deque<Task> pushes_ ABSL_GUARDED_BY(mu_);
  uint64_t push_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  bool room_ ABSL_GUARDED_BY(mu_) = false;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace ballast

#endif  // BALLAST_SERVER_SHARD_OWNER_QUEUE_H_
