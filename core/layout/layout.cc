#include "core/layout/layout.h"

#include <algorithm>
#include <numeric>

#include "core/codec/codec.h"

namespace ballast {
namespace {

uint64_t CeilDiv(uint64_t a, uint64_t b) { return (a + b - 1) / b; }

// Elements of the blocks of a tensor: its even share of as few blocks as the two limits allow, rounded up to whole groups (16 elements
// where a tensor is so small that a group would be all of it).
uint64_t BlockElems(uint64_t elems, uint64_t elem_bytes, uint64_t piece_bytes) {
  const uint64_t pieces = std::max(CeilDiv(elems, kBlockElemsMax), CeilDiv(elems * elem_bytes, piece_bytes));
  const uint64_t even = CeilDiv(elems, std::max<uint64_t>(pieces, 1));
  const uint64_t unit = even >= 16 * kGroupElems ? kGroupElems : 16;
  return std::min(CeilDiv(even, unit) * unit, kBlockElemsMax);
}

Layout Cut(absl::Span<const TensorSpec> tensors, uint64_t piece_bytes) {
  Layout out;
  for (uint32_t t = 0; t < tensors.size(); ++t) {
    const uint64_t elems = tensors[t].Elements();
    const uint64_t step = BlockElems(elems, ElementBytes(tensors[t].dtype), piece_bytes);
    for (uint64_t first = 0; first < elems; first += step) out.push_back({t, first, std::min(step, elems - first), 0});
  }
  return out;
}

}  // namespace

uint64_t ElementBytes(DType dtype) { return dtype == DType::kI64 ? 8 : 4; }

absl::StatusOr<Layout> MakeLayout(absl::Span<const TensorSpec> tensors, uint32_t shards) {
  if (absl::Status s = ValidateTensors(tensors); !s.ok()) return s;
  if (shards == 0 || shards > kShardsMax) return absl::InvalidArgumentError("shards: allowed are 1 to 1024");
  uint64_t total = 0;
  for (const TensorSpec& t : tensors) total += t.Elements() * ElementBytes(t.dtype);
  Layout out = Cut(tensors, std::max<uint64_t>(total / (4 * uint64_t{shards}), 1));

  // Largest block first, each to the shard with the fewest bytes; ties by index, so that the result depends on nothing else.
  const auto bytes_of = [&](size_t i) { return out[i].count * ElementBytes(tensors[out[i].tensor].dtype); };
  std::vector<size_t> order(out.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return bytes_of(a) > bytes_of(b); });
  std::vector<uint64_t> load(shards, 0);
  for (size_t i : order) {
    const auto least = std::min_element(load.begin(), load.end());
    *least += bytes_of(i);
    out[i].shard = static_cast<uint32_t>(least - load.begin());
  }
  return out;
}

std::vector<Block> BlocksOfShard(const Layout& layout, uint32_t shard) {
  std::vector<Block> out;
  std::copy_if(layout.begin(), layout.end(), std::back_inserter(out), [&](const Block& b) { return b.shard == shard; });
  return out;
}

Codec PushCodecOf(const RunSpec& spec, const TensorSpec& tensor) {
  if (tensor.dtype == DType::kI64) return Codec::kI64;
  return tensor.rule == UpdateRule::kOpt ? spec.push_codec : Codec::kFp32;
}

Codec PullCodecOf(const TensorSpec& tensor, Codec asked) { return tensor.dtype == DType::kI64 ? Codec::kI64 : asked; }

std::vector<std::pair<size_t, size_t>> GroupIntoChunks(absl::Span<const Block> blocks, absl::FunctionRef<Codec(const Block&)> codec_of) {
  std::vector<std::pair<size_t, size_t>> out;
  size_t begin = 0;
  uint64_t bytes = 0;
  for (size_t i = 0; i < blocks.size(); ++i) {
    const uint64_t next = EncodedBytes(codec_of(blocks[i]), blocks[i].count);
    if (i > begin && (bytes + next > kChunkPayloadMax || i - begin == kChunkBlocksMax)) {
      out.emplace_back(begin, i);
      begin = i;
      bytes = 0;
    }
    bytes += next;
  }
  if (begin < blocks.size()) out.emplace_back(begin, blocks.size());
  return out;
}

}  // namespace ballast
