#include "core/layout/layout.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <tuple>

#include "core/codec/codec.h"
#include "gtest/gtest.h"

namespace ballast {
namespace {

TensorSpec Tensor(std::string name, std::vector<int64_t> shape, DType dtype = DType::kF32) {
  TensorSpec t;
  t.name = std::move(name);
  t.shape = std::move(shape);
  t.dtype = dtype;
  t.rule = dtype == DType::kI64 ? UpdateRule::kSet : UpdateRule::kOpt;
  return t;
}

// The demo's model, roughly: one embedding holds nine tenths of the parameters.
std::vector<TensorSpec> Demo() {
  std::vector<TensorSpec> out = {Tensor("embed", {16384, 64})};
  for (int layer = 0; layer < 2; ++layer) {
    const std::string p = "layer" + std::to_string(layer);
    out.push_back(Tensor(p + ".in", {192, 64}));
    out.push_back(Tensor(p + ".in_bias", {192}));
    out.push_back(Tensor(p + ".ff1", {256, 64}));
    out.push_back(Tensor(p + ".ff2", {64, 256}));
    out.push_back(Tensor(p + ".norm", {64}));
  }
  out.push_back(Tensor("steps", {}, DType::kI64));
  return out;
}

std::vector<uint64_t> Load(const std::vector<TensorSpec>& tensors, const Layout& layout, uint32_t shards) {
  std::vector<uint64_t> load(shards, 0);
  for (const Block& b : layout) load[b.shard] += b.count * ElementBytes(tensors[b.tensor].dtype);
  return load;
}

void ExpectCovers(const std::vector<TensorSpec>& tensors, const Layout& layout) {
  uint32_t tensor = 0;
  uint64_t next = 0;
  for (const Block& b : layout) {
    if (b.tensor != tensor) {
      EXPECT_EQ(next, tensors[tensor].Elements());
      EXPECT_EQ(b.tensor, tensor + 1);
      tensor = b.tensor;
      next = 0;
    }
    EXPECT_EQ(b.first, next);
    EXPECT_GE(b.count, 1u);
    EXPECT_LE(b.count, kBlockElemsMax);
    next += b.count;
  }
  EXPECT_EQ(tensor + 1, tensors.size());
  EXPECT_EQ(next, tensors.back().Elements());
}

TEST(Layout, EveryShardGetsItsShare) {
  for (uint32_t shards : {1u, 2u, 3u, 4u, 7u}) {
    const std::vector<TensorSpec> tensors = Demo();
    const Layout layout = *MakeLayout(tensors, shards);
    ExpectCovers(tensors, layout);
    const std::vector<uint64_t> load = Load(tensors, layout, shards);
    const uint64_t total = std::accumulate(load.begin(), load.end(), uint64_t{0});
    for (uint64_t bytes : load)
      EXPECT_NEAR(static_cast<double>(bytes), static_cast<double>(total) / shards, 0.25 * static_cast<double>(total) / shards) << shards;
  }
}

TEST(Layout, OneSmallTensorIsStillSplit) {
  const std::vector<TensorSpec> tensors = {Tensor("counter", {1000})};
  const Layout layout = *MakeLayout(tensors, 2);
  ExpectCovers(tensors, layout);
  const std::vector<uint64_t> load = Load(tensors, layout, 2);
  EXPECT_GE(load[0], 1600u);
  EXPECT_GE(load[1], 1600u);
}

TEST(Layout, IsDeterministicAndOrdered) {
  const Layout a = *MakeLayout(Demo(), 3), b = *MakeLayout(Demo(), 3);
  EXPECT_EQ(a, b);
  EXPECT_TRUE(std::is_sorted(a.begin(), a.end(),
                             [](const Block& x, const Block& y) { return std::tie(x.tensor, x.first) < std::tie(y.tensor, y.first); }));
}

TEST(Layout, LargeTensorsBecomeBlocksOfTheLimit) {
  const std::vector<TensorSpec> tensors = {Tensor("w", {5, 1 << 18})};
  const Layout layout = *MakeLayout(tensors, 1);
  ExpectCovers(tensors, layout);
  EXPECT_EQ(layout.size(), 5u);
  EXPECT_EQ(layout[0].count, kBlockElemsMax);
}

TEST(Layout, RefusesAnImpossibleNumberOfShards) {
  EXPECT_FALSE(MakeLayout(Demo(), 0).ok());
  EXPECT_FALSE(MakeLayout(Demo(), kShardsMax + 1).ok());
}

TEST(Chunks, SmallTensorsShareAChunk) {
  std::vector<TensorSpec> tensors;
  for (int i = 0; i < 100; ++i) tensors.push_back(Tensor("b" + std::to_string(i), {100}));
  const Layout layout = *MakeLayout(tensors, 1);
  EXPECT_EQ(GroupIntoChunks(layout, [](const Block&) { return Codec::kFp32; }).size(), 1u);
}

TEST(Chunks, PayloadStaysBelowTheLimit) {
  const std::vector<TensorSpec> tensors = {Tensor("w", {40, 1 << 18}), Tensor("b", {77})};
  const Layout layout = *MakeLayout(tensors, 1);
  for (Codec codec : {Codec::kFp32, Codec::kBf16, Codec::kInt8}) {
    size_t next = 0;
    const auto chunks = GroupIntoChunks(layout, [&](const Block&) { return codec; });
    for (const auto& [begin, end] : chunks) {
      EXPECT_EQ(begin, next);
      next = end;
      uint64_t bytes = 0;
      for (size_t i = begin; i < end; ++i) bytes += EncodedBytes(codec, layout[i].count);
      EXPECT_LE(bytes, kChunkPayloadMax);
    }
    EXPECT_EQ(next, layout.size());
    EXPECT_LE(chunks.size(), codec == Codec::kFp32 ? 41u : codec == Codec::kBf16 ? 21u : 11u);
  }
  EXPECT_TRUE(GroupIntoChunks({}, [](const Block&) { return Codec::kFp32; }).empty());
}

TEST(Chunks, NumberOfBlocksIsBounded) {
  std::vector<Block> blocks(2 * kChunkBlocksMax + 1, Block{0, 0, 1, 0});
  EXPECT_EQ(GroupIntoChunks(blocks, [](const Block&) { return Codec::kFp32; }).size(), 3u);
}

TEST(Layout, BlocksOfAShardKeepTheirOrder) {
  const Layout layout = *MakeLayout(Demo(), 2);
  const std::vector<Block> a = BlocksOfShard(layout, 0), b = BlocksOfShard(layout, 1);
  EXPECT_EQ(a.size() + b.size(), layout.size());
  for (const Block& block : a) EXPECT_EQ(block.shard, 0u);
}

TEST(Codecs, OnlyGradientsAreQuantized) {
  RunSpec spec;
  spec.push_codec = Codec::kInt8;
  TensorSpec t = Tensor("w", {2});
  EXPECT_EQ(PushCodecOf(spec, t), Codec::kInt8);
  t.rule = UpdateRule::kMean;
  EXPECT_EQ(PushCodecOf(spec, t), Codec::kFp32);
  EXPECT_EQ(PullCodecOf(t, Codec::kBf16), Codec::kBf16);
  t.dtype = DType::kI64;
  EXPECT_EQ(PushCodecOf(spec, t), Codec::kI64);
  EXPECT_EQ(PullCodecOf(t, Codec::kBf16), Codec::kI64);
}

}  // namespace
}  // namespace ballast
