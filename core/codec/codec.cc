#include "core/codec/codec.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "core/kernels/cpu/dispatch.h"

static_assert(std::endian::native == std::endian::little, "the wire is little-endian; a big-endian build needs conversions here");

namespace ballast {
namespace {

constexpr uint32_t kMagnitude = 0x7fffffffu;
constexpr uint32_t kInfinity = 0x7f800000u;
// Adding 1.5 * 2^23 rounds a float of magnitude below 2^22 to the nearest even integer, which then sits in the low mantissa bits.
constexpr float kRound = 12582912.0f;

constexpr uint64_t Groups(uint64_t count) { return (count + kGroupElems - 1) / kGroupElems; }

// Largest magnitude as bits: integers compare like the floats, and a NaN or infinity comes out as >= kInfinity.
BALLAST_INLINE uint32_t MaxMagnitude(const float* __restrict x, size_t n) {
  int32_t most = 0;
  for (size_t i = 0; i < n; ++i) most = std::max(most, static_cast<int32_t>(std::bit_cast<uint32_t>(x[i]) & kMagnitude));
  return static_cast<uint32_t>(most);
}

struct Int8Scale {
  float scale;    // of decoding; 0: all codes are 0
  float inverse;  // of encoding
};

BALLAST_INLINE Int8Scale ScaleOf(uint32_t max_bits) {
  if (max_bits >= kInfinity) return {std::numeric_limits<float>::quiet_NaN(), 0};
  const float most = std::bit_cast<float>(max_bits);
  if (most < kInt8Tiny) return {0, 0};
  float scale = most / 127.0f;
  // Near the largest float, 127 * scale may round to infinity.
  if (std::bit_cast<uint32_t>(scale * 127.0f) >= kInfinity) scale = std::bit_cast<float>(std::bit_cast<uint32_t>(scale) - 1);
  return {scale, 127.0f / most};
}

// Codes of one group; with kResidual what they miss goes to `residual`.
template <bool kResidual>
BALLAST_INLINE void QuantizeGroup(const float* __restrict e, size_t n, char* __restrict scale_out, int8_t* __restrict codes,
                                  float* __restrict residual) {
  const Int8Scale s = ScaleOf(MaxMagnitude(e, n));
  std::memcpy(scale_out, &s.scale, sizeof(s.scale));
  for (size_t i = 0; i < n; ++i) {
    const float rounded = e[i] * s.inverse + kRound;
    codes[i] = static_cast<int8_t>(std::bit_cast<int32_t>(rounded) - std::bit_cast<int32_t>(kRound));
    if (kResidual) residual[i] = e[i] - (rounded - kRound) * s.scale;
  }
}

BALLAST_INLINE void Int8EncodeBody(const float* x, size_t n, char* out) {
  int8_t* codes = reinterpret_cast<int8_t*>(out) + 4 * Groups(n);
  size_t g = 0;
  for (; (g + 1) * kGroupElems <= n; ++g) {
    QuantizeGroup<false>(x + g * kGroupElems, kGroupElems, out + 4 * g, codes + g * kGroupElems, nullptr);
  }
  if (g * kGroupElems < n) QuantizeGroup<false>(x + g * kGroupElems, n - g * kGroupElems, out + 4 * g, codes + g * kGroupElems, nullptr);
}
BALLAST_DISPATCH(void, Int8Encode, (const float* x, size_t n, char* out), (x, n, out))

BALLAST_INLINE void Int8EncodeResidualBody(const float* __restrict grad, float* __restrict residual, size_t n, char* __restrict out) {
  int8_t* codes = reinterpret_cast<int8_t*>(out) + 4 * Groups(n);
  alignas(64) float e[kGroupElems];
  size_t g = 0;
  for (; (g + 1) * kGroupElems <= n; ++g) {
    const size_t at = g * kGroupElems;
    for (size_t i = 0; i < kGroupElems; ++i) e[i] = grad[at + i] + residual[at + i];
    for (size_t i = 0; i < kGroupElems; i += 16) {  // the next group, while this one is quantized
      __builtin_prefetch(grad + at + kGroupElems + i);
      __builtin_prefetch(residual + at + kGroupElems + i, 1);
    }
    QuantizeGroup<true>(e, kGroupElems, out + 4 * g, codes + at, residual + at);
  }
  const size_t at = g * kGroupElems;
  if (at == n) return;
  for (size_t i = 0; i < n - at; ++i) e[i] = grad[at + i] + residual[at + i];
  QuantizeGroup<true>(e, n - at, out + 4 * g, codes + at, residual + at);
}
BALLAST_DISPATCH(void, Int8EncodeResidual, (const float* grad, float* residual, size_t n, char* out), (grad, residual, n, out))

// `codes` and `scales` begin at the first group wanted.
template <bool kAdd>
BALLAST_INLINE void Int8Group(const int8_t* __restrict codes, float scale, size_t n, float* __restrict out) {
  for (size_t i = 0; i < n; ++i) {
    const float value = static_cast<float>(codes[i]) * scale;
    out[i] = kAdd ? out[i] + value : value;
  }
}
template <bool kAdd>
BALLAST_INLINE void Int8Decode(const char* scales, const int8_t* codes, size_t n, float* out) {
  for (size_t at = 0; at < n; at += kGroupElems, scales += 4) {
    float scale;
    std::memcpy(&scale, scales, sizeof(scale));
    if (n - at >= kGroupElems) {
      Int8Group<kAdd>(codes + at, scale, kGroupElems, out + at);
    } else {
      Int8Group<kAdd>(codes + at, scale, n - at, out + at);
    }
  }
}
BALLAST_INLINE void Int8SetBody(const char* scales, const int8_t* codes, size_t n, float* out) { Int8Decode<false>(scales, codes, n, out); }
BALLAST_INLINE void Int8AddBody(const char* scales, const int8_t* codes, size_t n, float* out) { Int8Decode<true>(scales, codes, n, out); }
BALLAST_DISPATCH(void, Int8Set, (const char* scales, const int8_t* codes, size_t n, float* out), (scales, codes, n, out))
BALLAST_DISPATCH(void, Int8Add, (const char* scales, const int8_t* codes, size_t n, float* out), (scales, codes, n, out))

// Round to nearest even; magnitudes that would round to infinity become the largest bf16, NaN and infinity become NaN.
BALLAST_INLINE uint16_t ToBf16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t magnitude = bits & kMagnitude;
  const uint32_t rounded = std::min((magnitude + 0x7fffu + ((magnitude >> 16) & 1u)) >> 16, 0x7f7fu);
  return static_cast<uint16_t>(((bits >> 16) & 0x8000u) | (magnitude < kInfinity ? rounded : 0x7fc0u));
}
BALLAST_INLINE float FromBf16(uint16_t code) { return std::bit_cast<float>(uint32_t{code} << 16); }

struct __attribute__((packed, may_alias)) U16 {  // codes sit at any address
  uint16_t v;
};
struct __attribute__((packed, may_alias)) F32 {
  float v;
};

BALLAST_INLINE void Bf16EncodeBody(const float* __restrict x, size_t n, U16* __restrict out) {
  for (size_t i = 0; i < n; ++i) out[i].v = ToBf16(x[i]);
}
BALLAST_DISPATCH(void, Bf16Encode, (const float* x, size_t n, U16* out), (x, n, out))

BALLAST_INLINE void Bf16EncodeResidualBody(const float* __restrict grad, float* __restrict residual, size_t n, U16* __restrict out) {
  for (size_t i = 0; i < n; ++i) {
    const float e = grad[i] + residual[i];
    const uint16_t code = ToBf16(e);
    out[i].v = code;
    residual[i] = e - FromBf16(code);
  }
}
BALLAST_DISPATCH(void, Bf16EncodeResidual, (const float* grad, float* residual, size_t n, U16* out), (grad, residual, n, out))

BALLAST_INLINE void Bf16SetBody(const U16* __restrict in, size_t n, float* __restrict out) {
  for (size_t i = 0; i < n; ++i) out[i] = FromBf16(in[i].v);
}
BALLAST_INLINE void Bf16AddBody(const U16* __restrict in, size_t n, float* __restrict out) {
  for (size_t i = 0; i < n; ++i) out[i] += FromBf16(in[i].v);
}
BALLAST_DISPATCH(void, Bf16Set, (const U16* in, size_t n, float* out), (in, n, out))
BALLAST_DISPATCH(void, Bf16Add, (const U16* in, size_t n, float* out), (in, n, out))

BALLAST_INLINE void Fp32EncodeResidualBody(const float* __restrict grad, float* __restrict residual, size_t n, F32* __restrict out) {
  for (size_t i = 0; i < n; ++i) {
    out[i].v = grad[i] + residual[i];
    residual[i] = 0;
  }
}
BALLAST_INLINE void Fp32AddBody(const F32* __restrict in, size_t n, float* __restrict out) {
  for (size_t i = 0; i < n; ++i) out[i] += in[i].v;
}
BALLAST_DISPATCH(void, Fp32EncodeResidual, (const float* grad, float* residual, size_t n, F32* out), (grad, residual, n, out))
BALLAST_DISPATCH(void, Fp32Add, (const F32* in, size_t n, float* out), (in, n, out))

// Largest magnitude and sum of squares of decoded values. Sixteen sums, by index modulo 16: the same order for any vector width. Vector
// types, because the compiler does not find this by itself; they compile to whatever the target has.
struct Summary {
  uint32_t max_bits = 0;
  double norm2 = 0;
};
constexpr size_t kLanes = 16;
typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef uint16_t Shorts __attribute__((vector_size(2 * kLanes)));
typedef float HalfFloats __attribute__((vector_size(2 * kLanes)));
typedef double HalfDoubles __attribute__((vector_size(4 * kLanes)));

struct LoadFp32 {
  static constexpr size_t kBytes = 4;
  BALLAST_INLINE void operator()(const char* in, Floats* out) const { std::memcpy(out, in, sizeof(*out)); }
};
struct LoadBf16 {
  static constexpr size_t kBytes = 2;
  BALLAST_INLINE void operator()(const char* in, Floats* out) const {
    Shorts codes;
    std::memcpy(&codes, in, sizeof(codes));
    const Ints bits = __builtin_convertvector(codes, Ints) << 16;
    std::memcpy(out, &bits, sizeof(*out));
  }
};

template <typename Load>
BALLAST_INLINE void AddToSummary(const char* in, Load load, Ints* most, HalfDoubles* sums) {
  Floats x;
  load(in, &x);
  Ints bits;
  std::memcpy(&bits, &x, sizeof(bits));
  bits &= static_cast<int32_t>(kMagnitude);
  *most = bits > *most ? bits : *most;
  HalfFloats half[2];
  std::memcpy(half, &x, sizeof(x));
  for (int i = 0; i < 2; ++i) {
    const HalfDoubles wide = __builtin_convertvector(half[i], HalfDoubles);
    sums[i] += wide * wide;
  }
}

template <typename Load>
BALLAST_INLINE Summary Summarize(const char* in, size_t n, Load load) {
  Ints most = {};
  HalfDoubles sums[2] = {};
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) AddToSummary(in + Load::kBytes * i, load, &most, sums);
  if (i < n) {
    char rest[Load::kBytes * kLanes] = {};
    std::memcpy(rest, in + Load::kBytes * i, Load::kBytes * (n - i));
    AddToSummary(rest, load, &most, sums);
  }
  Summary out;
  for (size_t j = 0; j < kLanes; ++j) {
    out.max_bits = std::max(out.max_bits, static_cast<uint32_t>(most[j]));
    out.norm2 += sums[j / 8][j % 8];
  }
  return out;
}
BALLAST_INLINE Summary SummarizeFp32Body(const char* in, size_t n) { return Summarize(in, n, LoadFp32()); }
BALLAST_INLINE Summary SummarizeBf16Body(const char* in, size_t n) { return Summarize(in, n, LoadBf16()); }
BALLAST_DISPATCH(Summary, SummarizeFp32, (const char* in, size_t n), (in, n))
BALLAST_DISPATCH(Summary, SummarizeBf16, (const char* in, size_t n), (in, n))

// Sum of the squares of up to 256 codes (fits easily) and the smallest code.
struct CodeSummary {
  int32_t squares;
  int32_t least;
};
BALLAST_INLINE CodeSummary SummarizeCodesBody(const int8_t* codes, size_t n) {
  int32_t squares = 0;
  int8_t least = 0;
  for (size_t i = 0; i < n; ++i) {
    squares += static_cast<int32_t>(codes[i]) * codes[i];
    least = std::min(least, codes[i]);
  }
  return {squares, least};
}
BALLAST_DISPATCH(CodeSummary, SummarizeCodes, (const int8_t* codes, size_t n), (codes, n))

absl::Status Nonfinite(absl::string_view what) { return absl::InvalidArgumentError(absl::StrCat("NONFINITE: ", what)); }

absl::Status CheckInt8(uint64_t count, absl::string_view bytes, double* norm2) {
  const int8_t* codes = reinterpret_cast<const int8_t*>(bytes.data()) + 4 * Groups(count);
  double total = 0;
  for (uint64_t g = 0; g < Groups(count); ++g) {
    float scale;
    std::memcpy(&scale, bytes.data() + 4 * g, sizeof(scale));
    if (!std::isfinite(scale * 127.0f)) return Nonfinite(absl::StrCat("scale of group ", g));
    if (std::signbit(scale)) return absl::InvalidArgumentError(absl::StrCat("BAD_BLOCK: negative scale of group ", g));
    const CodeSummary s = SummarizeCodes(codes + g * kGroupElems, std::min(kGroupElems, count - g * kGroupElems));
    if (s.least == -128) return absl::InvalidArgumentError(absl::StrCat("BAD_BLOCK: code -128 in group ", g));
    total += static_cast<double>(scale) * scale * s.squares;
  }
  *norm2 += total;
  return absl::OkStatus();
}

absl::Status CheckSummary(const Summary& s, double* norm2, ValueKind kind = ValueKind::kGradient) {
  if (s.max_bits > kInfinity) return Nonfinite("a value is NaN");
  if (s.max_bits == kInfinity && kind == ValueKind::kGradient) return Nonfinite("a value is infinite");
  *norm2 += s.norm2;
  return absl::OkStatus();
}

}  // namespace

size_t EncodedBytes(Codec codec, uint64_t count) {
  switch (codec) {
    case Codec::kFp32:
      return 4 * count;
    case Codec::kBf16:
      return 2 * count;
    case Codec::kInt8:
      return 4 * Groups(count) + count;
    case Codec::kI64:
      return 8 * count;
  }
  return 0;
}

bool IsFloatCodec(Codec codec) { return codec == Codec::kFp32 || codec == Codec::kBf16 || codec == Codec::kInt8; }

void Encode(Codec codec, absl::Span<const float> values, absl::Span<char> out) {
  switch (codec) {
    case Codec::kBf16:
      return Bf16Encode(values.data(), values.size(), reinterpret_cast<U16*>(out.data()));
    case Codec::kInt8:
      return Int8Encode(values.data(), values.size(), out.data());
    default:
      if (!values.empty()) std::memcpy(out.data(), values.data(), 4 * values.size());
  }
}

void EncodeWithResidual(Codec codec, absl::Span<const float> grad, absl::Span<float> residual, absl::Span<char> out) {
  switch (codec) {
    case Codec::kBf16:
      return Bf16EncodeResidual(grad.data(), residual.data(), grad.size(), reinterpret_cast<U16*>(out.data()));
    case Codec::kInt8:
      return Int8EncodeResidual(grad.data(), residual.data(), grad.size(), out.data());
    default:
      return Fp32EncodeResidual(grad.data(), residual.data(), grad.size(), reinterpret_cast<F32*>(out.data()));
  }
}

absl::Status CheckEncoded(Codec codec, uint64_t count, absl::string_view bytes, double* norm2, ValueKind kind) {
  if (count == 0 || count > kBlockElemsMax || EncodedBytes(codec, count) == 0 || bytes.size() != EncodedBytes(codec, count)) {
    return absl::InvalidArgumentError(
        absl::StrCat("BAD_BLOCK: ", bytes.size(), " bytes for ", count, " elements in codec ", static_cast<int>(codec)));
  }
  double ignored = 0;
  if (norm2 == nullptr) norm2 = &ignored;
  switch (codec) {
    case Codec::kFp32:
      return CheckSummary(SummarizeFp32(bytes.data(), count), norm2, kind);
    case Codec::kBf16:
      return CheckSummary(SummarizeBf16(bytes.data(), count), norm2);
    case Codec::kInt8:
      return CheckInt8(count, bytes, norm2);
    case Codec::kI64:
      break;
  }
  return absl::OkStatus();
}

void Decode(Codec codec, absl::string_view bytes, absl::Span<float> out) { DecodeRange(codec, bytes, out.size(), 0, out); }
void DecodeAdd(Codec codec, absl::string_view bytes, absl::Span<float> acc) { DecodeAddRange(codec, bytes, acc.size(), 0, acc); }

void DecodeRange(Codec codec, absl::string_view bytes, uint64_t count, uint64_t first, absl::Span<float> out) {
  switch (codec) {
    case Codec::kBf16:
      return Bf16Set(reinterpret_cast<const U16*>(bytes.data()) + first, out.size(), out.data());
    case Codec::kInt8:
      return Int8Set(bytes.data() + 4 * (first / kGroupElems), reinterpret_cast<const int8_t*>(bytes.data()) + 4 * Groups(count) + first,
                     out.size(), out.data());
    default:
      if (!out.empty()) std::memcpy(out.data(), bytes.data() + 4 * first, 4 * out.size());
  }
}

void DecodeAddRange(Codec codec, absl::string_view bytes, uint64_t count, uint64_t first, absl::Span<float> acc) {
  switch (codec) {
    case Codec::kBf16:
      return Bf16Add(reinterpret_cast<const U16*>(bytes.data()) + first, acc.size(), acc.data());
    case Codec::kInt8:
      return Int8Add(bytes.data() + 4 * (first / kGroupElems), reinterpret_cast<const int8_t*>(bytes.data()) + 4 * Groups(count) + first,
                     acc.size(), acc.data());
    default:
      return Fp32Add(reinterpret_cast<const F32*>(bytes.data()) + first, acc.size(), acc.data());
  }
}

double SumOfSquares(absl::Span<const float> values) {
  return SummarizeFp32(reinterpret_cast<const char*>(values.data()), values.size()).norm2;
}

uint64_t CountNonfinite(absl::Span<const float> values, ValueKind kind) {
  const uint32_t most = kind == ValueKind::kBuffer ? kInfinity : kInfinity - 1;
  uint64_t n = 0;
  for (float x : values) n += (std::bit_cast<uint32_t>(x) & kMagnitude) > most ? 1 : 0;
  return n;
}

}  // namespace ballast
