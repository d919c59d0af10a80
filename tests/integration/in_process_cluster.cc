#include "tests/integration/in_process_cluster.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <random>

#include "absl/strings/str_cat.h"

namespace ballast::testing {
namespace {

// Some address below the ports that Linux gives to outgoing connections: one of these could take the place of a server that is away, even
// one that is made to reach it.
std::string SomeAddress() {
  std::random_device random;
  return absl::StrCat("127.0.0.1:", std::uniform_int_distribution<int>(10000, 32767)(random));
}

}  // namespace

InProcessCluster::InProcessCluster(uint32_t servers) : addresses_(servers), servers_(servers) {
  std::string pattern = ::testing::TempDir() + "/cluster-XXXXXX";
  dir_ = mkdtemp(pattern.data());
  for (uint32_t i = 0; i < servers; ++i) {
    absl::Status started;
    do {
      addresses_[i] = SomeAddress();
      started = TryStart(i);
    } while (absl::IsUnavailable(started));  // the port is in use
    EXPECT_TRUE(started.ok()) << started;
  }
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

absl::Status InProcessCluster::TryStart(uint32_t index) {
  auto server = Server::Start(Config(index));
  if (server.ok()) servers_[index] = *std::move(server);
  return server.status();
}

void InProcessCluster::Start(uint32_t index) {
  const absl::Status started = TryStart(index);
  ASSERT_TRUE(started.ok()) << started;
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
