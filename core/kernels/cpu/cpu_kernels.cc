#include "core/kernels/cpu/cpu_kernels.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "core/codec/codec.h"
#include "core/kernels/cpu/dispatch.h"
#include "core/layout/layout.h"
#include "core/record/state_hash.h"

namespace ballast {
namespace {

// A block is worked through in pieces whose sum stays in the first-level cache between decode and optimizer.
constexpr size_t kPieceElems = 8 * kGroupElems;

// Arrays start on a cache line, and never a power of two apart: that alone halves the speed of Adam (docs/PERFORMANCE.md).
constexpr size_t kAlign = 64;
constexpr size_t kStagger = 1088;

BALLAST_INLINE void ScaleBody(float* __restrict x, float by, size_t n) {
  for (size_t i = 0; i < n; ++i) x[i] = x[i] * by;
}
BALLAST_INLINE void DivideBody(const float* __restrict x, float by, float* __restrict out, size_t n) {
  for (size_t i = 0; i < n; ++i) out[i] = x[i] / by;
}
BALLAST_INLINE void AddBody(const float* __restrict x, float* __restrict out, size_t n) {
  for (size_t i = 0; i < n; ++i) out[i] = out[i] + x[i];
}
BALLAST_DISPATCH(void, Scale, (float* x, float by, size_t n), (x, by, n))
BALLAST_DISPATCH(void, Divide, (const float* x, float by, float* out, size_t n), (x, by, out, n))
BALLAST_DISPATCH(void, Add, (const float* x, float* out, size_t n), (x, out, n))

void SumPiece(absl::Span<const EncodedPart> parts, uint64_t count, uint64_t first, absl::Span<float> acc) {
  DecodeRange(parts[0].codec, parts[0].bytes, count, first, acc);
  for (const EncodedPart& part : parts.subspan(1)) DecodeAddRange(part.codec, part.bytes, count, first, acc);
}

void ApplyI64(const BlockUpdate& update, const BlockState& block) {
  if (update.rule != UpdateRule::kSum) {
    std::memcpy(block.values, update.parts.back().bytes.data(), 8 * block.count);
    return;
  }
  uint64_t* values = reinterpret_cast<uint64_t*>(block.values);
  for (const EncodedPart& part : update.parts) {
    for (uint64_t i = 0; i < block.count; ++i) {
      uint64_t x;
      std::memcpy(&x, part.bytes.data() + 8 * i, sizeof(x));
      values[i] += x;  // modulo 2^64: order does not matter
    }
  }
}

// First touches and address look-ups of gigabytes cost less in pages of 2 MiB. Where the system has none, nothing changes.
void AdviseHugePages(char* memory, uint64_t bytes) {
  constexpr uintptr_t kHugePage = 2u << 20;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(memory) + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(memory) + bytes) / kHugePage * kHugePage;
  if (begin < end) (void)::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

class CpuKernels final : public Kernels {
 public:
  absl::StatusOr<ShardState> Allocate(absl::Span<const BlockShape> shapes) const override;

  void Apply(const BlockUpdate& update, const BlockState& block) const override {
    if (block.dtype == DType::kI64) return ApplyI64(update, block);
    float* values = reinterpret_cast<float*>(block.values);
    if (update.rule == UpdateRule::kSet)
      return Decode(update.parts.back().codec, update.parts.back().bytes, absl::MakeSpan(values, block.count));
    uint64_t rows = 0;
    for (const EncodedPart& part : update.parts) rows += part.rows;
    alignas(kAlign) float acc[kPieceElems];
    for (uint64_t first = 0; first < block.count; first += kPieceElems) {
      const size_t n = std::min<uint64_t>(kPieceElems, block.count - first);
      SumPiece(update.parts, block.count, first, absl::MakeSpan(acc, n));
      switch (update.rule) {
        case UpdateRule::kSum:
          Add(acc, values + first, n);
          break;
        case UpdateRule::kMean:
          Divide(acc, static_cast<float>(rows), values + first, n);
          break;
        default: {
          Scale(acc, update.scale, n);
          Slots slots = block.slots;
          for (float*& slot : slots) slot = slot == nullptr ? nullptr : slot + first;
          ApplyOptimizer(update.kernel_id, update.hyper, absl::MakeConstSpan(acc, n), absl::MakeSpan(values + first, n), slots);
        }
      }
    }
  }

  void ClearSlots(const BlockState& block) const override {
    for (float* slot : block.slots) {
      if (slot != nullptr) std::fill_n(slot, block.count, 0.0f);
    }
  }

  double NormOfSum(absl::Span<const EncodedPart> parts, uint64_t count) const override {
    double total = 0;
    alignas(kAlign) float acc[kPieceElems];
    for (uint64_t first = 0; first < count; first += kPieceElems) {
      const size_t n = std::min<uint64_t>(kPieceElems, count - first);
      SumPiece(parts, count, first, absl::MakeSpan(acc, n));
      total += SumOfSquares(absl::MakeConstSpan(acc, n));
    }
    return total;
  }

  void Encode(Codec codec, const BlockState& block, absl::Span<char> out) const override {
    if (block.dtype == DType::kI64) {
      std::memcpy(out.data(), block.values, 8 * block.count);
      return;
    }
    ballast::Encode(codec, absl::MakeConstSpan(reinterpret_cast<const float*>(block.values), block.count), out);
  }

  void CopyOut(const BlockState& block, int slot, absl::Span<char> out) const override {
    std::memcpy(out.data(), slot < 0 ? block.values : reinterpret_cast<const char*>(block.slots[slot]), out.size());
  }
  void CopyIn(absl::string_view in, int slot, const BlockState& block) const override {
    std::memcpy(slot < 0 ? block.values : reinterpret_cast<char*>(block.slots[slot]), in.data(), in.size());
  }

  uint64_t Hash(const BlockState& block) const override {
    std::vector<absl::string_view> slots;
    for (const float* slot : block.slots) {
      if (slot != nullptr) slots.emplace_back(reinterpret_cast<const char*>(slot), 4 * block.count);
    }
    return BlockHash(absl::string_view(block.values, ElementBytes(block.dtype) * block.count), slots);
  }

  uint64_t Nonfinite(const BlockState& block) const override {
    if (block.dtype == DType::kI64) return 0;
    uint64_t total = CountNonfinite(absl::MakeConstSpan(reinterpret_cast<const float*>(block.values), block.count));
    for (const float* slot : block.slots) {
      if (slot != nullptr) total += CountNonfinite(absl::MakeConstSpan(slot, block.count));
    }
    return total;
  }
};

absl::StatusOr<ShardState> CpuKernels::Allocate(absl::Span<const BlockShape> shapes) const {
  const auto room = [](uint64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign + kStagger; };
  uint64_t total = 0;
  for (const BlockShape& s : shapes) total += room(s.count * ElementBytes(s.dtype)) + static_cast<uint64_t>(s.slots) * room(4 * s.count);
  // calloc: large memory comes zeroed from the system, page by page when it is first written.
  char* memory = static_cast<char*>(std::calloc(total + kAlign, 1));
  if (memory == nullptr) return absl::ResourceExhaustedError(absl::StrCat("no memory for a shard's state of ", total, " bytes"));
  AdviseHugePages(memory, total);
  ShardState out;
  out.memory = std::shared_ptr<void>(memory, [](void* p) { std::free(p); });
  memory += (kAlign - reinterpret_cast<uintptr_t>(memory) % kAlign) % kAlign;
  for (const BlockShape& s : shapes) {
    BlockState& block = out.blocks.emplace_back(BlockState{s.dtype, s.count, memory, {}});
    memory += room(s.count * ElementBytes(s.dtype));
    for (int i = 0; i < s.slots; ++i, memory += room(4 * s.count)) block.slots[i] = reinterpret_cast<float*>(memory);
  }
  return out;
}

}  // namespace

std::unique_ptr<Kernels> MakeCpuKernels() { return std::make_unique<CpuKernels>(); }

}  // namespace ballast
