// Where the numbers of a run live: checks of a RunSpec, the cut of its tensors into blocks, the grouping of blocks into chunks.
// Called by CreateRun (checks, MakeLayout: once, the result is stored with the run) and by whoever encodes or sends blocks.
// Pure functions of their arguments: safe from any thread. Units: elements and bytes as named.
// Errors: InvalidArgument; the message names the field, the value and what is allowed.
#ifndef BALLAST_CORE_LAYOUT_LAYOUT_H_
#define BALLAST_CORE_LAYOUT_LAYOUT_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/types.h"

namespace ballast {

inline constexpr uint32_t kShardsMax = 1024;
inline constexpr uint32_t kGroupsMax = 1024;                 // parameter groups of an optimizer
inline constexpr uint64_t kRunBytesMax = uint64_t{1} << 44;  // values of all tensors, without optimizer slots
inline constexpr size_t kTensorNameBytesMax = 1024;
inline constexpr size_t kTensorDimsMax = 32;
inline constexpr size_t kChunkBlocksMax = 4096;  // bounds the head of a chunk as kChunkPayloadMax bounds its payload

// Bytes of one element as the servers store it.
uint64_t ElementBytes(DType dtype);

// Names unique (aliases included) and not empty; every dimension >= 1; no overflow; rules that fit the dtype (I64: SET or SUM).
[[nodiscard]] absl::Status ValidateTensors(absl::Span<const TensorSpec> tensors);

// Everything that CreateRun can check without looking at a model or at other runs; includes ValidateTensors.
[[nodiscard]] absl::Status ValidateSpec(const RunSpec& spec);

// Cuts tensors into blocks of at most kBlockElemsMax elements and gives each to a shard, balanced by bytes. A tensor larger than
// 1/(4 * shards) of the run is cut into pieces of about that size, so that every shard gets its share. Deterministic.
// Result: ordered by (tensor, first). REQUIRES nothing: runs ValidateTensors itself.
[[nodiscard]] absl::StatusOr<Layout> MakeLayout(absl::Span<const TensorSpec> tensors, uint32_t shards);

// The blocks of one shard, in layout order: the order of pushes, pulls and of the state hash.
std::vector<Block> BlocksOfShard(const Layout& layout, uint32_t shard);

// Codec in which a contribution carries a tensor: push_codec for OPT, exact for the others.
Codec PushCodecOf(const RunSpec& spec, const TensorSpec& tensor);
// Codec in which `asked` readers of F32 values get this tensor.
Codec PullCodecOf(const TensorSpec& tensor, Codec asked);

// Cuts `blocks` (in their order) into chunks of whole blocks: pairs [begin, end) of indices, each with a payload of at most
// kChunkPayloadMax bytes and at most kChunkBlocksMax blocks. `codec_of` names the codec in which a block travels.
std::vector<std::pair<size_t, size_t>> GroupIntoChunks(absl::Span<const Block> blocks, absl::FunctionRef<Codec(const Block&)> codec_of);

}  // namespace ballast

#endif  // BALLAST_CORE_LAYOUT_LAYOUT_H_
