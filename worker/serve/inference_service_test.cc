// The service behind a real gRPC server; what it serves comes from a FakeModelSource. tritonclient_test.py asks it with a foreign client.
#include "worker/serve/inference_service.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "absl/synchronization/notification.h"
#include "core/status.h"
#include "proto/status.h"
#include "worker/serve/fake_model_source.h"

namespace ballast {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class InferenceServiceTest : public ::testing::Test {
 protected:
  void Start(InferenceOptions options = {}) {
    source_->SetVersions("mlp", {8, 5});
    service_ = std::make_unique<InferenceService>(options, std::make_shared<ModelCache>(ModelCacheOptions{}, source_));
    grpc::ServerBuilder builder;
    builder.SetMaxReceiveMessageSize(kInferenceMessageBytesMax);
    builder.RegisterService(service_.get());
    server_ = builder.BuildAndStart();
    stub_ = inference::GRPCInferenceService::NewStub(server_->InProcessChannel({}));
  }
  void TearDown() override {
    if (server_ == nullptr) return;
    service_->Stop();
    server_->Shutdown();
  }

  absl::Status Infer(const inference::ModelInferRequest& request, inference::ModelInferResponse* response) {
    grpc::ClientContext context;
    return FromGrpc(stub_->ModelInfer(&context, request, response));
  }
  std::string Refused(const inference::ModelInferRequest& request) {
    inference::ModelInferResponse response;
    const absl::Status status = Infer(request, &response);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_EQ(ReasonOf(status), "BAD_INPUT");
    return std::string(status.message());
  }

  // Two rows of 6 numbers, raw.
  static inference::ModelInferRequest Request() {
    inference::ModelInferRequest request;
    request.set_model_name("mlp");
    request.set_id("42");
    auto* x = request.add_inputs();
    x->set_name("x");
    x->set_datatype("FP32");
    x->add_shape(2);
    x->add_shape(6);
    request.add_raw_input_contents(std::string(2 * 6 * sizeof(float), '\0'));
    return request;
  }

  std::shared_ptr<FakeModelSource> source_ = std::make_shared<FakeModelSource>();
  std::unique_ptr<InferenceService> service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<inference::GRPCInferenceService::Stub> stub_;
};

TEST_F(InferenceServiceTest, RawAndTypedInputsGiveTheSameScores) {
  Start();
  inference::ModelInferRequest raw = Request(), typed = Request();
  typed.clear_raw_input_contents();
  std::vector<float> x(12);
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = 0.25f * static_cast<float>(i);
    typed.mutable_inputs(0)->mutable_contents()->add_fp32_contents(x[i]);
  }
  raw.mutable_raw_input_contents(0)->assign(reinterpret_cast<const char*>(x.data()), x.size() * sizeof(float));
  inference::ModelInferResponse a, b;
  ASSERT_TRUE(Infer(raw, &a).ok());
  ASSERT_TRUE(Infer(typed, &b).ok());
  EXPECT_EQ(a.SerializeAsString(), b.SerializeAsString());
  EXPECT_EQ(a.model_name(), "mlp");
  EXPECT_EQ(a.model_version(), "8");
  EXPECT_EQ(a.id(), "42");
  ASSERT_EQ(a.outputs_size(), 1);
  EXPECT_EQ(a.outputs(0).name(), "output");
  EXPECT_EQ(a.outputs(0).datatype(), "FP32");
  EXPECT_THAT(a.outputs(0).shape(), ElementsAre(2, 5));
  EXPECT_EQ(a.raw_output_contents(0).size(), 2 * 5 * sizeof(float));
  raw.set_model_version("5");
  ASSERT_TRUE(Infer(raw, &b).ok());
  EXPECT_EQ(b.model_version(), "5");
}

TEST_F(InferenceServiceTest, ManyRowsAreComputedInParts) {
  Start();
  constexpr int kRows = 2 * kForwardRowsMax + 3;
  std::vector<float> x(size_t{kRows} * 6);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 97) * 0.125f;
  const auto part = [&](size_t first, size_t rows) {
    inference::ModelInferRequest request = Request();
    request.mutable_inputs(0)->set_shape(0, static_cast<int64_t>(rows));
    request.mutable_raw_input_contents(0)->assign(reinterpret_cast<const char*>(x.data() + first * 6), rows * 6 * sizeof(float));
    return request;
  };
  inference::ModelInferResponse all, last;
  ASSERT_TRUE(Infer(part(0, kRows), &all).ok());
  EXPECT_THAT(all.outputs(0).shape(), ElementsAre(kRows, 5));
  ASSERT_TRUE(Infer(part(kRows - 3, 3), &last).ok());
  ASSERT_EQ(all.raw_output_contents(0).size(), kRows * 5 * sizeof(float));
  EXPECT_EQ(all.raw_output_contents(0).substr((kRows - 3) * 5 * sizeof(float)), last.raw_output_contents(0));
}

TEST_F(InferenceServiceTest, WrongInputsAreNamed) {
  Start();
  auto request = Request();
  request.mutable_inputs(0)->set_datatype("FP64");
  EXPECT_EQ(Refused(request), "input x: datatype FP64, expected FP32");
  request = Request();
  request.mutable_inputs(0)->set_shape(1, 7);
  EXPECT_EQ(Refused(request), "input x: shape [2, 7], expected [-1, 6]");
  request = Request();
  request.mutable_inputs(0)->set_shape(0, 0);
  EXPECT_EQ(Refused(request), "input x: 0 rows, expected at least 1");
  request = Request();
  request.mutable_inputs(0)->set_shape(0, int64_t{1} << 40);
  EXPECT_THAT(Refused(request), HasSubstr("rows"));
  request = Request();
  request.mutable_inputs(0)->set_shape(0, 0x7fffffff);
  EXPECT_THAT(Refused(request), HasSubstr("48 bytes, expected 2147483647 rows of 24 bytes"));
  request = Request();
  request.mutable_inputs(0)->set_name("y");
  EXPECT_EQ(Refused(request), "input x is missing: expected FP32 [-1, 6]");
  request = Request();
  *request.add_inputs() = request.inputs(0);
  EXPECT_THAT(Refused(request), HasSubstr("2 inputs with 1 raw_input_contents"));
  request.add_raw_input_contents("");
  EXPECT_EQ(Refused(request), "input x is given twice");
  request.mutable_inputs(1)->set_name("z");
  EXPECT_THAT(Refused(request), HasSubstr("no input z, it has x"));
  request = Request();
  request.add_outputs()->set_name("loss");
  EXPECT_EQ(Refused(request), "the model has no output loss");
  request = Request();
  for (int i = 0; i < 2; ++i) request.add_outputs()->set_name("output");
  EXPECT_EQ(Refused(request), "output output is asked for twice");
  request = Request();
  request.set_model_version("latest");
  EXPECT_THAT(Refused(request), HasSubstr("\"latest\""));
}

TEST_F(InferenceServiceTest, RunWithoutACheckpointIsNotReady) {
  Start();
  source_->SetVersions("gru", {});
  const auto ready = [&](const std::string& run, const std::string& version) {
    grpc::ClientContext context;
    inference::ModelReadyRequest request;
    inference::ModelReadyResponse response;
    request.set_name(run);
    request.set_version(version);
    EXPECT_TRUE(stub_->ModelReady(&context, request, &response).ok());
    return response.ready();
  };
  EXPECT_TRUE(ready("mlp", ""));
  EXPECT_TRUE(ready("mlp", "5"));
  EXPECT_FALSE(ready("mlp", "6"));
  EXPECT_FALSE(ready("gru", ""));
  EXPECT_FALSE(ready("unknown", ""));
  auto request = Request();
  inference::ModelInferResponse response;
  request.set_model_name("gru");
  EXPECT_EQ(ReasonOf(Infer(request, &response)), "MODEL_NOT_READY");
  request.set_model_name("unknown");
  EXPECT_EQ(ReasonOf(Infer(request, &response)), "MODEL_NOT_FOUND");
}

TEST_F(InferenceServiceTest, MetadataDescribesTheModel) {
  Start();
  grpc::ClientContext context;
  inference::ModelMetadataRequest request;
  inference::ModelMetadataResponse response;
  request.set_name("mlp");
  ASSERT_TRUE(stub_->ModelMetadata(&context, request, &response).ok());
  EXPECT_THAT(response.versions(), ElementsAre("8", "5"));
  EXPECT_EQ(response.platform(), "pytorch_torchscript");
  ASSERT_EQ(response.inputs_size(), 1) << "the label is no input";
  EXPECT_EQ(response.inputs(0).datatype(), "FP32");
  EXPECT_THAT(response.inputs(0).shape(), ElementsAre(-1, 6));
  EXPECT_THAT(response.outputs(0).shape(), ElementsAre(-1, 5));
}

TEST_F(InferenceServiceTest, FullQueueIsRefusedAndStopAnswersTheRest) {
  InferenceOptions options;
  options.threads = 1;
  options.queued_max = 1;
  Start(options);
  absl::Notification computing, go;
  source_->SetOnFetch([&] {
    computing.Notify();
    go.WaitForNotification();
  });
  const auto request = Request();
  absl::Status first, second;
  std::thread running([&] {
    inference::ModelInferResponse response;
    first = Infer(request, &response);
  });
  computing.WaitForNotification();
  // One computes; of two more, one waits and one is refused, whichever comes first.
  absl::Status more[2];
  absl::Notification refused;
  std::vector<std::thread> clients;
  for (absl::Status& status : more) {
    clients.emplace_back([&] {
      inference::ModelInferResponse response;
      status = Infer(request, &response);
      if (absl::IsResourceExhausted(status)) refused.Notify();
    });
  }
  refused.WaitForNotification();
  std::thread stop([&] { service_->Stop(); });
  for (std::thread& client : clients) client.join();
  go.Notify();
  running.join();
  stop.join();
  EXPECT_TRUE(first.ok()) << first;
  const bool swapped = absl::IsUnavailable(more[0]);
  EXPECT_EQ(ReasonOf(more[swapped ? 1 : 0]), "INFERENCE_BUSY");
  EXPECT_EQ(ReasonOf(more[swapped ? 0 : 1]), "STOPPING");
}

TEST_F(InferenceServiceTest, RequestOverTheLimitIsRefused) {
  InferenceOptions options;
  options.request_bytes_max = 64;
  Start(options);
  inference::ModelInferResponse response;
  const absl::Status status = Infer(Request(), &response);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(status), "REQUEST_TOO_LARGE");
}

}  // namespace
}  // namespace ballast
