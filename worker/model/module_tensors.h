// The run's tensors inside a loaded module: finds parameters and buffers by name, points parameters at a ParameterStore, gives every batch
// fresh buffers and tells what the batch made of them. Includes torch: only for the .cc files of this folder.
// Threads: as Model, which owns it. torch's exceptions pass through.
#ifndef BALLAST_WORKER_MODEL_MODULE_TENSORS_H_
#define BALLAST_WORKER_MODEL_MODULE_TENSORS_H_

#include <ATen/ATen.h>
#include <torch/csrc/jit/api/module.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/model/description.h"
#include "worker/model/model.h"
#include "worker/model/parameter_store.h"

namespace ballast {

class ModuleTensors {
 public:
  struct Parameter {
    uint32_t tensor;  // index into the run's tensors
    at::Tensor live;  // the module's own
    bool trained;     // rule OPT and requires_grad
  };

  // Errors: InvalidArgument if the run's tensors are not the module's.
  static absl::StatusOr<ModuleTensors> Bind(const torch::jit::Module& module, const ModelDescription& description,
                                            const std::vector<TensorSpec>& tensors);

  const std::vector<Parameter>& parameters() const { return parameters_; }

  // The module's current values.
  void Read(ParameterStore* out) const;

  // Parameters read `values` in place from now on; buffers are copied from it by the next ResetBuffers.
  void Use(std::shared_ptr<const ParameterStore> values);
  bool in_use() const { return values_ != nullptr; }

  // Fresh buffers, as in the values. (Version counters cannot tell which ones a forward changed: batch_norm does not count.)
  void ResetBuffers();

  // After a forward. Errors: InvalidArgument if it changed a parameter, or made a float buffer not finite or of another shape.
  absl::Status CheckForward() const;

  // Adds what the last forward made of the buffers, for a batch of `rows`; Clear forgets, Deliver hands over (ContributionSink's rules).
  void AccumulateBuffers(uint32_t rows);
  void ClearBuffers();
  void DeliverBuffers(ContributionSink* sink);

 private:
  struct Place {
    torch::jit::Module owner;
    std::string attribute;
  };
  struct Buffer {
    uint32_t tensor = 0;
    std::vector<Place> places;  // one for each name that shares it
    at::ScalarType type = at::kFloat;
    std::vector<double> sum_f64;   // MEAN: sum of rows * value; SUM of floats: the growth; SET of floats: the last value
    std::vector<int64_t> sum_i64;  // SET of integers: the last value; SUM of integers: the growth
    std::vector<float> delivered;  // what the sink reads
    bool changed = false;          // by any batch of the contribution
    at::Tensor Current() const { return places.front().owner.attr(places.front().attribute).toTensor().detach(); }
  };

  static absl::StatusOr<Place> Resolve(const torch::jit::Module& module, const std::string& name);
  absl::Status BindOne(const torch::jit::Module& module, const ModelTensor& described, const TensorSpec& spec, uint32_t index);
  void AccumulateF32(uint32_t rows, Buffer* buffer) const;
  void AccumulateI64(Buffer* buffer) const;

  std::vector<TensorSpec> tensors_;
  std::vector<Parameter> parameters_;
  std::vector<uint32_t> parameter_versions_;  // as of Use
  std::vector<Buffer> buffers_;
  std::shared_ptr<const ParameterStore> values_;
};

}  // namespace ballast

#endif  // BALLAST_WORKER_MODEL_MODULE_TENSORS_H_
