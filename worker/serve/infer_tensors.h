// Between the Open Inference Protocol's tensors and a model's columns: checks datatypes, shapes and lengths against the description.
// Pure functions over caller-owned messages: safe from any thread. Every error is InvalidArgument with reason BAD_INPUT and names the
// input, what was expected and what was found.
#ifndef BALLAST_WORKER_SERVE_INFER_TENSORS_H_
#define BALLAST_WORKER_SERVE_INFER_TENSORS_H_

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpc_service.pb.h"
#include "worker/model/description.h"
#include "worker/model/model.h"

namespace ballast {

// The protocol's name of a torch dtype: "FP32" for "float32". REQUIRES DTypeBytes(torch_dtype) > 0.
std::string DatatypeOf(std::string_view torch_dtype);

// The inputs of a request as a batch. `batch` points into the request, the description and `owned`.
struct DecodedInputs {
  BatchView batch;
  std::deque<std::string> owned;  // inputs that came typed, as bytes
};
absl::StatusOr<DecodedInputs> DecodeInputs(const inference::ModelInferRequest& request, const ModelDescription& description);

// Outputs into the response, raw: those that the request names, each once, in its order, or all.
absl::Status EncodeOutputs(const inference::ModelInferRequest& request, std::vector<OutputTensor> outputs,
                           inference::ModelInferResponse* response);

// Bytes of the outputs' data.
uint64_t OutputBytes(const std::vector<OutputTensor>& outputs);

}  // namespace ballast

#endif  // BALLAST_WORKER_SERVE_INFER_TENSORS_H_
