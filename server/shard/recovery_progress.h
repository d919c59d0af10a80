// How far the recovery of a run has come, in bytes read of checkpoint and log: for /metrics and for a log line every few seconds.
// Threads: every method from any thread.
#ifndef BALLAST_SERVER_SHARD_RECOVERY_PROGRESS_H_
#define BALLAST_SERVER_SHARD_RECOVERY_PROGRESS_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace ballast {

class ShardMetrics;  // server/metrics.h

inline constexpr double kProgressSeconds = 3;  // between two lines

class RecoveryProgress {
 public:
  struct Report {
    uint64_t bytes = 0, bytes_total = 0, records = 0;
    double seconds = 0;       // so far
    double seconds_left = 0;  // as fast as until now
  };

  // `metrics` may be null. `clock`: seconds, only growing.
  RecoveryProgress(std::string run, ShardMetrics* metrics, std::function<double()> clock);
  ~RecoveryProgress();  // what was expected but not read (the empty end of a segment) counts as done

  void Expect(uint64_t bytes);
  void Read(uint64_t bytes, uint64_t records = 0);  // logs the report when one is due
  // What to say at `now`; nothing when it was said less than kProgressSeconds before.
  std::optional<Report> Due(double now) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const std::string run_;
  ShardMetrics* const metrics_;
  const std::function<double()> clock_;
  const double start_;
  std::atomic<uint64_t> bytes_{0}, bytes_total_{0}, records_{0};
  absl::Mutex mu_;
  double said_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ballast

#endif  // BALLAST_SERVER_SHARD_RECOVERY_PROGRESS_H_
