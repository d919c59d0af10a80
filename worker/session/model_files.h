// Artifacts by their SHA-256: from a folder of this worker, else from server 0. What the digest does not confirm is never returned, so a
// model file is always the one that a run names.
// Threads: any; Get blocks on disk and network, for at most `timeout` without progress.
#ifndef BALLAST_WORKER_SESSION_MODEL_FILES_H_
#define BALLAST_WORKER_SESSION_MODEL_FILES_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/session/cluster.h"

namespace ballast {

inline constexpr uint64_t kArtifactBytesMax = uint64_t{16} << 30;

std::string Sha256Hex(absl::string_view bytes);

class ModelFiles {
 public:
  // `dir` is created; at most `dir_bytes_max` of files stay in it, least recently used out first. `cluster` outlives this.
  ModelFiles(std::string dir, uint64_t dir_bytes_max, Cluster* cluster);

  // Errors: NotFound, InvalidArgument (not a digest), DataLoss (the server's bytes are others), Unavailable.
  absl::StatusOr<std::string> Get(const std::string& sha256);

 private:
  absl::StatusOr<std::string> Download(const std::string& sha256);
  void Keep(const std::string& sha256, absl::string_view bytes);
  void Evict();

  const std::string dir_;
  const uint64_t dir_bytes_max_;
  Cluster* const cluster_;
};

}  // namespace ballast

#endif  // BALLAST_WORKER_SESSION_MODEL_FILES_H_
