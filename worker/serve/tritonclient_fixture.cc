// A server for tritonclient_test.py: the inference service over the test models, on a port of its own choice, until its input ends.
#include <grpcpp/grpcpp.h>

#include <iostream>
#include <memory>
#include <string>

#include "worker/serve/fake_model_source.h"
#include "worker/serve/inference_service.h"

int main() {
  auto source = std::make_shared<ballast::FakeModelSource>();
  source->SetVersions("transformer", {12, 3});
  source->SetVersions("buffers", {1});
  source->SetVersions("gru", {});
  ballast::InferenceService service({}, std::make_shared<ballast::ModelCache>(ballast::ModelCacheOptions{}, source));
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  std::cout << port << std::endl;
  std::string line;
  while (std::getline(std::cin, line)) {
  }
  service.Stop();
  server->Shutdown();
  return 0;
}
