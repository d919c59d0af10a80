#include "server/shard/shard_values.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/codec/codec.h"
#include "core/layout/layout.h"
#include "core/record/chunk.h"
#include "core/record/hash.h"
#include "core/record/state_hash.h"

namespace ballast {
namespace {

bool Carried(absl::Span<const Contribution* const> parts, size_t block) {
  return std::any_of(parts.begin(), parts.end(), [&](const Contribution* part) { return !part->blocks[block].bytes.empty(); });
}

// The parts that carry block `block`, in the order of the decision.
std::vector<EncodedPart> Collect(absl::Span<const Contribution* const> parts, absl::Span<const Part> decided, size_t block) {
  std::vector<EncodedPart> out;
  for (size_t i = 0; i < parts.size(); ++i) {
    const Contribution::Encoded& encoded = parts[i]->blocks[block];
    if (!encoded.bytes.empty()) out.push_back({encoded.codec, encoded.bytes, decided.empty() ? 0 : decided[i].rows});
  }
  return out;
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
  for (size_t b = 0; b < blocks_->size(); ++b) {
    if (!Carried(parts, b)) continue;
    before_change(b);
    if (team_ == nullptr) ApplyBlock(d, parts, b);
  }
  if (team_ == nullptr) return;
  team_->ForEach(blocks_->size(), [&](size_t b) {
    if (Carried(parts, b)) ApplyBlock(d, parts, b);
  });
}

void ShardValues::ApplyBlock(const Decision& d, absl::Span<const Contribution* const> parts, size_t block) {
  const std::vector<EncodedPart> carried = Collect(parts, d.parts, block);
  BlockUpdate update;
  update.parts = carried;
  if (d.kind == DecisionKind::kInit) {
    update.rule = UpdateRule::kSet;
    kernels_->ClearSlots(state_.blocks[block]);
  } else {
    const TensorSpec& tensor = blocks_->tensor(block);
    update.rule = tensor.rule;
    update.kernel_id = d.kernel_id;
    update.hyper = absl::MakeConstSpan(d.hyper).subspan(tensor.group * kHyperPerGroup, kHyperPerGroup);
    update.scale = StepScale(d);
  }
  kernels_->Apply(update, state_.blocks[block]);
}

double ShardValues::NormOfSum(absl::Span<const Contribution* const> parts) const {
  double norm2 = 0;
  for (size_t b = 0; b < blocks_->size(); ++b) {
    if (blocks_->tensor(b).rule != UpdateRule::kOpt) continue;
    const std::vector<EncodedPart> carried = Collect(parts, {}, b);
    if (!carried.empty()) norm2 += kernels_->NormOfSum(carried, blocks_->block(b).count);
  }
  return norm2;
}

uint64_t ShardValues::Root() const {
  std::vector<uint64_t> hashes(blocks_->size());
  const auto hash = [&](size_t b) { hashes[b] = kernels_->Hash(state_.blocks[b]); };
  if (team_ != nullptr) {
    team_->ForEach(hashes.size(), hash);
  } else {
    for (size_t b = 0; b < hashes.size(); ++b) hash(b);
  }
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
