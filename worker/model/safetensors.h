// Reads weights in the safetensors format (8 bytes header length, a JSON header, the tensors' bytes) into a run's values: for
// InitSpec.weights_sha256. Format: https://huggingface.co/docs/safetensors. No libtorch. Free functions: safe from any thread.
#ifndef BALLAST_WORKER_MODEL_SAFETENSORS_H_
#define BALLAST_WORKER_MODEL_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/types.h"
#include "worker/model/parameter_store.h"

namespace ballast {

inline constexpr uint64_t kSafetensorsHeaderMax = 100u << 20;  // the format's own limit

struct SafetensorsEntry {
  std::string dtype;  // "F32", "BF16", "I64", ...
  std::vector<int64_t> shape;
  std::string_view data;  // points into the file; its length is checked against dtype and shape
};

// By name. Everything is checked against the file's size. Errors: InvalidArgument.
absl::StatusOr<std::map<std::string, SafetensorsEntry>> ParseSafetensors(std::string_view file);

// Fills every tensor of the run: by its name, else by one of its aliases; floats become fp32, integers and bools int64.
// Errors: InvalidArgument naming the tensors that are missing, have another shape or another kind of dtype, or are unknown to the run.
absl::Status LoadSafetensors(std::string_view file, absl::Span<const TensorSpec> tensors, ParameterStore* out);

}  // namespace ballast

#endif  // BALLAST_WORKER_MODEL_SAFETENSORS_H_
