// The blocks of a run that one shard owns, in layout order: what a local block index means. Constant after construction: any thread.
#ifndef BALLAST_SERVER_SHARD_SHARD_BLOCKS_H_
#define BALLAST_SERVER_SHARD_SHARD_BLOCKS_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "core/kernels/kernels.h"
#include "core/types.h"

namespace ballast {

class ShardBlocks {
 public:
  // Copies what it needs of `spec`.
  ShardBlocks(const RunSpec& spec, uint64_t generation, const Layout& layout, uint32_t shard);

  const RunSpec& spec() const { return spec_; }
  uint64_t generation() const { return generation_; }
  uint32_t shard() const { return shard_; }
  size_t size() const { return blocks_.size(); }
  const Block& block(size_t i) const { return blocks_[i]; }
  const std::vector<Block>& blocks() const { return blocks_; }
  const TensorSpec& tensor(size_t i) const { return spec_.tensors[blocks_[i].tensor]; }
  int slots(size_t i) const { return tensor(i).rule == UpdateRule::kOpt ? slots_ : 0; }
  std::vector<BlockShape> Shapes() const;

  // Local index of the block that begins at element `first` of `tensor`; -1 when this shard owns none.
  int64_t Find(uint32_t tensor, uint64_t first) const;

 private:
  const RunSpec spec_;
  const uint64_t generation_;
  const uint32_t shard_;
  const int slots_;
  std::vector<Block> blocks_;
  absl::flat_hash_map<std::pair<uint32_t, uint64_t>, size_t> index_;
};

}  // namespace ballast

#endif  // BALLAST_SERVER_SHARD_SHARD_BLOCKS_H_
