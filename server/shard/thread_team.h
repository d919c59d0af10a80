// Threads that share the blocks of one shard while it recovers, when nothing else needs the cores. Blocks do not depend on one another, so
// who takes which changes no bit.
#ifndef BALLAST_SERVER_SHARD_THREAD_TEAM_H_
#define BALLAST_SERVER_SHARD_THREAD_TEAM_H_

#include <cstddef>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"

namespace ballast {

class ThreadTeam {
 public:
  // `threads`: those that work, the caller of ForEach among them; at least 1.
  explicit ThreadTeam(size_t threads);
  ~ThreadTeam();

  // Calls work(i) once for each i < count, in no order, and returns when all calls have. One caller at a time.
  void ForEach(size_t count, absl::FunctionRef<void(size_t)> work);

 private:
  using Work = absl::FunctionRef<void(size_t)>;
  void Help();
  void TakeShare() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  absl::Mutex mu_;
  const Work* work_ ABSL_GUARDED_BY(mu_) = nullptr;  // null: nothing is going on
  size_t count_ ABSL_GUARDED_BY(mu_) = 0;
  size_t next_ ABSL_GUARDED_BY(mu_) = 0;
  size_t busy_ ABSL_GUARDED_BY(mu_) = 0;  // threads inside a call
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> helpers_;
};

}  // namespace ballast

#endif  // BALLAST_SERVER_SHARD_THREAD_TEAM_H_
