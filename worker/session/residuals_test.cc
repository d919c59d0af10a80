#include "worker/session/residuals.h"

#include <gtest/gtest.h>

#include <random>
#include <utility>
#include <vector>

#include "core/codec/codec.h"
#include "core/layout/layout.h"

namespace ballast {
namespace {

constexpr uint64_t kElems = 1000;

TensorSpec Tensor(const char* name, int64_t elements, UpdateRule rule = UpdateRule::kOpt, DType dtype = DType::kF32) {
  TensorSpec tensor;
  tensor.name = name;
  tensor.shape = {elements};
  tensor.rule = rule;
  tensor.dtype = dtype;
  return tensor;
}

RunSpec Spec(Codec codec) {
  RunSpec spec;
  spec.push_codec = codec;
  spec.tensors = {Tensor("w", kElems), Tensor("mean", 4, UpdateRule::kMean)};
  return spec;
}

class ResidualsTest : public testing::TestWithParam<Codec> {
 protected:
  std::vector<float> Gradient() {
    std::vector<float> values(kElems);
    for (float& v : values) v = std::normal_distribution<float>()(random_);
    return values;
  }
  std::vector<float> Decoded(const std::vector<float>& gradient) {
    std::vector<float> values(kElems);
    for (size_t i = 0; i < layout_.size() && layout_[i].tensor == 0; ++i) {
      const Block& block = layout_[i];
      std::vector<char> bytes(EncodedBytes(spec_.push_codec, block.count));
      residuals_.Encode(i, absl::MakeConstSpan(gradient).subspan(block.first, block.count), absl::MakeSpan(bytes));
      Decode(spec_.push_codec, absl::string_view(bytes.data(), bytes.size()), absl::MakeSpan(values).subspan(block.first, block.count));
    }
    return values;
  }
  std::vector<float> Residual() {
    std::vector<float> values(kElems);
    residuals_.Read(0, 0, absl::MakeSpan(values));
    return values;
  }

  std::mt19937 random_{7};
  const RunSpec spec_ = Spec(GetParam());
  const Layout layout_ = *MakeLayout(spec_.tensors, 1);
  Residuals residuals_{spec_, layout_};
};

TEST_P(ResidualsTest, AppliedPlusResidualIsTheSumOfTheGradients) {
  std::vector<double> sum(kElems), applied(kElems);
  for (int i = 0; i < 20; ++i) {
    const std::vector<float> gradient = Gradient();
    const Uid uid{1, static_cast<uint64_t>(i)};
    residuals_.Begin(uid);
    const std::vector<float> decoded = Decoded(gradient);
    residuals_.Settle(uid);
    for (size_t j = 0; j < kElems; ++j) {
      sum[j] += gradient[j];
      applied[j] += decoded[j];
    }
  }
  const std::vector<float> residual = Residual();
  for (size_t j = 0; j < kElems; ++j) EXPECT_NEAR(applied[j] + residual[j], sum[j], 1e-4);
  EXPECT_GT(residuals_.Norm(), 0);
}

TEST_P(ResidualsTest, ResidualLivesAndDiesWithItsSession) {
  residuals_.Begin({1, 1});
  Decoded(Gradient());
  const std::vector<float> before = Residual();
  const double norm = residuals_.Norm();

  residuals_.Begin({1, 2});  // a contribution that will not count takes its share back, bit for bit
  Decoded(Gradient());
  EXPECT_NE(Residual(), before);
  residuals_.Undo({1, 2});
  EXPECT_EQ(Residual(), before);
  EXPECT_EQ(residuals_.Norm(), norm);
  residuals_.Undo({1, 2});
  EXPECT_EQ(Residual(), before);

  residuals_.Settle({1, 1});
  residuals_.Undo({1, 1});
  EXPECT_EQ(Residual(), before);
  residuals_.Reset();
  EXPECT_EQ(Residual(), std::vector<float>(kElems));
  EXPECT_EQ(residuals_.Norm(), 0);
}

TEST_P(ResidualsTest, AContributionBelowOthersCanBeTakenBack) {
  std::vector<std::vector<float>> gradients, decoded;
  for (uint64_t i = 0; i < 4; ++i) {
    gradients.push_back(Gradient());
    residuals_.Begin({1, i});
    decoded.push_back(Decoded(gradients.back()));
  }
  residuals_.Undo({1, 1});
  residuals_.Undo({1, 2});
  const std::vector<float> residual = Residual();
  for (size_t j = 0; j < kElems; ++j) EXPECT_NEAR(decoded[0][j] + decoded[3][j] + residual[j], gradients[0][j] + gradients[3][j], 1e-5);
}

// A server's death can leave an earlier contribution without a receipt while a later one of the session is decided.
TEST_P(ResidualsTest, AContributionBelowOthersThatCountCanBeTakenBack) {
  std::vector<std::vector<float>> gradients, decoded;
  for (uint64_t i = 0; i < 3; ++i) {
    gradients.push_back(Gradient());
    residuals_.Begin({1, i});
    decoded.push_back(Decoded(gradients.back()));
  }
  residuals_.Settle({1, 1});
  residuals_.Settle({1, 2});
  residuals_.Undo({1, 0});
  const std::vector<float> residual = Residual();
  for (size_t j = 0; j < kElems; ++j) EXPECT_NEAR(decoded[1][j] + decoded[2][j] + residual[j], gradients[1][j] + gradients[2][j], 1e-5);
}

TEST_P(ResidualsTest, NothingIsLostInWhateverOrderTheyCountOrAreTakenBack) {
  std::vector<double> owed(kElems);  // gradients - decoded, of those that are not taken back
  std::vector<std::pair<Uid, std::vector<double>>> open;
  for (uint64_t i = 0; i < 200; ++i) {
    const Uid uid{1, i};
    const std::vector<float> gradient = Gradient();
    residuals_.Begin(uid);
    const std::vector<float> decoded = Decoded(gradient);
    std::vector<double> kept(kElems);
    for (size_t j = 0; j < kElems; ++j) owed[j] += kept[j] = static_cast<double>(gradient[j]) - decoded[j];
    open.emplace_back(uid, std::move(kept));
    while (open.size() > 3 || (!open.empty() && random_() % 2 == 0)) {
      const auto it = open.begin() + static_cast<int64_t>(random_() % open.size());
      if (random_() % 3 == 0) {
        residuals_.Undo(it->first);
        for (size_t j = 0; j < kElems; ++j) owed[j] -= it->second[j];
      } else {
        residuals_.Settle(it->first);
      }
      open.erase(it);
    }
    const std::vector<float> residual = Residual();
    for (size_t j = 0; j < kElems; j += 37) ASSERT_NEAR(residual[j], owed[j], 1e-4) << "contribution " << i << ", element " << j;
  }
}

INSTANTIATE_TEST_SUITE_P(LossyCodecs, ResidualsTest, testing::Values(Codec::kInt8, Codec::kBf16));

TEST(ExactCodecTest, HasNoResidual) {
  const RunSpec spec = Spec(Codec::kFp32);
  Residuals residuals(spec, *MakeLayout(spec.tensors, 1));
  EXPECT_FALSE(residuals.lossy());
  EXPECT_EQ(residuals.Elements(0), 0u);
}

TEST(ExactRulesTest, OnlyOptTensorsCarryOne) {
  const RunSpec spec = Spec(Codec::kInt8);
  Residuals residuals(spec, *MakeLayout(spec.tensors, 1));
  EXPECT_EQ(residuals.Elements(0), kElems);
  EXPECT_EQ(residuals.Elements(1), 0u);
}

}  // namespace
}  // namespace ballast
