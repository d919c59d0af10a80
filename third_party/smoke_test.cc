// Shows that every third-party library links and runs in one process, libtorch beside the system's protobuf included.
#include <gmock/gmock.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <prometheus/exposer.h>
#include <prometheus/registry.h>
#include <rocksdb/version.h>
#include <spdlog/spdlog.h>
#include <xxhash.h>
#include <zstd.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "torch/script.h"

namespace {

TEST(ThirdParty, AbseilLinks) {
  absl::flat_hash_map<std::string, absl::StatusOr<int>> map;
  map.emplace(absl::StrCat("a", 1), absl::NotFoundError(absl::FormatTime(absl::Now())));
  absl::Mutex mutex;
  absl::MutexLock lock(&mutex);
  EXPECT_EQ(map.begin()->second.status().code(), absl::StatusCode::kNotFound);
}

TEST(ThirdParty, GrpcServerStarts) {
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  ASSERT_NE(server, nullptr);
  EXPECT_GT(port, 0);
}

TEST(ThirdParty, PrometheusServesMetrics) {
  const auto registry = std::make_shared<prometheus::Registry>();
  prometheus::Exposer exposer("127.0.0.1:0");
  exposer.RegisterCollectable(registry);
  EXPECT_EQ(exposer.GetListeningPorts().size(), 1u);
}

TEST(ThirdParty, SmallLibrariesLink) {
  spdlog::info("RocksDB {}", rocksdb::GetRocksVersionAsString());
  EXPECT_NE(XXH3_64bits("ballast", 7), 0u);
  EXPECT_GT(ZSTD_compressBound(1), 0u);
  EXPECT_EQ(nlohmann::json::parse("[1]").size(), 1u);
  EXPECT_EQ(CLI::App("app").get_description(), "app");
}

TEST(ThirdParty, LibtorchComputesGradients) {
  const torch::Tensor x = torch::ones({2}, torch::requires_grad());
  (x * x).sum().backward();
  EXPECT_TRUE(torch::equal(x.grad(), torch::full({2}, 2.0f)));
}

}  // namespace
