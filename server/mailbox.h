// One thread that runs closures in the order in which they were posted: the coordinator's, the store's and every other helper thread of
// ballast-server.
//
// A mailbox has no limit of its own, because a refused completion would break the protocol. What fills it is bounded where it comes from: a
// stream has at most kStreamMessagesMax messages in a mailbox (server/control/bidi_stream.h), unary calls are one each, and the events of a
// shard follow decisions and contributions, which have their own limits.
#ifndef BALLAST_SERVER_MAILBOX_H_
#define BALLAST_SERVER_MAILBOX_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "steady.h"

namespace ballast {

class Mailbox {
 public:
  // `name` is the thread's, at most 15 characters. With `tick`: also runs it, on the same thread, about every `period`.
  explicit Mailbox(const std::string& name, absl::Duration period = absl::InfiniteDuration(), std::function<void()> tick = nullptr);
  ~Mailbox();  // Stop()

  // Any thread. After Stop the closure is dropped.
  void Post(std::function<void()> closure) ABSL_LOCKS_EXCLUDED(mu_);
  // Runs what was posted before, then ends the thread. Not from the mailbox's own thread; idempotent.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);
  size_t size() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Loop();

  const absl::Duration period_;
  const std::function<void()> tick_;
  mutable absl::Mutex mu_;
  Signal posted_;
  std::deque<std::function<void()>> closures_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // last: it uses the members above
};

}  // namespace ballast

#endif  // BALLAST_SERVER_MAILBOX_H_
