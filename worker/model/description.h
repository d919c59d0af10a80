// What a model file says about itself: the extra file "ballast.json" that `ballast.export` (client/python/ballast/export.py) stores in the
// TorchScript archive. Parsed and checked here, without libtorch: inputs, label, outputs, loss and every tensor of the module.
// Free functions and plain values: safe from any thread.
#ifndef BALLAST_WORKER_MODEL_DESCRIPTION_H_
#define BALLAST_WORKER_MODEL_DESCRIPTION_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/types.h"

namespace ballast {

inline constexpr size_t kDescriptionBytesMax = 16u << 20;

// A column that goes in or out. `dtype` is torch's name without "torch." ("int32", "float32", "bool", ...); `shape` is that of one row, so
// a batch has [rows, shape...].
struct ColumnSpec {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  uint64_t RowBytes() const;  // of one row, little-endian and dense
  bool operator==(const ColumnSpec&) const = default;
};

struct ModelTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::string dtype;  // torch's name without "torch."
  UpdateRule rule = UpdateRule::kOpt;
  std::vector<std::string> aliases;
  bool persistent = true;
  bool requires_grad = true;
};

struct ModelDescription {
  std::vector<ColumnSpec> inputs;  // arguments of forward, in order
  std::optional<ColumnSpec> label;
  std::vector<ColumnSpec> outputs;  // what forward returns: a tensor, a tuple or a dict
  std::string loss;                 // "cross_entropy" | "bce_with_logits" | "mse" | "method:<name>"
  std::vector<ModelTensor> tensors;

  // The method that returns one loss a row, or empty for the losses that Ballast computes from outputs[0].
  std::string LossMethod() const;
};

// Errors: InvalidArgument, with what is wrong, for anything that is not a description of format 1.
absl::StatusOr<ModelDescription> ParseDescription(std::string_view json);

// Bytes of one element of a torch dtype; 0 for a name that is not supported.
uint64_t DTypeBytes(std::string_view torch_dtype);

// The description's tensors as a run keeps them (group 0).
std::vector<TensorSpec> ToTensorSpecs(const ModelDescription& description);

}  // namespace ballast

#endif  // BALLAST_WORKER_MODEL_DESCRIPTION_H_
