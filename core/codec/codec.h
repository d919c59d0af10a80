// How a block of numbers becomes bytes and back: fp32, bf16, int8 (one fp32 scale per 256 elements), i64. Layout: docs/wire_format.md.
// int8 is symmetric max-abs quantization after QSGD (Alistarh et al., arXiv:1610.02132) with error feedback (Seide et al., 2014).
// Used by workers (encode gradients), servers (decode contributions, encode pulls). Free functions over caller-owned memory: safe from
// any thread. The result has the same bits on every CPU: no fused multiply-add, no reassociated sums; chosen at run time among
// SSE2, AVX2 and AVX-512 builds of the same source.
//
// Every function REQUIRES that its buffers have the exact sizes named; only CheckEncoded takes bytes that nobody has checked.
#ifndef BALLAST_CORE_CODEC_CODEC_H_
#define BALLAST_CORE_CODEC_CODEC_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "core/types.h"

namespace ballast {

inline constexpr uint64_t kGroupElems = 256;  // elements that share a scale; part of the wire format, another size is another codec

// A group whose largest magnitude is below this is sent as zeros (error feedback keeps the values): no scale is ever subnormal.
inline constexpr float kInt8Tiny = 0x1p-100f;

// Bytes of `count` elements; 0 for an unknown codec. REQUIRES count <= kBlockElemsMax.
size_t EncodedBytes(Codec codec, uint64_t count);

// True for the codecs of F32 tensors.
bool IsFloatCodec(Codec codec);

// Encodes F32 values. `out` has EncodedBytes(codec, values.size()). Finite values give finite codes; a NaN or an infinity gives a code
// that CheckEncoded refuses, so a bad gradient is never hidden. bf16 saturates instead of rounding to infinity.
void Encode(Codec codec, absl::Span<const float> values, absl::Span<char> out);

// Encodes e = grad + residual and leaves e - decoded(e) in `residual` for the next contribution. fp32: residual becomes 0.
void EncodeWithResidual(Codec codec, absl::Span<const float> grad, absl::Span<float> residual, absl::Span<char> out);

// Checks bytes of the world: length, finite values and scales, scales that cannot overflow. F32 codecs: adds the squared L2 norm of
// the decoded values to *norm2 (may be null). I64: length only. Errors: InvalidArgument, message starts with "NONFINITE" or "BAD_BLOCK".
// Gradients must be finite. A buffer (kBuffer) may hold infinities, as attention masks do, but no NaN.
enum class ValueKind : uint8_t { kGradient, kBuffer };
[[nodiscard]] absl::Status CheckEncoded(Codec codec, uint64_t count, absl::string_view bytes, double* norm2,
                                        ValueKind kind = ValueKind::kGradient);

// Decodes a whole block of F32 values: out = values, or acc += values.
void Decode(Codec codec, absl::string_view bytes, absl::Span<float> out);
void DecodeAdd(Codec codec, absl::string_view bytes, absl::Span<float> acc);

// The same for elements [first, first + out.size()) of a block of `count`: kernels work through a block in pieces that stay in cache.
// REQUIRES first to be a multiple of kGroupElems.
void DecodeRange(Codec codec, absl::string_view bytes, uint64_t count, uint64_t first, absl::Span<float> out);
void DecodeAddRange(Codec codec, absl::string_view bytes, uint64_t count, uint64_t first, absl::Span<float> acc);

// Sum of squares in double, in an order that depends only on the length.
double SumOfSquares(absl::Span<const float> values);
// Elements that no healthy state holds: NaN, and infinities where they are not a buffer's.
uint64_t CountNonfinite(absl::Span<const float> values, ValueKind kind = ValueKind::kGradient);

}  // namespace ballast

#endif  // BALLAST_CORE_CODEC_CODEC_H_
