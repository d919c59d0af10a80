#include "worker/session/chunk_values.h"

#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/codec/codec.h"

namespace ballast {

absl::Status ReadValues(const ChunkView& chunk, absl::Span<const TensorSpec> tensors, ParameterStore* store) {
  if (absl::Status status = VerifyChecksums(chunk.head, chunk.payload); !status.ok()) return status;
  const std::vector<absl::string_view> bytes = SplitPayload(chunk.head, chunk.payload);
  for (size_t i = 0; i < chunk.head.blocks.size(); ++i) {
    const BlockHead& block = chunk.head.blocks[i];
    if (block.tensor >= tensors.size()) return absl::InvalidArgumentError(absl::StrCat("values of the unknown tensor ", block.tensor));
    const uint64_t elements = store->elements(block.tensor);
    const bool integer = store->dtype(block.tensor) == DType::kI64;
    if (block.first > elements || block.count > elements - block.first || integer != (block.codec == Codec::kI64)) {
      return absl::InvalidArgumentError(absl::StrCat("values of ", tensors[block.tensor].name, " that do not fit: ", block.count, " from ",
                                                     block.first, " of ", elements));
    }
    if (integer) {
      std::memcpy(store->I64(block.tensor).data() + block.first, bytes[i].data(), bytes[i].size());
    } else {
      Decode(block.codec, bytes[i], store->F32(block.tensor).subspan(block.first, block.count));
    }
  }
  return absl::OkStatus();
}

}  // namespace ballast
