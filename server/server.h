// The process around everything: what starts in which order, and what stops.
//
//   auto server = Server::Start(config);   // listening at once (health NOT_SERVING), recovered and serving when it returns
//   server->Wait();                        // until RequestStop or a failure that the process must not survive
//   server->Drain();                       // SIGTERM: NOT_SERVING, sessions closed, a checkpoint of every run that needs one
//   server.reset();                        // without Drain: as a crash, except that what is appended gets synced
//
// Threads: Start, Drain and the destructor from one thread; RequestStop from any.
#ifndef BALLAST_SERVER_SERVER_H_
#define BALLAST_SERVER_SERVER_H_

#include <grpcpp/grpcpp.h>
#include <prometheus/exposer.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "server/config.h"
#include "server/control/artifacts.h"
#include "server/control/service.h"
#include "server/coordinator/follower.h"
#include "server/coordinator/runner.h"
#include "server/data_plane/data_plane.h"
#include "server/metrics.h"
#include "server/run_opener.h"
#include "server/run_table.h"
#include "server/storage/data_dir.h"
#include "server/storage/store.h"

namespace ballast {

class Server {
 public:
  // Errors: FailedPrecondition when the directory belongs to somebody else, Unavailable when a port is in use, else as recovery found it.
  static absl::StatusOr<std::unique_ptr<Server>> Start(ServerConfig config);
  ~Server();

  // OK after RequestStop; else why the process must end now, without Drain.
  absl::Status Wait();
  void RequestStop();
  absl::Status Drain();  // as Wait

  const std::string& address() const { return address_; }                  // host:port of the gRPC services
  const std::string& metrics_address() const { return metrics_address_; }  // empty: none
  uint64_t incarnation() const { return dir_->incarnation(); }

 private:
  explicit Server(ServerConfig config) : config_(std::move(config)) {}

  absl::Status Open();
  absl::Status StartMetrics();
  absl::Status Listen();
  absl::Status StartRole();
  void SetServing(bool serving);
  void OnReady();
  void Fatal(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mu_);
  void StopServing();
  absl::StatusOr<std::string> ClusterId();

  const ServerConfig config_;
  Rules rules_;
  Metrics metrics_;
  std::string address_;
  std::string metrics_address_;

  std::unique_ptr<DataDir> dir_;
  uint64_t life_ = 0;  // the incarnation that others are told
  std::unique_ptr<Store> store_;
  std::unique_ptr<prometheus::Exposer> exposer_;
  std::unique_ptr<Artifacts> artifacts_;
  std::unique_ptr<DataPlane> data_plane_;  // outlives the shards: they call back into it
  std::unique_ptr<RunTable> runs_;
  std::unique_ptr<RunOpener> opener_;
  std::unique_ptr<Runner> runner_;      // server 0; outlives the shards, as their events go there
  std::unique_ptr<Follower> follower_;  // the others; outlives the shards too
  std::unique_ptr<ControlService> control_;
  std::unique_ptr<grpc::Server> grpc_server_;

  absl::Mutex mu_;
  absl::Status fatal_ ABSL_GUARDED_BY(mu_);
  absl::Notification done_;
  bool done_said_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace ballast

#endif  // BALLAST_SERVER_SERVER_H_
