// The messages of run.proto <-> core/types.h. With proto/convert_control.h the only code that knows both sides.
//
// FromProto checks what the types cannot hold: an enum value that this release does not know is InvalidArgument naming the field. It also
// resolves "0 means the default", so core never sees an unset value; what a spec may contain is core/layout's ValidateSpec.
// Pure functions: safe from any thread.
#ifndef BALLAST_PROTO_CONVERT_H_
#define BALLAST_PROTO_CONVERT_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ballast/v1/run.pb.h"
#include "core/types.h"

namespace ballast {

// ---- enums ----
v1::Codec ToProto(Codec codec);
// CODEC_UNSPECIFIED gives `unspecified`. `field` is for the message.
absl::StatusOr<Codec> FromProto(v1::Codec codec, Codec unspecified, absl::string_view field);

// ---- runs ----
v1::TensorSpec ToProto(const TensorSpec& tensor);
v1::RunSpec ToProto(const RunSpec& spec);
absl::StatusOr<RunSpec> FromProto(const v1::RunSpec& spec);

v1::Block ToProto(const Block& block);

// What is fixed about a run when it is created: stored by server 0, sent to the other servers and to every session.
struct RunDefinition {
  RunSpec spec;
  uint64_t generation = 1;
  Layout layout;
};
v1::Run ToProto(const RunDefinition& run);  // the other fields of Run stay unset
// Also checks that the tensors are valid and that the layout covers them in order, once.
absl::StatusOr<RunDefinition> FromProto(const v1::Run& run);

// ---- batches and decisions ----
v1::Batch ToProto(const Batch& batch);
Batch FromProto(const v1::Batch& batch);
v1::Uid ToProto(const Uid& uid);
Uid FromProto(const v1::Uid& uid);
v1::Part ToProto(const Part& part);
Part FromProto(const v1::Part& part);
// SerializeAsString gives the canonical bytes of core/record/decision.h.
v1::Decision ToProto(const Decision& decision);
absl::StatusOr<Decision> FromProto(const v1::Decision& decision);

// ---- checkpoints and epochs ----
v1::ShardDigest ToProto(const ShardDigest& digest);
ShardDigest FromProto(const v1::ShardDigest& digest);
v1::Manifest ToProto(const Manifest& manifest);
Manifest FromProto(const v1::Manifest& manifest);
v1::EpochReport ToProto(const EpochReport& report);
EpochReport FromProto(const v1::EpochReport& report);
v1::StepTiming ToProto(const StepTiming& timing);
StepTiming FromProto(const v1::StepTiming& timing);

}  // namespace ballast

#endif  // BALLAST_PROTO_CONVERT_H_
