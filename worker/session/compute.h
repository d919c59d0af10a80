// The compute thread of a session: owns the Model and the encoder, runs one job at a time.
// Threads: Run by one thread (control), never while a job runs; `done` is called by the compute thread.
#ifndef BALLAST_WORKER_SESSION_COMPUTE_H_
#define BALLAST_WORKER_SESSION_COMPUTE_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "core/types.h"
#include "worker/model/model.h"
#include "worker/session/encoder.h"
#include "worker/session/session_core.h"

namespace ballast {

// Seed of dropout for a batch: the same wherever and whenever the batch is trained.
uint64_t BatchSeed(uint64_t run_seed, const BatchId& id);

class Compute {
 public:
  using LoadModel = std::function<absl::StatusOr<std::unique_ptr<Model>>()>;
  using InitialValues = std::function<absl::Status(const Model& model, ParameterStore* out)>;
  struct Options {
    std::shared_ptr<const RunSpec> spec;
    LoadModel load;  // first thing that the thread does; may block
    InitialValues initial;
    ContributionEncoder* encoder = nullptr;
    Residuals* residuals = nullptr;
    std::function<void(const absl::Status&)> loaded;
    std::function<void(const ComputeResult&)> done;
  };
  explicit Compute(Options options);
  ~Compute();  // waits for the job that runs

  void Run(ComputeJob job) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Loop();
  ComputeResult Do(const ComputeJob& job);
  ComputeResult Train(const ComputeJob& job);
  ComputeResult Initial(const ComputeJob& job);

  const Options options_;
  std::unique_ptr<Model> model_;  // compute thread only

  absl::Mutex mu_;
  std::optional<ComputeJob> job_ ABSL_GUARDED_BY(mu_);
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace ballast

#endif  // BALLAST_WORKER_SESSION_COMPUTE_H_
