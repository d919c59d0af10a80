// core/codec: encoded blocks of the world. What CheckEncoded lets pass decodes to finite numbers; what is encoded here passes.
#include "core/codec/codec.h"

#include <cmath>
#include <vector>

#include "tests/fuzz/input.h"

namespace ballast {
namespace {

// As a block lies in a message: of exactly this size, at any address.
std::vector<char> Exactly(absl::string_view bytes) { return {bytes.begin(), bytes.end()}; }

void CheckedBlock(Codec codec, uint64_t count, absl::string_view bytes, ValueKind kind) {
  double norm2 = 0;
  const absl::Status checked = CheckEncoded(codec, count, bytes, &norm2, kind);
  if (!checked.ok()) return fuzz::CheckRefusal(checked);
  FUZZ_CHECK(bytes.size() == EncodedBytes(codec, count));
  if (!IsFloatCodec(codec)) return;
  std::vector<float> values(count), added(count, 0.0f), pieces(count);
  Decode(codec, bytes, absl::MakeSpan(values));
  DecodeAdd(codec, bytes, absl::MakeSpan(added));
  for (uint64_t first = 0; first < count; first += kGroupElems) {
    DecodeRange(codec, bytes, count, first, absl::MakeSpan(pieces).subspan(first, std::min(kGroupElems, count - first)));
  }
  double squares = 0;
  for (uint64_t i = 0; i < count; ++i) {
    FUZZ_CHECK(std::isfinite(values[i]) || (kind == ValueKind::kBuffer && std::isinf(values[i])));
    FUZZ_CHECK(values[i] == added[i] && values[i] == pieces[i]);
    squares += static_cast<double>(values[i]) * values[i];
  }
  FUZZ_CHECK(norm2 == squares || std::abs(norm2 - squares) <= 1e-5 * squares);
  FUZZ_CHECK(CountNonfinite(values, kind) == 0);
}

void EncodedHere(Codec codec, absl::string_view bytes) {
  const size_t n = bytes.size() / 8;
  if (n == 0) return;
  std::vector<float> grad(n), residual(n);
  std::memcpy(grad.data(), bytes.data(), 4 * n);
  std::memcpy(residual.data(), bytes.data() + 4 * n, 4 * n);
  bool finite = true;
  for (size_t i = 0; i < n; ++i) finite = finite && std::isfinite(grad[i] + residual[i]);
  const std::vector<float> before = residual;
  std::vector<char> out(EncodedBytes(codec, n));
  EncodeWithResidual(codec, grad, absl::MakeSpan(residual), absl::MakeSpan(out));
  const absl::string_view encoded(out.data(), out.size());
  FUZZ_CHECK(CheckEncoded(codec, n, encoded, nullptr).ok() == finite);
  if (!finite) return;
  std::vector<float> values(n);
  Decode(codec, encoded, absl::MakeSpan(values));
  for (size_t i = 0; i < n; ++i) {
    FUZZ_CHECK(std::isfinite(residual[i]));
    FUZZ_CHECK(std::abs(values[i]) <= std::numeric_limits<float>::max());
  }
}

}  // namespace
}  // namespace ballast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ballast;
  fuzz::Input in(data, size);
  const uint8_t kind = in.Byte();
  const Codec codec = static_cast<Codec>(in.Below(6));
  if (kind % 4 == 0) {
    if (IsFloatCodec(codec)) EncodedHere(codec, in.rest());
    return 0;
  }
  // Mostly a count that fits the bytes: else nothing but the length is looked at.
  uint64_t count = in.U64();
  if (kind % 4 != 1) {
    count = in.rest().size() + 1;
    while (count > 0 && EncodedBytes(codec, count) > in.rest().size()) --count;
  }
  size_t bytes = in.rest().size();
  if (kind % 4 == 3) bytes = std::min(bytes, EncodedBytes(codec, count));
  const std::vector<char> exact = Exactly(in.rest().substr(0, bytes));
  CheckedBlock(codec, count, {exact.data(), exact.size()}, in.rest().size() % 2 == 0 ? ValueKind::kGradient : ValueKind::kBuffer);
  return 0;
}
