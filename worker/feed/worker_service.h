// The gRPC side of ballast.v1.Worker: converts, hands over to the run's FeedQueue, writes what comes back. One reactor a feed, which
// deletes itself when its stream is done. No rule of the protocol is here.
//
// Threads: gRPC's callback threads and whoever calls FeedOutlet; a reactor's lock is always taken after a FeedQueue's.
// Limits: a message of Rows holds at most kBatchBytesMax of columns; a task that does not read its answers is cut off after
// kAnswersMax of them.
#ifndef BALLAST_WORKER_FEED_WORKER_SERVICE_H_
#define BALLAST_WORKER_FEED_WORKER_SERVICE_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "ballast/v1/worker.grpc.pb.h"
#include "worker/feed/feed_queue.h"
#include "worker/metrics.h"

namespace ballast {

inline constexpr size_t kAnswersMax = 1 << 16;
inline constexpr int kFeedMessageBytesMax = static_cast<int>(kBatchBytesMax) + (1 << 20);

// Reads a session's residuals piece by piece, as they are at the time of each call. One thread at a time.
class ResidualReader {
 public:
  virtual ~ResidualReader() = default;
  virtual bool Next(v1::ResidualTensor* piece) = 0;  // false: that was all
};

// What the service needs of the worker. Any thread.
class WorkerRuns {
 public:
  virtual ~WorkerRuns() = default;
  // The queue of a run that this worker serves, or may be told to serve soon. Errors: Unavailable (it stops), ResourceExhausted.
  virtual absl::StatusOr<std::shared_ptr<FeedQueue>> QueueOf(const std::string& run) = 0;
  // Errors: NotFound if there is no session of the run and there was none.
  virtual absl::StatusOr<std::unique_ptr<ResidualReader>> ResidualsOf(const std::string& run) = 0;
};

// `runs` and `metrics` outlive the service and every call of it.
std::unique_ptr<v1::Worker::CallbackService> MakeWorkerService(WorkerRuns* runs, WorkerMetrics* metrics);

}  // namespace ballast

#endif  // BALLAST_WORKER_FEED_WORKER_SERVICE_H_
