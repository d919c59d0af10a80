// Closures for one thread. Post from any thread; Take by the owner. What is posted after Close is dropped, so that a callback that outlives
// its receiver does no harm. Bounded by what posts: each outstanding request posts once.
#ifndef BALLAST_WORKER_SESSION_MAILBOX_H_
#define BALLAST_WORKER_SESSION_MAILBOX_H_

#include <deque>
#include <functional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "steady.h"

namespace ballast {

class Mailbox {
 public:
  void Post(std::function<void()> closure) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    if (closed_) return;
    closures_.push_back(std::move(closure));
    posted_.Set();
  }

  // Everything that was posted; waits for it until `deadline`, a SteadyNow().
  std::deque<std::function<void()>> Take(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mu_) {
    do {
      absl::MutexLock lock(&mu_);
      if (!closures_.empty()) return std::exchange(closures_, {});
      posted_.Clear();
    } while (posted_.WaitFor(deadline - SteadyNow()));
    return {};
  }

  void Close() ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    closed_ = true;
    closures_.clear();
  }

 private:
  absl::Mutex mu_;
  Signal posted_;
  std::deque<std::function<void()>> closures_ ABSL_GUARDED_BY(mu_);
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace ballast

#endif  // BALLAST_WORKER_SESSION_MAILBOX_H_
