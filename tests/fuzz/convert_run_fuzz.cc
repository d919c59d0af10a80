// proto/convert: RunSpec and Run from the network and from disk. What is taken comes back the same; what is valid can be laid out.
#include <google/protobuf/stubs/logging.h>

#include "core/layout/layout.h"
#include "proto/convert.h"
#include "tests/fuzz/input.h"

namespace ballast {
namespace {

constexpr uint64_t kElementsMax = uint64_t{1} << 24;  // more are valid too, but their layouts would be all that a campaign makes

void CheckLaidOut(const RunSpec& spec) {
  if (const absl::Status valid = ValidateSpec(spec); !valid.ok()) fuzz::CheckRefusal(valid);
  if (const absl::Status valid = ValidateTensors(spec.tensors); !valid.ok()) return fuzz::CheckRefusal(valid);
  uint64_t elements = 0;
  for (const TensorSpec& t : spec.tensors) elements += t.Elements();
  if (elements > kElementsMax) return;
  for (uint32_t shards : {1u, 3u}) {
    auto layout = MakeLayout(spec.tensors, shards);
    FUZZ_CHECK(layout.ok());
    const v1::Run run = ToProto(RunDefinition{spec, 1, *layout});
    const auto again = FromProto(run);
    FUZZ_CHECK(again.ok() && again->layout == *layout);
  }
}

void Spec(absl::string_view bytes) {
  v1::RunSpec message;
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  const auto spec = FromProto(message);
  if (!spec.ok()) return fuzz::CheckRefusal(spec.status());
  const std::string written = ToProto(*spec).SerializeAsString();
  v1::RunSpec reread;
  FUZZ_CHECK(reread.ParseFromString(written));
  const auto again = FromProto(reread);
  FUZZ_CHECK(again.ok() && ToProto(*again).SerializeAsString() == written);
  CheckLaidOut(*spec);
}

void Run(absl::string_view bytes) {
  v1::Run message;
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  const auto run = FromProto(message);
  if (!run.ok()) return fuzz::CheckRefusal(run.status());
  uint64_t elements = 0, covered = 0;
  for (const TensorSpec& t : run->spec.tensors) elements += t.Elements();
  for (const Block& b : run->layout) covered += b.count;
  FUZZ_CHECK(elements == covered);
  const std::string written = ToProto(*run).SerializeAsString();
  v1::Run reread;
  FUZZ_CHECK(reread.ParseFromString(written));
  const auto again = FromProto(reread);
  FUZZ_CHECK(again.ok() && ToProto(*again).SerializeAsString() == written);
}

}  // namespace
}  // namespace ballast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto quiet = google::protobuf::SetLogHandler(nullptr);
  (void)quiet;
  ballast::fuzz::Input in(data, size);
  if (in.Bool()) {
    ballast::Run(in.rest());
  } else {
    ballast::Spec(in.rest());
  }
  return 0;
}
