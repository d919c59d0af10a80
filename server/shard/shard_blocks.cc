#include "server/shard/shard_blocks.h"

#include "core/layout/layout.h"
#include "core/optimizer/optimizer.h"

namespace ballast {

ShardBlocks::ShardBlocks(const RunSpec& spec, uint64_t generation, const Layout& layout, uint32_t shard)
    : spec_(spec), generation_(generation), shard_(shard), slots_(SlotsOf(spec.optimizer)), blocks_(BlocksOfShard(layout, shard)) {
  for (size_t i = 0; i < blocks_.size(); ++i) index_.emplace(std::make_pair(blocks_[i].tensor, blocks_[i].first), i);
}

std::vector<BlockShape> ShardBlocks::Shapes() const {
  std::vector<BlockShape> shapes;
  shapes.reserve(size());
  for (size_t i = 0; i < size(); ++i) shapes.push_back({tensor(i).dtype, blocks_[i].count, slots(i)});
  return shapes;
}

int64_t ShardBlocks::Find(uint32_t tensor, uint64_t first) const {
  const auto it = index_.find(std::make_pair(tensor, first));
  return it == index_.end() ? -1 : static_cast<int64_t>(it->second);
}

}  // namespace ballast
