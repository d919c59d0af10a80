// Turns what a Model hands over into the chunks of one contribution, block by block, while backward still runs: the compute thread only
// queues tensors, a thread of the encoder encodes them and hands full chunks on. A chunk is whole blocks of one shard up to
// kChunkPayloadMax; small tensors share one; every shard gets a last chunk, even one without blocks.
//
// Threads: Begin, the sink's methods, Finish and Abandon by one thread (compute); `ready` is called by the encoder's thread.
#ifndef BALLAST_WORKER_SESSION_ENCODER_H_
#define BALLAST_WORKER_SESSION_ENCODER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "core/record/chunk.h"
#include "core/types.h"
#include "worker/metrics.h"
#include "worker/model/model.h"
#include "worker/session/param_client.h"
#include "worker/session/residuals.h"

namespace ballast {

class ContributionEncoder final : public ContributionSink {
 public:
  using Ready = std::function<void(const std::shared_ptr<Outgoing>& contribution, uint32_t shard)>;

  // `spec`, `residuals` and `metrics` outlive the encoder; metrics may be null.
  ContributionEncoder(const RunSpec* spec, uint64_t generation, Layout layout, uint32_t shards, Residuals* residuals,
                      WorkerMetrics* metrics, Ready ready);
  ~ContributionEncoder() override;

  // `exact`: every tensor in full precision and without a residual (initial weights).
  void Begin(std::shared_ptr<Outgoing> contribution, bool exact) ABSL_LOCKS_EXCLUDED(mu_);
  void OnF32(uint32_t tensor, absl::Span<const float> values) override ABSL_LOCKS_EXCLUDED(mu_);
  void OnI64(uint32_t tensor, absl::Span<const int64_t> values) override ABSL_LOCKS_EXCLUDED(mu_);
  void Finish() ABSL_LOCKS_EXCLUDED(mu_);   // returns when the last chunks were handed on
  void Abandon() ABSL_LOCKS_EXCLUDED(mu_);  // the contribution is given up: the residuals are as before Begin

 private:
  using Values = std::variant<absl::Span<const float>, absl::Span<const int64_t>>;
  struct Task {
    uint32_t tensor;
    Values values;
  };
  struct Open {  // the chunk of one shard that is being filled
    std::vector<BlockHead> blocks;
    std::string payload;
    uint32_t index = 0;
  };

  void Run();
  void Enqueue(Task task) ABSL_LOCKS_EXCLUDED(mu_);
  void Drain() ABSL_LOCKS_EXCLUDED(mu_);
  void EncodeTensor(const Task& task);
  void EncodeBlock(size_t block, Codec codec, const Values& values, char* out, size_t bytes);
  void Seal(uint32_t shard, bool last);

  const RunSpec* const spec_;
  const uint64_t generation_;
  const Layout layout_;
  std::vector<size_t> first_block_;  // of each tensor in the layout; one more at the end
  Residuals* const residuals_;
  WorkerMetrics* const metrics_;
  const Ready ready_;

  // ---- set by Begin, then the encoder's thread only (Finish and Abandon wait until it is idle)
  std::shared_ptr<Outgoing> contribution_;
  bool exact_ = false;
  std::vector<Open> open_;

  absl::Mutex mu_;
  std::deque<Task> tasks_ ABSL_GUARDED_BY(mu_);  // at most one a tensor
  bool busy_ ABSL_GUARDED_BY(mu_) = false;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace ballast

#endif  // BALLAST_WORKER_SESSION_ENCODER_H_
