// proto/status: the status of a call, with details that anybody may have put there. Code and message stand whatever the details are, and
// what was understood of them is written again.
#include "proto/status.h"

#include <google/protobuf/stubs/logging.h>

#include "core/status.h"
#include "tests/fuzz/input.h"

namespace ballast {
namespace {

constexpr size_t kReasonBytesMax = 100;
constexpr size_t kTrailerBytesMax = 8192;  // that gRPC takes by default, of headers and all

void Run(fuzz::Input& in) {
  const auto code = static_cast<grpc::StatusCode>(in.Below(17));
  const std::string message = in.Text(40);
  const grpc::Status status(code, message, std::string(in.rest()));
  const absl::Status read = FromGrpc(status);
  FUZZ_CHECK(read.ok() == (code == grpc::StatusCode::OK));
  if (read.ok()) return;
  FUZZ_CHECK(static_cast<int>(read.code()) == static_cast<int>(code) && read.message() == message);
  const grpc::Status written = ToGrpc(read);
  if (ReasonOf(read).size() > kReasonBytesMax) return;  // none of ours
  FUZZ_CHECK((written.error_details().size() + 2) / 3 * 4 <= kTrailerBytesMax);
  const absl::Status again = FromGrpc(written);
  FUZZ_CHECK(again.code() == read.code() && ReasonOf(again) == ReasonOf(read));
  for (const auto& [key, value] : MetadataOf(again)) FUZZ_CHECK(MetadataOf(read).at(key) == value);
}

}  // namespace
}  // namespace ballast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto quiet = google::protobuf::SetLogHandler(nullptr);
  (void)quiet;
  ballast::fuzz::Input in(data, size);
  ballast::Run(in);
  return 0;
}
