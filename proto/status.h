// absl::Status <-> grpc::Status. The reason and metadata of core/status.h travel as google.rpc.ErrorInfo{reason, domain "ballast",
// metadata} inside google.rpc.Status, the standard place where any gRPC client looks for them. Pure functions: safe from any thread.
#ifndef BALLAST_PROTO_STATUS_H_
#define BALLAST_PROTO_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace ballast {

// What is larger than the headers that any client takes is left out: the end of a long message, then the largest metadata.
grpc::Status ToGrpc(const absl::Status& status);

// ErrorInfo of another domain is ignored; details that do not parse are ignored (the code and the message stand).
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace ballast

#endif  // BALLAST_PROTO_STATUS_H_
