// The Open Inference Protocol (KServe v2, proto/grpc_service.proto) over the runs of the cluster: model_name is a run, model_version a
// manifest's version as a decimal number, empty for the newest. Raw and typed tensors in, raw tensors out.
// Threads: gRPC's callback threads only check and queue; `threads` threads of its own compute. The queue is bounded in requests and bytes:
// beyond it RESOURCE_EXHAUSTED (reason INFERENCE_BUSY), the client backs off.
// Errors carry google.rpc.ErrorInfo; reasons: BAD_INPUT, MODEL_NOT_FOUND, MODEL_NOT_READY, INFERENCE_BUSY, REQUEST_TOO_LARGE, STOPPING.
#ifndef BALLAST_WORKER_SERVE_INFERENCE_SERVICE_H_
#define BALLAST_WORKER_SERVE_INFERENCE_SERVICE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "grpc_service.grpc.pb.h"
#include "worker/serve/model_cache.h"

namespace ballast {

inline constexpr int kInferenceMessageBytesMax = 64 << 20;  // for ServerBuilder::SetMaxReceiveMessageSize and SetMaxSendMessageSize

inline constexpr uint32_t kForwardRowsMax = 1024;  // a request of more rows is computed in parts: rows do not see each other

struct InferenceOptions {
  int threads = 1;                                                   // requests in computation
  int queued_max = 64;                                               // requests that wait for a thread
  uint64_t queued_bytes_max = uint64_t{256} << 20;                   // of them
  uint64_t request_bytes_max = uint64_t{kInferenceMessageBytesMax};  // of one
  std::string server_name = "ballast-worker";
  std::string server_version;
};

// What the worker's metrics want to know. Called from the service's threads; must not block.
struct InferenceProbe {
  std::function<void(double seconds, int64_t rows, bool ok)> on_infer = [](double, int64_t, bool) {};
};

// Register the service with a grpc::ServerBuilder; it must outlive the server. Stop() after the server's Shutdown was begun.
class InferenceService final : public inference::GRPCInferenceService::CallbackService {
 public:
  InferenceService(InferenceOptions options, std::shared_ptr<ModelCache> cache, InferenceProbe probe = {});
  ~InferenceService() override;

  // Refuses what comes and what is queued (UNAVAILABLE), waits for what is being computed. Idempotent.
  void Stop();

  grpc::ServerUnaryReactor* ServerLive(grpc::CallbackServerContext*, const inference::ServerLiveRequest*,
                                       inference::ServerLiveResponse*) override;
  grpc::ServerUnaryReactor* ServerReady(grpc::CallbackServerContext*, const inference::ServerReadyRequest*,
                                        inference::ServerReadyResponse*) override;
  grpc::ServerUnaryReactor* ModelReady(grpc::CallbackServerContext*, const inference::ModelReadyRequest*,
                                       inference::ModelReadyResponse*) override;
  grpc::ServerUnaryReactor* ServerMetadata(grpc::CallbackServerContext*, const inference::ServerMetadataRequest*,
                                           inference::ServerMetadataResponse*) override;
  grpc::ServerUnaryReactor* ModelMetadata(grpc::CallbackServerContext*, const inference::ModelMetadataRequest*,
                                          inference::ModelMetadataResponse*) override;
  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext*, const inference::ModelInferRequest*,
                                       inference::ModelInferResponse*) override;

 private:
  class Pool;
  // Runs `call` on the pool and finishes the reactor with its status.
  grpc::ServerUnaryReactor* Queue(grpc::CallbackServerContext* context, uint64_t bytes, std::function<absl::Status()> call);

  const InferenceOptions options_;
  const std::shared_ptr<ModelCache> cache_;
  const InferenceProbe probe_;
  std::unique_ptr<Pool> pool_;
};

}  // namespace ballast

#endif  // BALLAST_WORKER_SERVE_INFERENCE_SERVICE_H_
