// Every device that this build has, against plain loops written from docs/wire_format.md.
#include "core/kernels/kernels.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>

#include "core/codec/codec.h"
#include "core/kernels/cpu/dispatch.h"
#include "core/record/state_hash.h"
#include "gtest/gtest.h"

namespace ballast {
namespace {

std::vector<float> Random(size_t n, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(n);
  for (float& x : out) x = normal(rng);
  return out;
}

std::string Bytes(Codec codec, const std::vector<float>& x) {
  std::string out(EncodedBytes(codec, x.size()), '\0');
  Encode(codec, x, absl::MakeSpan(out.data(), out.size()));
  return out;
}

class KernelsTest : public testing::Test {
 protected:
  KernelsTest() : kernels_(std::move(*MakeKernels(Device::kCpu))) {}

  BlockState Block(DType dtype, uint64_t count, int slots) {
    state_ = *kernels_->Allocate({BlockShape{DType::kF32, 3, 1}, BlockShape{dtype, count, slots}});
    return state_.blocks[1];
  }
  void Set(const BlockState& block, const std::vector<float>& x) {
    kernels_->CopyIn(absl::string_view(reinterpret_cast<const char*>(x.data()), 4 * x.size()), -1, block);
  }
  std::vector<float> Get(const BlockState& block, int slot = -1) {
    std::vector<float> out(block.count);
    kernels_->CopyOut(block, slot, absl::MakeSpan(reinterpret_cast<char*>(out.data()), 4 * out.size()));
    return out;
  }

  std::unique_ptr<Kernels> kernels_;
  ShardState state_;
};

TEST_F(KernelsTest, OptSumsInOrderThenSteps) {
  const size_t n = 2 * 2048 + 777;  // several pieces and a tail
  const std::vector<float> w = Random(n, 1), a = Random(n, 2), b = Random(n, 3), c = Random(n, 4);
  const std::string pa = Bytes(Codec::kFp32, a), pb = Bytes(Codec::kInt8, b), pc = Bytes(Codec::kBf16, c);
  std::vector<float> db(n), dc(n);
  Decode(Codec::kInt8, pb, absl::MakeSpan(db));
  Decode(Codec::kBf16, pc, absl::MakeSpan(dc));
  Decision d;
  d.divisor = 3;
  d.clip_scale = 0.7f;
  const std::vector<float> hyper = {0.1f, 0.01f, 0.9f, 1, 0, 0, 0, 0};
  std::vector<float> first;
  for (int isa = 0; isa <= static_cast<int>(BestIsa()); ++isa) {
    ForceIsaForTest(static_cast<Isa>(isa));
    const BlockState block = Block(DType::kF32, n, 1);
    Set(block, w);
    const std::vector<EncodedPart> parts = {{Codec::kFp32, pa, 1}, {Codec::kInt8, pb, 1}, {Codec::kBf16, pc, 1}};
    kernels_->Apply({UpdateRule::kOpt, kKernelSgd, hyper, StepScale(d), parts}, block);
    const std::vector<float> got = Get(block), slot = Get(block, 0);
    for (size_t i = 0; i < n; ++i) {
      const float scale = 0.7f / 3.0f;
      float acc = a[i];
      acc += db[i];
      acc += dc[i];
      float g = acc * scale;
      g = g + 0.01f * w[i];
      const float m = 0.9f * 0.0f + 1.0f * g;
      ASSERT_EQ(slot[i], m) << i;
      ASSERT_EQ(got[i], w[i] - 0.1f * m) << i;
    }
    if (isa == 0) first = got;
    EXPECT_EQ(got, first) << "isa " << isa;
  }
  ForceIsaForTest(BestIsa());
}

TEST_F(KernelsTest, NonGradientStateFollowsItsRule) {
  const std::string p1 = Bytes(Codec::kFp32, {2, 4}), p2 = Bytes(Codec::kFp32, {10, 20});
  const std::vector<EncodedPart> parts = {{Codec::kFp32, p1, 1}, {Codec::kFp32, p2, 3}};
  BlockState block = Block(DType::kF32, 2, 0);
  Set(block, {100, 200});
  kernels_->Apply({UpdateRule::kSum, 0, {}, 1, parts}, block);
  EXPECT_EQ(Get(block), (std::vector<float>{112, 224}));
  kernels_->Apply({UpdateRule::kMean, 0, {}, 1, parts}, block);
  EXPECT_EQ(Get(block), (std::vector<float>{3, 6}));
  kernels_->Apply({UpdateRule::kSet, 0, {}, 1, parts}, block);
  EXPECT_EQ(Get(block), (std::vector<float>{10, 20}));
}

TEST_F(KernelsTest, IntegersAreExact) {
  const int64_t big = (int64_t{1} << 53) + 1;
  const int64_t one = 1;
  const std::string p1(reinterpret_cast<const char*>(&big), 8), p2(reinterpret_cast<const char*>(&one), 8);
  const std::vector<EncodedPart> parts = {{Codec::kI64, p1, 1}, {Codec::kI64, p2, 1}};
  const BlockState block = Block(DType::kI64, 1, 0);
  int64_t value = 0;
  const auto read = [&] { kernels_->CopyOut(block, -1, absl::MakeSpan(reinterpret_cast<char*>(&value), 8)); };
  kernels_->Apply({UpdateRule::kSum, 0, {}, 1, parts}, block);
  read();
  EXPECT_EQ(value, big + 1);
  kernels_->Apply({UpdateRule::kSet, 0, {}, 1, parts}, block);
  read();
  EXPECT_EQ(value, 1);
  EXPECT_EQ(kernels_->Nonfinite(block), 0u);
}

TEST_F(KernelsTest, NormOfSumIsThatOfTheSum) {
  const size_t n = 5000;
  const std::vector<float> a = Random(n, 1), b = Random(n, 2);
  const std::string pa = Bytes(Codec::kFp32, a), pb = Bytes(Codec::kFp32, b);
  double expected = 0;
  for (size_t i = 0; i < n; ++i) expected += std::pow(double{a[i] + b[i]}, 2);
  EXPECT_NEAR(kernels_->NormOfSum({{Codec::kFp32, pa, 1}, {Codec::kFp32, pb, 1}}, n), expected, 1e-9 * expected);
}

TEST_F(KernelsTest, HashCoversValuesThenSlots) {
  const BlockState block = Block(DType::kF32, 2, 2);
  Set(block, {1, 2});
  const float values[2] = {1, 2}, zeros[2] = {};
  const absl::string_view v(reinterpret_cast<const char*>(values), 8), z(reinterpret_cast<const char*>(zeros), 8);
  EXPECT_EQ(kernels_->Hash(block), BlockHash(v, {z, z}));
  EXPECT_NE(kernels_->Hash(block), BlockHash(v, {z}));
  kernels_->CopyIn(v, 1, block);
  EXPECT_EQ(kernels_->Hash(block), BlockHash(v, {z, v}));
  kernels_->ClearSlots(block);
  EXPECT_EQ(kernels_->Hash(block), BlockHash(v, {z, z}));
}

TEST_F(KernelsTest, ArraysAreAlignedAndNotAPowerOfTwoApart) {
  const ShardState s = *kernels_->Allocate({BlockShape{DType::kF32, 1 << 18, 2}, BlockShape{DType::kF32, 1 << 18, 2}});
  std::vector<const char*> arrays;
  for (const BlockState& b : s.blocks) {
    arrays.push_back(b.values);
    for (const float* slot : b.slots) arrays.push_back(reinterpret_cast<const char*>(slot));
  }
  for (const char* a : arrays) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(a) % 64, 0u);
    for (const char* b : arrays) {
      if (a < b) {
        EXPECT_NE((b - a) % 4096, 0) << "apart by " << b - a;
      }
    }
  }
}

TEST_F(KernelsTest, NonfiniteStateIsCounted) {
  const BlockState block = Block(DType::kF32, 3, 1);
  Set(block, {1, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()});
  EXPECT_EQ(kernels_->Nonfinite(block), 2u);
}

TEST_F(KernelsTest, EncodesForPulls) {
  const BlockState block = Block(DType::kF32, 300, 0);
  const std::vector<float> x = Random(300, 5);
  Set(block, x);
  for (Codec codec : {Codec::kFp32, Codec::kBf16, Codec::kInt8}) {
    std::string out(EncodedBytes(codec, 300), '\0');
    kernels_->Encode(codec, block, absl::MakeSpan(out.data(), out.size()));
    EXPECT_EQ(out, Bytes(codec, x));
  }
}

}  // namespace
}  // namespace ballast
