// core/record/decision: decisions from the log and from the network, beside protobuf's own parser: where both take the bytes they agree.
#include "core/record/decision.h"

#include <google/protobuf/stubs/logging.h>

#include "ballast/v1/run.pb.h"
#include "proto/convert.h"
#include "tests/fuzz/input.h"

namespace ballast {
namespace {

void Run(absl::string_view bytes) {
  v1::Decision message;
  const bool parsed = message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
  const auto decision = ParseDecision(bytes);
  if (!decision.ok()) {
    fuzz::CheckRefusal(decision.status());
    FUZZ_CHECK(absl::IsDataLoss(decision.status()));
    return;
  }
  const std::string canonical = EncodeDecision(*decision);
  const auto again = ParseDecision(canonical);
  FUZZ_CHECK(again.ok() && EncodeDecision(*again) == canonical);

  Decision sealed = *decision;
  SealDecision(7, sealed);
  FUZZ_CHECK(VerifyChain(7, sealed).ok() && !VerifyChain(8, sealed).ok());

  if (!parsed) return;
  const auto converted = FromProto(message);
  if (!converted.ok()) return fuzz::CheckRefusal(converted.status());
  FUZZ_CHECK(EncodeDecision(*converted) == canonical);
  FUZZ_CHECK(ToProto(*converted).SerializeAsString() == canonical);
}

}  // namespace
}  // namespace ballast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto quiet = google::protobuf::SetLogHandler(nullptr);
  (void)quiet;
  ballast::Run({reinterpret_cast<const char*>(data), size});
  return 0;
}
