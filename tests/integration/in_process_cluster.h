// Servers in the test's own process, each with its directory, reached over real gRPC on loopback. For one test thread.
#ifndef BALLAST_TESTS_INTEGRATION_IN_PROCESS_CLUSTER_H_
#define BALLAST_TESTS_INTEGRATION_IN_PROCESS_CLUSTER_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <vector>

#include "ballast/v1/control.grpc.pb.h"
#include "ballast/v1/shard.grpc.pb.h"
#include "server/server.h"

namespace ballast::testing {

class InProcessCluster {
 public:
  explicit InProcessCluster(uint32_t servers);
  ~InProcessCluster();

  // Starts server `index` again, on its port. Server 0 first.
  void Start(uint32_t index);
  // Without Drain: a crash, except that what is appended gets synced.
  void Crash(uint32_t index) { servers_[index].reset(); }
  // SIGTERM.
  void Stop(uint32_t index);

  ServerConfig Config(uint32_t index) const;
  double recovery_target_s = ServerConfig().recovery_target_s;  // of servers that are started from now on
  uint64_t log_target = ServerConfig().log_target;              // of the same
  const std::string& address(uint32_t index) const { return addresses_[index]; }
  std::string dir(uint32_t index) const { return dir_ + "/server-" + std::to_string(index); }
  uint32_t size() const { return static_cast<uint32_t>(servers_.size()); }

  std::unique_ptr<v1::Control::Stub> Control() const { return v1::Control::NewStub(Channel(0)); }
  std::unique_ptr<v1::Shard::Stub> Shard(uint32_t index) const { return v1::Shard::NewStub(Channel(index)); }
  // A channel of its own connection.
  std::shared_ptr<grpc::Channel> Channel(uint32_t index) const;

 private:
  absl::Status TryStart(uint32_t index);

  std::string dir_;
  std::vector<std::string> addresses_;
  std::vector<std::unique_ptr<Server>> servers_;
};

// A call that fails the test instead of hanging it.
std::unique_ptr<grpc::ClientContext> Call();

}  // namespace ballast::testing

#endif  // BALLAST_TESTS_INTEGRATION_IN_PROCESS_CLUSTER_H_
