// A local cluster of real processes for development: `ballastctl dev up|down|status`. Its state is a JSON file in the cluster's folder;
// every process has its own data folder and log there and keeps its address when it is started again.
#ifndef BALLAST_TOOLS_BALLASTCTL_DEV_CLUSTER_H_
#define BALLAST_TOOLS_BALLASTCTL_DEV_CLUSTER_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ballast::ctl {

struct DevProcess {
  std::string name;  // server-0, worker-1
  int pid = 0;
  std::string address;
  std::string metrics_address;
  std::string log;
  bool alive = false;
};

struct DevCluster {
  std::string dir;
  std::vector<DevProcess> processes;  // servers by index, then workers
};

struct DevOptions {
  std::string dir;  // empty: DefaultDevDir()
  int servers = 1;
  int workers = 1;
  std::vector<std::string> server_flags;  // handed on to every ballast-server
  std::vector<std::string> worker_flags;
};

std::string DefaultDevDir();  // $BALLAST_DEV_DIR, else $XDG_STATE_HOME/ballast/dev, else ~/.local/state/ballast/dev

// Starts what does not run; a second call repairs a cluster of the same size. Returns when every process serves.
// Errors: FailedPrecondition when a cluster of another size lives there; Unavailable with the end of the log when a process does not start.
absl::StatusOr<DevCluster> DevUp(const DevOptions& options);
// SIGTERM, 30 s to drain, then SIGKILL; data and logs stay unless `remove`. NotFound when there is no cluster.
absl::Status DevDown(const std::string& dir, bool remove);
absl::StatusOr<DevCluster> DevStatus(const std::string& dir);
// Of server 0 of the default dev cluster; empty when there is none.
std::string DevServerAddress();

}  // namespace ballast::ctl

#endif  // BALLAST_TOOLS_BALLASTCTL_DEV_CLUSTER_H_
