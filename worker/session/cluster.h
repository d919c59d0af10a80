// Channels to the servers: server 0 by the address on the command line, every server by its index as server 0 tells it.
// Threads: any; every method locks. Channels reconnect by themselves within a second.
#ifndef BALLAST_WORKER_SESSION_CLUSTER_H_
#define BALLAST_WORKER_SESSION_CLUSTER_H_

#include <grpcpp/channel.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "ballast/v1/control.grpc.pb.h"
#include "google/protobuf/repeated_field.h"

namespace ballast {

class Cluster {
 public:
  explicit Cluster(std::string control_address);

  const std::string& control_address() const { return control_address_; }
  const std::shared_ptr<grpc::Channel>& control() const { return control_; }

  void Update(const google::protobuf::RepeatedPtrField<v1::ServerInfo>& servers);
  size_t size() const;
  // Errors: Unavailable while the server's address is not known.
  absl::StatusOr<std::shared_ptr<grpc::Channel>> Shard(uint32_t index);
  std::string AddressOf(uint32_t index) const;

 private:
  const std::string control_address_;
  const std::shared_ptr<grpc::Channel> control_;

  mutable absl::Mutex mu_;
  std::vector<std::string> addresses_ ABSL_GUARDED_BY(mu_);  // by index; empty: not known
  std::map<std::string, std::shared_ptr<grpc::Channel>> channels_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ballast

#endif  // BALLAST_WORKER_SESSION_CLUSTER_H_
