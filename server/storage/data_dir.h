// The data directory of one server: who it belongs to, that only one process uses it, and how many lives it has had. Opened once by main.
//
//   LOCK          flock'ed as long as the process lives (same machine only)
//   IDENTITY      text: format, cluster, server, servers; written once
//   INCARNATION   decimal and a checksum; grown and synced at every open
//   store/        RocksDB (rocks_store.h)        runs/<run>/shard-<s>/   log segments (segment_log.h)
//   store.writes  HighMark: writes of the store that were acknowledged
#ifndef BALLAST_SERVER_STORAGE_DATA_DIR_H_
#define BALLAST_SERVER_STORAGE_DATA_DIR_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/storage/files.h"

namespace ballast {

inline constexpr uint32_t kDataFormat = 1;  // of everything below the directory; another format is refused

struct ServerIdentity {
  std::string cluster;  // a name that all servers of a cluster share; [A-Za-z0-9._-]
  uint32_t server = 0;
  uint32_t servers = 1;
};

class DataDir {
 public:
  // Creates or opens. Errors: FailedPrecondition when another process holds the directory, or when it belongs to another server, cluster or
  // format; the message says which and what to do.
  static absl::StatusOr<std::unique_ptr<DataDir>> Open(const std::string& dir, const ServerIdentity& identity);

  const ServerIdentity& identity() const { return identity_; }
  uint64_t incarnation() const { return incarnation_; }  // of this server: 1 at the first open
  std::string StoreDir() const { return dir_ + "/store"; }
  std::string RunDir(const std::string& run) const { return dir_ + "/runs/" + run; }
  std::string ShardDir(const std::string& run, uint32_t shard) const { return RunDir(run) + "/shard-" + std::to_string(shard); }

 private:
  DataDir(std::string dir, ServerIdentity identity, UniqueFd lock, uint64_t incarnation)
      : dir_(std::move(dir)), identity_(std::move(identity)), lock_(std::move(lock)), incarnation_(incarnation) {}

  const std::string dir_;
  const ServerIdentity identity_;
  const UniqueFd lock_;
  const uint64_t incarnation_;
};

}  // namespace ballast

#endif  // BALLAST_SERVER_STORAGE_DATA_DIR_H_
