// The numbers of a shard: values and optimizer slots of its blocks, and the one Apply that changes them, live and at replay alike.
// Threads: one owner. All arithmetic is core/kernels'.
#ifndef BALLAST_SERVER_SHARD_SHARD_VALUES_H_
#define BALLAST_SERVER_SHARD_SHARD_VALUES_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/kernels/kernels.h"
#include "core/types.h"
#include "server/shard/run_shard.h"
#include "server/shard/shard_blocks.h"
#include "server/shard/staging.h"
#include "server/shard/thread_team.h"

namespace ballast {

class ShardValues {
 public:
  // All zeros. `blocks` outlives it. Errors: ResourceExhausted.
  static absl::StatusOr<ShardValues> Create(const ShardBlocks* blocks);

  // Whether Apply can carry out `d`; checked before the decision is accepted. Errors: FailedPrecondition.
  absl::Status CheckStep(const Decision& d) const;

  // STEP or INIT: `parts[i]` is the contribution of d.parts[i]. Calls `before_change(block)` before each block that changes, in ascending
  // order.
  void Apply(const Decision& d, absl::Span<const Contribution* const> parts, absl::FunctionRef<void(size_t block)> before_change);

  // Apply and Root share the blocks among these threads; null: the caller does all. `team` lives until another is set.
  void ShareWork(ThreadTeam* team) { team_ = team; }

  // Squared norm of the ordered sum of the OPT tensors.
  double NormOfSum(absl::Span<const Contribution* const> parts) const;

  uint64_t Root() const;  // core/record/state_hash.h

  std::shared_ptr<const Encoding> Encode(uint64_t version, Codec codec) const;

  // One array of one block, exact: slot -1 the values. `out` has Bytes(block, slot).
  uint64_t Bytes(size_t block, int slot) const;
  void CopyOut(size_t block, int slot, absl::Span<char> out) const { kernels_->CopyOut(state_.blocks[block], slot, out); }
  void CopyIn(size_t block, int slot, absl::string_view in) { kernels_->CopyIn(in, slot, state_.blocks[block]); }

 private:
  ShardValues(const ShardBlocks* blocks, std::unique_ptr<Kernels> kernels, ShardState state)
      : blocks_(blocks), kernels_(std::move(kernels)), state_(std::move(state)) {}

  void ApplyBlock(const Decision& d, absl::Span<const Contribution* const> parts, size_t block);

  const ShardBlocks* blocks_;
  ThreadTeam* team_ = nullptr;
  std::unique_ptr<Kernels> kernels_;
  ShardState state_;
};

// Cuts `blocks` into the pieces of an Encoding; `fill(i, out)` writes block i in its codec.
Encoding MakeEncoding(uint64_t version, absl::Span<const Block> blocks, absl::FunctionRef<Codec(const Block&)> codec_of,
                      absl::FunctionRef<void(size_t, absl::Span<char>)> fill);

}  // namespace ballast

#endif  // BALLAST_SERVER_SHARD_SHARD_VALUES_H_
