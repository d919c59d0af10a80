#include "core/codec/codec.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/kernels/cpu/dispatch.h"
#include "gtest/gtest.h"

namespace ballast {
namespace {

constexpr uint32_t kSeed = 7;
constexpr Codec kFloatCodecs[] = {Codec::kFp32, Codec::kBf16, Codec::kInt8};

std::vector<float> Random(size_t n, uint32_t seed = kSeed, float scale = 1) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> out(n);
  for (float& x : out) x = normal(rng);
  return out;
}

std::string Encoded(Codec codec, const std::vector<float>& x) {
  std::string out(EncodedBytes(codec, x.size()), '\0');
  Encode(codec, x, absl::MakeSpan(out.data(), out.size()));
  return out;
}

std::vector<float> Decoded(Codec codec, const std::string& bytes, size_t n) {
  std::vector<float> out(n);
  Decode(codec, bytes, absl::MakeSpan(out));
  return out;
}

float LoadScale(const std::string& bytes, size_t group) {
  float scale;
  std::memcpy(&scale, bytes.data() + 4 * group, 4);
  return scale;
}

TEST(Codec, SizesAreThoseOfTheWireFormat) {
  EXPECT_EQ(EncodedBytes(Codec::kFp32, 1000), 4000u);
  EXPECT_EQ(EncodedBytes(Codec::kBf16, 1000), 2000u);
  EXPECT_EQ(EncodedBytes(Codec::kInt8, 1000), 1000u + 4 * 4);
  EXPECT_EQ(EncodedBytes(Codec::kInt8, 256), 260u);
  EXPECT_EQ(EncodedBytes(Codec::kInt8, 257), 265u);
  EXPECT_EQ(EncodedBytes(Codec::kI64, 3), 24u);
}

TEST(Codec, Int8BytesOfAnExample) {
  const std::string bytes = Encoded(Codec::kInt8, {127, -64, 0.5f, 1.5f, 0});  // scale 1; halves go to the even neighbour
  ASSERT_EQ(bytes.size(), 9u);
  EXPECT_EQ(LoadScale(bytes, 0), 1.0f);
  EXPECT_EQ(bytes.substr(4), std::string("\x7f\xc0\x00\x02\x00", 5));
}

TEST(Codec, Int8ErrorIsAtMostHalfAScale) {
  for (size_t n : {1u, 2u, 255u, 256u, 257u, 1000u, 4096u, 5000u}) {
    const std::vector<float> x = Random(n);
    const std::string bytes = Encoded(Codec::kInt8, x);
    const std::vector<float> y = Decoded(Codec::kInt8, bytes, n);
    for (size_t i = 0; i < n; ++i) EXPECT_LE(std::abs(x[i] - y[i]), LoadScale(bytes, i / kGroupElems) * 0.50001f) << n << " " << i;
  }
}

TEST(Codec, Int8ZeroGroupHasScaleZero) {
  std::vector<float> x(512, 0.0f);
  x[256] = 3;
  const std::string bytes = Encoded(Codec::kInt8, x);
  EXPECT_EQ(LoadScale(bytes, 0), 0.0f);
  EXPECT_EQ(Decoded(Codec::kInt8, bytes, 512)[256], 3.0f);
}

TEST(Codec, TinyAndHugeValuesStayFinite) {
  const float huge = std::numeric_limits<float>::max(), denormal = std::numeric_limits<float>::denorm_min();
  for (float x : {huge, -huge, huge / 2, 1e-30f, 1e-37f, denormal, -denormal, std::numeric_limits<float>::min()}) {
    for (Codec codec : kFloatCodecs) {
      const std::string bytes = Encoded(codec, {x, x / 3});
      double norm2 = 0;
      EXPECT_TRUE(CheckEncoded(codec, 2, bytes, &norm2).ok()) << x << " in codec " << static_cast<int>(codec);
      EXPECT_NEAR(Decoded(codec, bytes, 2)[0] / 2, x / 2, std::max(std::abs(x) * 0.005f, kInt8Tiny)) << x;
    }
  }
}

TEST(Codec, NonfiniteGradientIsRefused) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (float bad : {inf, -inf, nan, -nan}) {
    for (Codec codec : kFloatCodecs) {
      for (size_t at : {0u, 255u, 299u}) {
        std::vector<float> x = Random(300);
        x[at] = bad;
        double norm2 = 0;
        const absl::Status plain = CheckEncoded(codec, 300, Encoded(codec, x), &norm2);
        EXPECT_EQ(plain.message().substr(0, 9), "NONFINITE") << plain;
        std::vector<float> residual(300, 0.25f);
        std::string bytes(EncodedBytes(codec, 300), '\0');
        EncodeWithResidual(codec, x, absl::MakeSpan(residual), absl::MakeSpan(bytes.data(), bytes.size()));
        EXPECT_FALSE(CheckEncoded(codec, 300, bytes, &norm2).ok());
      }
    }
  }
}

TEST(Codec, BufferMayHoldInfinitiesButNoNaN) {
  const float inf = std::numeric_limits<float>::infinity();
  const auto check = [](std::vector<float> values) {
    return CheckEncoded(Codec::kFp32, values.size(), {reinterpret_cast<const char*>(values.data()), 4 * values.size()}, nullptr,
                        ValueKind::kBuffer);
  };
  EXPECT_TRUE(check({0, -inf, inf}).ok());  // an attention mask
  EXPECT_FALSE(check({0, std::numeric_limits<float>::quiet_NaN()}).ok());
  const std::vector<float> mask = {0, -inf};
  EXPECT_EQ(CountNonfinite(mask), 1u);
  EXPECT_EQ(CountNonfinite(mask, ValueKind::kBuffer), 0u);
}

TEST(Codec, Bf16RoundsToNearestEven) {
  // bf16 keeps 8 significant bits: between 1 and 2 the spacing is 2^-7.
  const std::vector<float> x = {1.0f, 1.0f + 0x1p-8f, 1.0f + 3 * 0x1p-8f, 1.0f + 0x1p-8f + 0x1p-20f, -1.0f - 0x1p-8f, 3.3895314e38f};
  const std::vector<float> y = Decoded(Codec::kBf16, Encoded(Codec::kBf16, x), x.size());
  EXPECT_EQ(y[0], 1.0f);
  EXPECT_EQ(y[1], 1.0f);
  EXPECT_EQ(y[2], 1.0f + 4 * 0x1p-8f);
  EXPECT_EQ(y[3], 1.0f + 0x1p-7f);
  EXPECT_EQ(y[4], -1.0f);
  EXPECT_EQ(y[5], 3.3895314e38f);
}

TEST(Codec, ResidualCarriesWhatTheCodesMiss) {
  for (Codec codec : kFloatCodecs) {
    const size_t n = 700;
    std::vector<float> residual(n, 0.0f), sent(n, 0.0f);
    std::vector<double> wanted(n, 0.0);
    for (uint32_t step = 0; step < 100; ++step) {
      const std::vector<float> grad = Random(n, step, 0.1f);
      std::string bytes(EncodedBytes(codec, n), '\0');
      EncodeWithResidual(codec, grad, absl::MakeSpan(residual), absl::MakeSpan(bytes.data(), bytes.size()));
      DecodeAdd(codec, bytes, absl::MakeSpan(sent));
      for (size_t i = 0; i < n; ++i) wanted[i] += grad[i];
    }
    for (size_t i = 0; i < n; ++i) EXPECT_NEAR(sent[i] + residual[i], wanted[i], 2e-5) << static_cast<int>(codec);
  }
}

TEST(Codec, WithoutResidualBothEncodersAgree) {
  const std::vector<float> x = Random(1000);
  for (Codec codec : kFloatCodecs) {
    std::vector<float> residual(1000, 0.0f);
    std::string bytes(EncodedBytes(codec, 1000), '\0');
    EncodeWithResidual(codec, x, absl::MakeSpan(residual), absl::MakeSpan(bytes.data(), bytes.size()));
    EXPECT_EQ(bytes, Encoded(codec, x));
    const std::vector<float> y = Decoded(codec, bytes, 1000);
    for (size_t i = 0; i < 1000; ++i) EXPECT_EQ(residual[i], x[i] - y[i]);
  }
}

TEST(Codec, EveryIsaGivesTheSameBits) {
  for (Codec codec : kFloatCodecs) {
    const size_t n = 3 * kGroupElems + 77;
    const std::vector<float> x = Random(n, 11, 3);
    std::string first_bytes;
    std::vector<float> first_sum, first_residual;
    double first_norm2 = 0;
    for (int isa = 0; isa <= static_cast<int>(BestIsa()); ++isa) {
      ForceIsaForTest(static_cast<Isa>(isa));
      std::vector<float> residual = Random(n, 12), sum = Random(n, 13);
      std::string bytes(EncodedBytes(codec, n) + 1, '\0');  // codes need not be aligned
      EncodeWithResidual(codec, x, absl::MakeSpan(residual), absl::MakeSpan(bytes.data() + 1, bytes.size() - 1));
      const absl::string_view view = absl::string_view(bytes).substr(1);
      DecodeAdd(codec, view, absl::MakeSpan(sum));
      double norm2 = 0;
      EXPECT_TRUE(CheckEncoded(codec, n, view, &norm2).ok());
      if (isa == 0) {
        first_bytes = bytes, first_sum = sum, first_residual = residual, first_norm2 = norm2;
        continue;
      }
      EXPECT_EQ(bytes, first_bytes) << isa;
      EXPECT_EQ(sum, first_sum) << isa;
      EXPECT_EQ(residual, first_residual) << isa;
      EXPECT_EQ(norm2, first_norm2) << isa;
    }
    ForceIsaForTest(BestIsa());
  }
}

TEST(Codec, NormIsThatOfTheDecodedValues) {
  for (Codec codec : kFloatCodecs) {
    const std::string bytes = Encoded(codec, Random(777));
    double expected = 0, norm2 = 10;
    for (float y : Decoded(codec, bytes, 777)) expected += double{y} * y;
    EXPECT_TRUE(CheckEncoded(codec, 777, bytes, &norm2).ok());
    EXPECT_NEAR(norm2 - 10, expected, 1e-4 * expected);
  }
}

TEST(Codec, RangesDecodeLikeTheWholeBlock) {
  const size_t n = 5 * kGroupElems + 9;
  for (Codec codec : kFloatCodecs) {
    const std::string bytes = Encoded(codec, Random(n));
    const std::vector<float> whole = Decoded(codec, bytes, n);
    std::vector<float> pieces(n), sums(n, 1.0f);
    for (size_t first = 0; first < n; first += 2 * kGroupElems) {
      const size_t count = std::min<size_t>(2 * kGroupElems, n - first);
      DecodeRange(codec, bytes, n, first, absl::MakeSpan(pieces).subspan(first, count));
      DecodeAddRange(codec, bytes, n, first, absl::MakeSpan(sums).subspan(first, count));
    }
    EXPECT_EQ(pieces, whole);
    for (size_t i = 0; i < n; ++i) EXPECT_EQ(sums[i], 1.0f + whole[i]);
  }
}

TEST(CheckEncoded, BadLength) {
  for (Codec codec : {Codec::kFp32, Codec::kBf16, Codec::kInt8, Codec::kI64}) {
    const std::string bytes(EncodedBytes(codec, 300), '\0');
    EXPECT_TRUE(CheckEncoded(codec, 300, bytes, nullptr).ok());
    EXPECT_FALSE(CheckEncoded(codec, 300, bytes.substr(1), nullptr).ok());
    EXPECT_FALSE(CheckEncoded(codec, 300, bytes + "x", nullptr).ok());
    EXPECT_FALSE(CheckEncoded(codec, 0, "", nullptr).ok());
  }
  EXPECT_FALSE(CheckEncoded(static_cast<Codec>(9), 1, "x", nullptr).ok());
  EXPECT_FALSE(CheckEncoded(Codec::kFp32, kBlockElemsMax + 1, std::string(4 * kBlockElemsMax + 4, '\0'), nullptr).ok());
}

TEST(CheckEncoded, NegativeOrOverflowingScale) {
  std::string bytes = Encoded(Codec::kInt8, {1, 2, 3});
  const float negative = -1, overflowing = 1e37f;
  std::memcpy(bytes.data(), &negative, 4);
  EXPECT_EQ(CheckEncoded(Codec::kInt8, 3, bytes, nullptr).message().substr(0, 9), "BAD_BLOCK");
  std::memcpy(bytes.data(), &overflowing, 4);
  EXPECT_EQ(CheckEncoded(Codec::kInt8, 3, bytes, nullptr).message().substr(0, 9), "NONFINITE");
}

TEST(CheckEncoded, CodeOutOfRange) {
  std::string bytes = Encoded(Codec::kInt8, {1, 2, 3});
  bytes[5] = '\x80';
  EXPECT_EQ(CheckEncoded(Codec::kInt8, 3, bytes, nullptr).message().substr(0, 9), "BAD_BLOCK");
}

TEST(Codec, CountsNonfiniteElements) {
  std::vector<float> x(100, 1.0f);
  x[3] = std::numeric_limits<float>::quiet_NaN();
  x[99] = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(CountNonfinite(x), 2u);
}

}  // namespace
}  // namespace ballast
