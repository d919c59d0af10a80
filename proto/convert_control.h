// The messages of control.proto's streams <-> core/coordinator/coordinator.h, for server/coordinator and worker/session. As
// proto/convert.h: pure functions, unknown enum values are InvalidArgument naming the field.
#ifndef BALLAST_PROTO_CONVERT_CONTROL_H_
#define BALLAST_PROTO_CONVERT_CONTROL_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "ballast/v1/control.pb.h"
#include "core/coordinator/coordinator.h"
#include "core/types.h"
#include "proto/convert.h"

namespace ballast {

// ---- runs and epochs ----
// Adds state and counters to `run`; spec, layout, plan and created stay as they are.
void SetStatus(const RunStatus& status, v1::Run* run);
EpochRecord FromProto(const v1::Epoch& epoch);
v1::Epoch ToProto(const std::string& run, const EpochRecord& epoch);  // less committed and report
std::vector<Coordinator::PartitionCount> FromProto(const v1::EpochCounts& counts);
void SetFeedState(const FeedState& state, v1::FeedPlace* place);

// ---- Work ----
v1::Receipt ToProto(const Receipt& receipt);
Receipt FromProto(const v1::Receipt& receipt);
v1::WorkUp::Submit ToProto(const Submission& submission);
Submission FromProto(const v1::WorkUp::Submit& submit);
v1::WorkDown ToProto(const SessionMessage& message);
// Everything but Welcome, which has no counterpart in core (InvalidArgument, as an empty message).
absl::StatusOr<SessionMessage> FromProto(const v1::WorkDown& message);

// ---- Follow ----
v1::ShardUp::Position ToProto(const std::string& run, uint64_t generation, const ShardPosition& position);  // less shard and incarnation
ShardPosition FromProto(uint32_t shard, uint64_t incarnation, const v1::ShardUp::Position& position);
v1::ShardDown ToProto(const std::string& run, const ShardMessage& message);
// decision, norm_query and manifest; the rest has no counterpart in core (InvalidArgument).
absl::StatusOr<ShardMessage> FromProto(const v1::ShardDown& message);

}  // namespace ballast

#endif  // BALLAST_PROTO_CONVERT_CONTROL_H_
