// Between Ballast's plain values and torch's tensors. Includes torch: only for the .cc files of this folder.
// Free functions; torch's exceptions pass through them to model.cc.
#ifndef BALLAST_WORKER_MODEL_TORCH_CONVERT_H_
#define BALLAST_WORKER_MODEL_TORCH_CONVERT_H_

#include <ATen/ATen.h>
#include <ATen/core/ivalue.h>

#include <exception>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/model/description.h"
#include "worker/model/model.h"

namespace ballast {

// REQUIRES DTypeBytes(name) > 0.
at::ScalarType ScalarTypeOf(std::string_view torch_dtype);
std::string NameOf(at::ScalarType type);

// A copy of the named column as a tensor [rows, shape...] that the module may change. Errors: InvalidArgument (missing, wrong size).
absl::StatusOr<at::Tensor> ColumnTensor(const BatchView& batch, const ColumnSpec& spec);

// What forward returned, in the order of the description: a tensor, a tuple or list of tensors, or a dict by the outputs' names.
absl::StatusOr<std::vector<at::Tensor>> OutputTensors(const c10::IValue& value, absl::Span<const ColumnSpec> outputs);

OutputTensor ToBytes(const ColumnSpec& spec, const at::Tensor& tensor);

// Dense fp32, contiguous; `tensor` itself where it already is.
at::Tensor DenseF32(const at::Tensor& tensor);
absl::Span<const float> SpanF32(const at::Tensor& dense);

// All elements are finite. REQUIRES DenseF32.
bool AllFinite(absl::Span<const float> values);

// An exception of torch as InvalidArgument: the message without stack traces, cut to a readable length.
absl::Status TorchStatus(const std::exception& e);

}  // namespace ballast

#endif  // BALLAST_WORKER_MODEL_TORCH_CONVERT_H_
