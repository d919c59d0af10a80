// One TorchScript module, loaded from an archive that `ballast.export` made: trains on batches, scores rows, tells its initial values.
// The seam to libtorch: no torch header is included here, and torch's exceptions do not leave model.cc.
//
// A model file is executable code. The caller has checked the sha256 of the archive against the run's before it calls Load.
//
// Training, by the session's compute thread:
//   model->BeginContribution(values);                                // a ParameterStore filled from Pull
//   for each batch:  loss = model->TrainBatch(batch, seed, last_sink);  // last_sink: null unless the batch is known to be the last one
//   model->FinishContribution(sink);                                 // what was not handed over yet, and the buffers
// A contribution is in *row sums*: the gradient of the sum of the losses of all rows. The server divides.
//
// Threads: a Model belongs to one thread at a time; training and serving use separate Models. Backward runs on the calling thread, helped
// by torch's intra-op threads (SetComputeThreads).
#ifndef BALLAST_WORKER_MODEL_MODEL_H_
#define BALLAST_WORKER_MODEL_MODEL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/types.h"
#include "worker/model/description.h"
#include "worker/model/parameter_store.h"

namespace ballast {

// Little-endian, row-major, [rows, shape...]. Not owned; read during the call only. Any alignment.
struct ColumnView {
  std::string_view name;
  std::string_view data;
};

struct BatchView {
  uint32_t rows = 0;
  std::vector<ColumnView> columns;  // any order; columns that the model does not know are ignored
};

struct OutputTensor {
  std::string name;
  std::string dtype;           // torch's name without "torch."
  std::vector<int64_t> shape;  // whole, [rows, ...]
  std::string data;            // little-endian, dense
};

// Takes a contribution, tensor by tensor: each at most once, index into the run's tensors, all elements. Tensors that were not touched
// (no gradient in any batch; SET tensors that did not change) are left out. The spans stay valid, with these values, until the next
// BeginContribution of the Model: the sink may hand them to other threads.
class ContributionSink {
 public:
  virtual ~ContributionSink() = default;
  virtual void OnF32(uint32_t tensor, absl::Span<const float> values) = 0;    // gradients; MEAN: sum of rows * value; SUM: the growth
  virtual void OnI64(uint32_t tensor, absl::Span<const int64_t> values) = 0;  // SET: value after the last batch
};

class Model {
 public:
  // Reads an archive and binds it to the run's tensors.
  //   archive  bytes of the file; not kept
  //   tensors  of the run (RunSpec.tensors). Empty: as the model describes itself
  // Errors: InvalidArgument if the archive does not load, has no description, or its tensors are not those of the run.
  static absl::StatusOr<std::unique_ptr<Model>> Load(std::string_view archive, absl::Span<const TensorSpec> tensors);
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const ModelDescription& description() const;
  const std::vector<TensorSpec>& tensors() const;

  // The values in the file, floats of any width as fp32, integers and bools as int64: the contribution of the init batch.
  // REQUIRES a store of tensors(), and that no contribution was begun.
  absl::Status InitialValues(ParameterStore* out) const;

  // Drops what was accumulated and computes from `values` from now on: they are read in place, so the caller changes them no more until the
  // next BeginContribution. REQUIRES a store of tensors().
  absl::Status BeginContribution(std::shared_ptr<const ParameterStore> values);

  // Forward and backward in train mode, every batch from the same values (buffers too). Adds to the contribution; returns the sum of the
  // losses of its rows. On an error nothing is added and the contribution goes on without this batch.
  //   seed       of dropout; derive it from the run's seed and the batch's identity
  //   last_sink  not null: this is the contribution's last batch, so each gradient is handed over, summed over the batches, while backward
  //              still runs. On an error then, whatever was handed over included this batch: the caller gives up that uid and calls
  //              FinishContribution with a sink for a new one, which gets every tensor of the batches before.
  // Errors: InvalidArgument if the batch cannot be trained (column missing or of the wrong size, torch raised, loss not one per row, loss
  // or gradient not finite): skip it on the record with the message as the reason.
  absl::StatusOr<double> TrainBatch(const BatchView& batch, uint64_t seed, ContributionSink* last_sink);

  // Hands over what TrainBatch has not: gradients still held, then the buffers. REQUIRES at least one batch trained.
  absl::Status FinishContribution(ContributionSink* sink);

  // Binds values for Infer (eval mode, buffers too). The Model keeps them.
  absl::Status SetInferValues(std::shared_ptr<const ParameterStore> values);

  // Scores rows. REQUIRES SetInferValues. Errors: InvalidArgument if columns do not fit or torch raised.
  absl::StatusOr<std::vector<OutputTensor>> Infer(const BatchView& batch);

 private:
  class Impl;
  explicit Model(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Intra-op threads of torch, for the whole process. Call once in main before the first Load.
void SetComputeThreads(int threads);

}  // namespace ballast

#endif  // BALLAST_WORKER_MODEL_MODEL_H_
