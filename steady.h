// Time that runs on evenly when the wall clock is set: leases, back-offs, ticks and waits must not stand still, or all end at once, because
// somebody corrected the clock by an hour. Abseil's own timed waits follow the wall clock. Only log lines and recorded times of day read
// that. Threads: any.
#ifndef BALLAST_STEADY_H_
#define BALLAST_STEADY_H_

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "absl/time/time.h"

namespace ballast {

// Comparable with other results of this process only.
inline absl::Time SteadyNow() { return absl::UnixEpoch() + absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch()); }

// A flag that is waited for.
class Signal {
 public:
  void Set() {
    const std::lock_guard<std::mutex> lock(mu_);
    set_ = true;
    changed_.notify_all();
  }

  void Clear() {
    const std::lock_guard<std::mutex> lock(mu_);
    set_ = false;
  }

  bool IsSet() const {
    const std::lock_guard<std::mutex> lock(mu_);
    return set_;
  }

  // True as soon as it is set; false when `limit` has passed without that.
  bool WaitFor(absl::Duration limit) const {
    std::unique_lock<std::mutex> lock(mu_);
    const auto set = [this] { return set_; };
    if (limit > absl::Hours(24 * 365)) {
      changed_.wait(lock, set);
      return true;
    }
    return changed_.wait_until(lock, std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(limit), set);
  }

 private:
  mutable std::mutex mu_;
  mutable std::condition_variable changed_;
  bool set_ = false;
};

}  // namespace ballast

#endif  // BALLAST_STEADY_H_
