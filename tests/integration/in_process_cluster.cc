#include "tests/integration/in_process_cluster.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>

namespace ballast::testing {

InProcessCluster::InProcessCluster(uint32_t servers) : addresses_(servers, "127.0.0.1:0"), servers_(servers) {
  std::string pattern = ::testing::TempDir() + "/cluster-XXXXXX";
  dir_ = mkdtemp(pattern.data());
  for (uint32_t i = 0; i < servers; ++i) Start(i);
}

InProcessCluster::~InProcessCluster() {
  for (auto it = servers_.rbegin(); it != servers_.rend(); ++it) it->reset();
  std::error_code ignored;
  std::filesystem::remove_all(dir_, ignored);
}

ServerConfig InProcessCluster::Config(uint32_t index) const {
  ServerConfig config;
  config.dir = dir(index);
  config.listen = addresses_[index];
  config.index = index;
  config.servers = size();
  config.disk_reserve = 0;
  config.recovery_target_s = recovery_target_s;
  config.log_target = log_target;
  config.metrics_listen = "";  // its library takes two seconds to stop
  if (index > 0) config.coordinator = addresses_[0];
  return config;
}

void InProcessCluster::Start(uint32_t index) {
  auto server = Server::Start(Config(index));
  ASSERT_TRUE(server.ok()) << server.status();
  servers_[index] = *std::move(server);
  addresses_[index] = servers_[index]->address();
}

void InProcessCluster::Stop(uint32_t index) {
  EXPECT_TRUE(servers_[index]->Drain().ok());
  servers_[index].reset();
}

std::shared_ptr<grpc::Channel> InProcessCluster::Channel(uint32_t index) const {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  return grpc::CreateCustomChannel(addresses_[index], grpc::InsecureChannelCredentials(), arguments);
}

std::unique_ptr<grpc::ClientContext> Call() {
  // How many times slower this program is under a sanitizer (tools/sanitize).
  static const char* const slowness = std::getenv("BALLAST_SANITIZED");
  static const int seconds = 30 * (slowness == nullptr ? 1 : std::atoi(slowness));
  auto call = std::make_unique<grpc::ClientContext>();
  call->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(seconds));
  call->set_wait_for_ready(true);
  return call;
}

}  // namespace ballast::testing
