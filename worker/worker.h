// The process around the sessions: gRPC server (feeds, residuals, inference, health, reflection), the Attach stream to server 0, one
// session for each run that it wants served, metrics.
//
// Threads: Start and Stop by main; a manager thread owns the Attach stream and the sessions; the rest is gRPC's, the sessions' and the
// inference service's.
#ifndef BALLAST_WORKER_WORKER_H_
#define BALLAST_WORKER_WORKER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/config.h"

namespace ballast {

class Worker {
 public:
  // Listens, then attaches in the background for as long as it takes. Errors: Unavailable (an address cannot be bound).
  static absl::StatusOr<std::unique_ptr<Worker>> Start(WorkerConfig config);
  virtual ~Worker() = default;

  virtual const std::string& address() const = 0;          // that tasks are told
  virtual const std::string& metrics_address() const = 0;  // empty: none
  // Sessions leave, feeds are told to go elsewhere, the server drains. Idempotent.
  virtual void Stop() = 0;
};

}  // namespace ballast

#endif  // BALLAST_WORKER_WORKER_H_
