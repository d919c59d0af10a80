#include "worker/session/encoder.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "core/codec/codec.h"
#include "core/layout/layout.h"

namespace ballast {
namespace {

TensorSpec Tensor(const char* name, int64_t elements, UpdateRule rule = UpdateRule::kOpt, DType dtype = DType::kF32) {
  TensorSpec tensor;
  tensor.name = name;
  tensor.shape = {elements};
  tensor.rule = rule;
  tensor.dtype = dtype;
  return tensor;
}

struct Pushed {
  std::vector<ChunkHead> heads;
  std::map<uint32_t, std::vector<float>> values;  // by tensor, decoded
};

class EncoderTest : public testing::Test {
 protected:
  void Make(Codec codec, uint32_t shards, std::vector<TensorSpec> tensors) {
    spec_.name = "run";
    spec_.push_codec = codec;
    spec_.tensors = std::move(tensors);
    layout_ = *MakeLayout(spec_.tensors, shards);
    residuals_ = std::make_unique<Residuals>(spec_, layout_);
    shards_ = shards;
    encoder_ = std::make_unique<ContributionEncoder>(&spec_, 1, layout_, shards, residuals_.get(), nullptr,
                                                     [this](const std::shared_ptr<Outgoing>&, uint32_t) { ++ready_; });
  }

  std::vector<Pushed> Read(const Outgoing& contribution) {
    std::vector<Pushed> shards(shards_);
    for (uint32_t s = 0; s < shards_; ++s) {
      for (size_t i = 0; i < contribution.size(s); ++i) {
        const Outgoing::Chunk chunk = contribution.at(s, i);
        const std::string message = chunk.head + *chunk.payload;
        const auto view = ParseChunk(message);
        EXPECT_TRUE(view.ok()) << view.status();
        EXPECT_TRUE(VerifyChecksums(view->head, view->payload).ok());
        shards[s].heads.push_back(view->head);
        const auto bytes = SplitPayload(view->head, view->payload);
        for (size_t b = 0; b < bytes.size(); ++b) {
          const BlockHead& block = view->head.blocks[b];
          if (block.codec == Codec::kI64) continue;
          std::vector<float>& all = shards[s].values[block.tensor];
          all.resize(spec_.tensors[block.tensor].Elements());
          Decode(block.codec, bytes[b], absl::MakeSpan(all).subspan(block.first, block.count));
        }
      }
    }
    return shards;
  }

  RunSpec spec_;
  Layout layout_;
  uint32_t shards_ = 1;
  std::unique_ptr<Residuals> residuals_;
  int ready_ = 0;
  std::unique_ptr<ContributionEncoder> encoder_;
};

TEST_F(EncoderTest, SmallTensorsShareAChunk) {
  std::vector<TensorSpec> tensors;
  for (int i = 0; i < 40; ++i) tensors.push_back(Tensor(("b" + std::to_string(i)).c_str(), 100));
  Make(Codec::kInt8, 1, tensors);
  const auto out = std::make_shared<Outgoing>(Uid{5, 1}, 1);
  const std::vector<float> values(100, 1.0f);
  encoder_->Begin(out, false);
  for (uint32_t t = 0; t < 40; ++t) encoder_->OnF32(t, values);
  encoder_->Finish();
  const auto shards = Read(*out);
  ASSERT_EQ(shards[0].heads.size(), 1u);
  EXPECT_EQ(shards[0].heads[0].blocks.size(), 40u);
  EXPECT_TRUE(shards[0].heads[0].last);
  EXPECT_EQ(shards[0].heads[0].session, 5u);
}

TEST_F(EncoderTest, ChunksStayBelowTheLimitAndOnlyTheLastSaysSo) {
  Make(Codec::kFp32, 2, {Tensor("w", 3 << 20)});
  const auto out = std::make_shared<Outgoing>(Uid{1, 1}, 2);
  std::vector<float> values(3 << 20);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 1001);
  encoder_->Begin(out, false);
  encoder_->OnF32(0, values);
  encoder_->Finish();
  const auto shards = Read(*out);
  std::vector<float> sum(values.size());
  for (const Pushed& shard : shards) {
    ASSERT_GT(shard.heads.size(), 2u);
    for (size_t i = 0; i < shard.heads.size(); ++i) {
      EXPECT_EQ(shard.heads[i].index, i);
      EXPECT_EQ(shard.heads[i].last, i + 1 == shard.heads.size());
    }
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += shard.values.at(0)[i];
  }
  EXPECT_EQ(sum, values);
}

TEST_F(EncoderTest, EveryShardGetsALastChunkEvenWithoutABlock) {
  Make(Codec::kFp32, 2, {Tensor("a", 64), Tensor("b", 64)});
  const auto out = std::make_shared<Outgoing>(Uid{1, 1}, 2);
  encoder_->Begin(out, false);
  encoder_->Finish();  // no tensor was touched
  for (const Pushed& shard : Read(*out)) {
    ASSERT_EQ(shard.heads.size(), 1u);
    EXPECT_TRUE(shard.heads[0].last);
    EXPECT_TRUE(shard.heads[0].blocks.empty());
  }
  EXPECT_EQ(ready_, 2);
}

TEST_F(EncoderTest, OnlyOptTensorsAreLossyAndInitialWeightsAreExact) {
  Make(Codec::kInt8, 1, {Tensor("w", 3), Tensor("mean", 3, UpdateRule::kMean), Tensor("count", 1, UpdateRule::kSet, DType::kI64)});
  const std::vector<float> values = {0.1f, 1.0f, 100.0f};
  const std::vector<int64_t> count = {7};
  for (const bool exact : {false, true}) {
    const auto out = std::make_shared<Outgoing>(Uid{1, exact ? 2u : 1u}, 1);
    encoder_->Begin(out, exact);
    encoder_->OnF32(0, values);
    encoder_->OnF32(1, values);
    encoder_->OnI64(2, count);
    encoder_->Finish();
    const Pushed pushed = Read(*out)[0];
    EXPECT_EQ(pushed.values.at(1), values);
    EXPECT_EQ(pushed.values.at(0) == values, exact);
    EXPECT_EQ(pushed.heads[0].blocks.size(), 3u);
  }
}

TEST_F(EncoderTest, AnAbandonedContributionLeavesTheResidualAsItWas) {
  Make(Codec::kInt8, 1, {Tensor("w", 3)});
  const std::vector<float> values = {0.1f, 1.0f, 100.0f};
  encoder_->Begin(std::make_shared<Outgoing>(Uid{1, 1}, 1), false);
  encoder_->OnF32(0, values);
  encoder_->Finish();
  const double norm = residuals_->Norm();
  encoder_->Begin(std::make_shared<Outgoing>(Uid{1, 2}, 1), false);
  encoder_->OnF32(0, values);
  encoder_->Abandon();
  EXPECT_EQ(residuals_->Norm(), norm);
}

}  // namespace
}  // namespace ballast
