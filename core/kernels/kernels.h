// The seam for devices: all arithmetic on the values of a shard goes through this interface. The CPU implementation (core/kernels/cpu) is
// the truth; any other must give the same bits for the same kernel_id. Called by a shard's owner thread; implementations keep no state, so
// calls on different blocks may run at the same time.
#ifndef BALLAST_CORE_KERNELS_KERNELS_H_
#define BALLAST_CORE_KERNELS_KERNELS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "core/optimizer/optimizer.h"
#include "core/types.h"

namespace ballast {

// One block's numbers in the memory of the device. A view: ShardState owns the memory. Slots are null where the block has none.
struct BlockState {
  DType dtype = DType::kF32;
  uint64_t count = 0;
  char* values = nullptr;  // count * ElementBytes(dtype) bytes, aligned to 64
  Slots slots{};           // count floats each
};

// What to allocate for one block: `slots` is 0 for everything but OPT tensors.
struct BlockShape {
  DType dtype = DType::kF32;
  uint64_t count = 0;
  int slots = 0;
};

// All blocks of a shard, values and slots zero at first. Copies share the memory.
struct ShardState {
  std::vector<BlockState> blocks;
  std::shared_ptr<void> memory;
};

// One block of one contribution, checked before (CheckEncoded).
struct EncodedPart {
  Codec codec = Codec::kFp32;
  absl::string_view bytes;  // EncodedBytes(codec, count); host memory
  uint64_t rows = 0;        // Part.rows
};

// What one decision does to one block. Only the parts that carry the block, in the order of the decision; never empty (a block that no part
// carries is left alone: the caller skips it). An INIT decision is rule SET for every block, and ClearSlots.
//   OPT   acc = part 0, then acc += part 1, ...;  g = acc * scale;  ApplyOptimizer
//   SUM   acc as above;  value = value + acc                      (I64: modulo 2^64)
//   MEAN  acc as above (parts carry rows * value);  value = acc / float(sum of the rows of these parts)
//   SET   value = the last part
struct BlockUpdate {
  UpdateRule rule = UpdateRule::kOpt;
  uint32_t kernel_id = 0;         // OPT only
  absl::Span<const float> hyper;  // OPT only: kHyperPerGroup floats of the tensor's group
  float scale = 1;                // OPT only: StepScale(decision)
  absl::Span<const EncodedPart> parts;
};

// clip_scale / divisor, one fp32 division: what the sum of contributions is multiplied by.
inline float StepScale(const Decision& d) { return d.clip_scale / d.divisor; }

class Kernels {
 public:
  virtual ~Kernels() = default;

  // Errors: ResourceExhausted with the bytes asked for.
  virtual absl::StatusOr<ShardState> Allocate(absl::Span<const BlockShape> shapes) const = 0;

  // Decode, ordered sum and update rule in one pass. REQUIRES parts of the block's size and dtype; SUM, MEAN, SET: exact codecs.
  virtual void Apply(const BlockUpdate& update, const BlockState& block) const = 0;
  virtual void ClearSlots(const BlockState& block) const = 0;

  // Squared norm of the ordered sum of `parts` (F32, `count` elements): for clipping by the global norm.
  virtual double NormOfSum(absl::Span<const EncodedPart> parts, uint64_t count) const = 0;

  // The values in `codec` for a pull. `out` (host memory) has EncodedBytes(codec, block.count).
  virtual void Encode(Codec codec, const BlockState& block, absl::Span<char> out) const = 0;

  // Exact copies for checkpoints and recovery. `slot` -1: the values; 0, 1: that slot. `out`, `in`: its bytes, little-endian, host memory.
  virtual void CopyOut(const BlockState& block, int slot, absl::Span<char> out) const = 0;
  virtual void CopyIn(absl::string_view in, int slot, const BlockState& block) const = 0;

  // Block hash of core/record/state_hash.h: values, then each slot.
  virtual uint64_t Hash(const BlockState& block) const = 0;
  // F32 values and slots that are NaN or infinite.
  virtual uint64_t Nonfinite(const BlockState& block) const = 0;
};

enum class Device { kCpu };

// Never null for a device that this build contains. Errors: Unimplemented.
absl::StatusOr<std::unique_ptr<Kernels>> MakeKernels(Device device);

}  // namespace ballast

#endif  // BALLAST_CORE_KERNELS_KERNELS_H_
