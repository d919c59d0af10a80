#include "server/shard/shard_values.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "core/codec/codec.h"
#include "core/layout/layout.h"
#include "core/record/chunk.h"
#include "core/record/hash.h"
#include "core/record/state_hash.h"

namespace ballast {
namespace {

// The parts that carry block `block`, in the order of the decision.
void Collect(absl::Span<const Contribution* const> parts, absl::Span<const Part> decided, size_t block, std::vector<EncodedPart>* out) {
  out->clear();
  for (size_t i = 0; i < parts.size(); ++i) {
    const Contribution::Encoded& encoded = parts[i]->blocks[block];
    if (encoded.bytes.empty()) continue;
    out->push_back({encoded.codec, encoded.bytes, decided.empty() ? 0 : decided[i].rows});
  }
}

}  // namespace

absl::StatusOr<ShardValues> ShardValues::Create(const ShardBlocks* blocks) {
  absl::StatusOr<std::unique_ptr<Kernels>> kernels = MakeKernels(Device::kCpu);
  if (!kernels.ok()) return kernels.status();
  absl::StatusOr<ShardState> state = (*kernels)->Allocate(blocks->Shapes());
  if (!state.ok()) return state.status();
  return ShardValues(blocks, *std::move(kernels), *std::move(state));
}

absl::Status ShardValues::CheckStep(const Decision& d) const {
  const RunSpec& spec = blocks_->spec();
  if (d.kind != DecisionKind::kStep) return absl::OkStatus();
  if (!IsKnownKernel(d.kernel_id) || d.kernel_id != KernelIdOf(spec.optimizer)) {
    return absl::FailedPreconditionError(absl::StrCat("decision ", d.index, " wants kernel ", d.kernel_id,
                                                      ", this run is applied with kernel ", KernelIdOf(spec.optimizer),
                                                      ": a newer release wrote it, or another run"));
  }
  const size_t want = spec.optimizer.groups.size() * kHyperPerGroup;
  if (d.hyper.size() != want) {
    return absl::FailedPreconditionError(
        absl::StrCat("decision ", d.index, " holds ", d.hyper.size(), " hyper-parameters instead of ", want));
  }
  return absl::OkStatus();
}

void ShardValues::Apply(const Decision& d, absl::Span<const Contribution* const> parts,
                        absl::FunctionRef<void(size_t block)> before_change) {
  std::vector<EncodedPart> carried;
  for (size_t b = 0; b < blocks_->size(); ++b) {
    Collect(parts, d.parts, b, &carried);
    if (carried.empty()) continue;
    before_change(b);
    BlockUpdate update;
    update.parts = carried;
    if (d.kind == DecisionKind::kInit) {
      update.rule = UpdateRule::kSet;
      kernels_->ClearSlots(state_.blocks[b]);
    } else {
      const TensorSpec& tensor = blocks_->tensor(b);
      update.rule = tensor.rule;
      update.kernel_id = d.kernel_id;
      update.hyper = absl::MakeConstSpan(d.hyper).subspan(tensor.group * kHyperPerGroup, kHyperPerGroup);
      update.scale = StepScale(d);
    }
    kernels_->Apply(update, state_.blocks[b]);
  }
}

double ShardValues::NormOfSum(absl::Span<const Contribution* const> parts) const {
  double norm2 = 0;
  std::vector<EncodedPart> carried;
  for (size_t b = 0; b < blocks_->size(); ++b) {
    if (blocks_->tensor(b).rule != UpdateRule::kOpt) continue;
    Collect(parts, {}, b, &carried);
    if (!carried.empty()) norm2 += kernels_->NormOfSum(carried, blocks_->block(b).count);
  }
  return norm2;
}

uint64_t ShardValues::Root() const {
  std::vector<uint64_t> hashes;
  hashes.reserve(blocks_->size());
  for (const BlockState& block : state_.blocks) hashes.push_back(kernels_->Hash(block));
  return RootHash(hashes);
}

std::shared_ptr<const Encoding> ShardValues::Encode(uint64_t version, Codec codec) const {
  const auto codec_of = [&](const Block& block) { return PullCodecOf(blocks_->spec().tensors[block.tensor], codec); };
  const auto fill = [&](size_t i, absl::Span<char> out) { kernels_->Encode(codec_of(blocks_->block(i)), state_.blocks[i], out); };
  return std::make_shared<const Encoding>(MakeEncoding(version, blocks_->blocks(), codec_of, fill));
}

uint64_t ShardValues::Bytes(size_t block, int slot) const {
  const uint64_t count = blocks_->block(block).count;
  return slot < 0 ? count * ElementBytes(blocks_->tensor(block).dtype) : count * sizeof(float);
}

Encoding MakeEncoding(uint64_t version, absl::Span<const Block> blocks, absl::FunctionRef<Codec(const Block&)> codec_of,
                      absl::FunctionRef<void(size_t, absl::Span<char>)> fill) {
  Encoding out;
  out.version = version;
  for (const auto& [begin, end] : GroupIntoChunks(blocks, codec_of)) {
    Encoding::Piece& piece = out.pieces.emplace_back();
    std::vector<BlockHead> heads;
    for (size_t i = begin; i < end; ++i) {
      const Block& block = blocks[i];
      const Codec codec = codec_of(block);
      const size_t bytes = EncodedBytes(codec, block.count), at = piece.payload.size();
      piece.payload.resize(at + bytes);
      fill(i, absl::MakeSpan(piece.payload).subspan(at, bytes));
      heads.push_back({block.tensor, block.first, static_cast<uint32_t>(block.count), codec, static_cast<uint32_t>(bytes),
                       Hash64(absl::string_view(piece.payload).substr(at, bytes))});
      if (piece.tensors.empty() || piece.tensors.back() != block.tensor) piece.tensors.push_back(block.tensor);
    }
    piece.head_blocks = EncodeBlockHeads(heads);
  }
  return out;
}

}  // namespace ballast
