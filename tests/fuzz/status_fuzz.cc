// proto/status: the status of a call, with details that anybody may have put there. Code and message stand whatever the details are, and
// what was understood of them is written again.
#include "proto/status.h"

#include <google/protobuf/stubs/logging.h>

#include "core/status.h"
#include "tests/fuzz/input.h"

namespace ballast {
namespace {

void Run(fuzz::Input& in) {
  const auto code = static_cast<grpc::StatusCode>(in.Below(17));
  const std::string message = in.Text(40);
  const grpc::Status status(code, message, std::string(in.rest()));
  const absl::Status read = FromGrpc(status);
  FUZZ_CHECK(read.ok() == (code == grpc::StatusCode::OK));
  if (read.ok()) return;
  FUZZ_CHECK(static_cast<int>(read.code()) == static_cast<int>(code) && read.message() == message);
  const absl::Status again = FromGrpc(ToGrpc(read));
  FUZZ_CHECK(again.code() == read.code() && ReasonOf(again) == ReasonOf(read));
  FUZZ_CHECK(ReasonOf(read).empty() || MetadataOf(again) == MetadataOf(read));
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
