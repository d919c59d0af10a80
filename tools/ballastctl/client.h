// One connection of ballastctl to server 0, and short-lived ones to the other servers. Synchronous: a command does one thing at a time.
// Every call has a deadline; errors are absl::Status with the server's text and reason (proto/status.h).
#ifndef BALLAST_TOOLS_BALLASTCTL_CLIENT_H_
#define BALLAST_TOOLS_BALLASTCTL_CLIENT_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ballast/v1/control.grpc.pb.h"
#include "ballast/v1/shard.grpc.pb.h"

namespace ballast::ctl {

class Client {
 public:
  // Fails within `timeout` with the address and the reason. An empty address: BALLAST_SERVER, else the dev cluster of this user.
  static absl::StatusOr<Client> Connect(std::string address, std::chrono::milliseconds timeout);

  const std::string& address() const { return address_; }

  absl::StatusOr<v1::RunList> ListRuns(const v1::RunFilter& filter);
  absl::StatusOr<v1::Run> GetRun(const std::string& run);  // with tensors and layout; NotFound names the runs that exist
  absl::StatusOr<v1::Run> StopRun(const std::string& run, const std::string& reason);
  absl::StatusOr<v1::Run> DeleteRun(const std::string& run);
  absl::StatusOr<v1::Run> Rollback(const std::string& run, uint64_t version);
  absl::StatusOr<v1::Manifest> Checkpoint(const std::string& run);
  absl::StatusOr<v1::ManifestList> ListManifests(const std::string& run);
  absl::StatusOr<v1::ClusterState> Cluster();
  absl::Status ListDecisions(const v1::DecisionRange& range, const std::function<void(const v1::Decision&)>& visit);

  // All chunks of a checkpoint, server by server. `visit` gets every block with its bytes; checksums are already compared.
  // Errors: DataLoss naming server, tensor and first element when a block is damaged or missing.
  using BlockVisitor = std::function<absl::Status(uint32_t server, const v1::BlockHead& head, absl::string_view bytes)>;
  absl::Status ReadManifest(const v1::Run& run, uint64_t version, bool slots, const BlockVisitor& visit);

 private:
  Client(std::string address, std::shared_ptr<grpc::Channel> channel);

  std::string address_;
  std::unique_ptr<v1::Control::Stub> control_;
};

// "RUN" or "RUN@VERSION"; version 0: the newest manifest.
struct RunVersion {
  std::string run;
  uint64_t version = 0;
};
absl::StatusOr<RunVersion> ParseRunVersion(const std::string& text);

}  // namespace ballast::ctl

#endif  // BALLAST_TOOLS_BALLASTCTL_CLIENT_H_
