// One session of this worker in one run: the Work stream, the threads and the parts around SessionCore.
//
// Threads: control (runs SessionCore; everything else posts to its mailbox), compute (Model), encoder, and the completion queue of the
// parameter streams. A stream that breaks is opened again with a back-off, for as long as the session is wanted.
#ifndef BALLAST_WORKER_SESSION_SESSION_H_
#define BALLAST_WORKER_SESSION_SESSION_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/feed/feed_queue.h"
#include "worker/feed/worker_service.h"
#include "worker/metrics.h"
#include "worker/serve/model_source.h"
#include "worker/session/cluster.h"
#include "worker/session/model_files.h"
#include "worker/session/residuals.h"

namespace ballast {

struct SessionOptions {
  std::string run;
  std::string worker;  // name of this process
  std::shared_ptr<FeedQueue> queue;
  // All outlive the session.
  Cluster* cluster = nullptr;
  ModelFiles* files = nullptr;
  ModelSource* source = nullptr;
  WorkerMetrics* metrics = nullptr;
};

// What audits may read of a session, during its life and after.
struct SessionResiduals {
  std::shared_ptr<const RunSpec> spec;
  std::unique_ptr<Residuals> values;
};
std::unique_ptr<ResidualReader> MakeResidualReader(std::shared_ptr<const SessionResiduals> residuals);

class Session {
 public:
  virtual ~Session() = default;  // as Stop

  // Leaves: its feeds are told to go elsewhere, what is granted is finished (at most some seconds), the rest goes back. Waits for the batch
  // that is being computed. Idempotent.
  virtual void Stop() = 0;
  // The run stopped, or is another one than when the session began. Any thread.
  virtual bool ended() const = 0;
  // It has a Work stream that was welcomed. Any thread.
  virtual bool connected() const = 0;
  // Null until the first welcome. Any thread.
  virtual std::shared_ptr<const SessionResiduals> residuals() const = 0;
};

std::unique_ptr<Session> StartSession(SessionOptions options);

}  // namespace ballast

#endif  // BALLAST_WORKER_SESSION_SESSION_H_
