// ParamClient over the Shard service: one Push and one Pull stream a server, raw byte buffers, one completion queue and one thread.
// Payloads go to the transport by reference and land in the ParameterStore without an object in between.
// A push that a server refuses for a passing reason (it restarts, its run is not open yet) is sent again; every chunk that comes is checked
// (lengths, checksums, that all blocks are there) before it counts.
#ifndef BALLAST_WORKER_SESSION_GRPC_PARAM_CLIENT_H_
#define BALLAST_WORKER_SESSION_GRPC_PARAM_CLIENT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/types.h"
#include "worker/metrics.h"
#include "worker/session/cluster.h"
#include "worker/session/param_client.h"

namespace ballast {

struct GrpcParamClientOptions {
  std::shared_ptr<const RunSpec> spec;
  uint64_t generation = 1;
  Layout layout;
  uint32_t shards = 1;
};

// `cluster`, `events` and `metrics` outlive the client. Destroying it cancels the streams and waits for its thread.
std::unique_ptr<ParamClient> MakeGrpcParamClient(GrpcParamClientOptions options, Cluster* cluster, ParamEvents* events,
                                                 WorkerMetrics* metrics);

}  // namespace ballast

#endif  // BALLAST_WORKER_SESSION_GRPC_PARAM_CLIENT_H_
