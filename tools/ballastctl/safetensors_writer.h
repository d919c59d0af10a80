// Writes a state dict in the safetensors format (https://huggingface.co/docs/safetensors, version 0.4 of the format):
// 8-byte little-endian header length, JSON header, tensors one after another without holes.
// One file up to `file_bytes_max`, else numbered files with model.safetensors.index.json.
#ifndef BALLAST_TOOLS_BALLASTCTL_SAFETENSORS_WRITER_H_
#define BALLAST_TOOLS_BALLASTCTL_SAFETENSORS_WRITER_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ballast::ctl {

struct ExportTensor {
  std::string name;
  std::string source_dtype;  // torch's name: "float32", "int64", "bool", ...
  std::vector<int64_t> shape;
  const std::string* values = nullptr;  // fp32 or int64, little-endian, as the servers keep them
};

inline constexpr uint64_t kExportFileBytesMax = uint64_t{5} << 30;

// Converts to the source dtype and writes into `dir` (made if missing). Returns the files written, in order.
// Errors: InvalidArgument for a dtype that the format has no name for, and for names that it cannot hold; PermissionDenied when a file
// cannot be written.
absl::StatusOr<std::vector<std::string>> WriteSafetensors(const std::string& dir, const std::vector<ExportTensor>& tensors,
                                                          const std::map<std::string, std::string>& metadata,
                                                          uint64_t file_bytes_max = kExportFileBytesMax);

}  // namespace ballast::ctl

#endif  // BALLAST_TOOLS_BALLASTCTL_SAFETENSORS_WRITER_H_
