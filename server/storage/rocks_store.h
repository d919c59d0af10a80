// The Store of a server process: one RocksDB, with the options of reliability first (each one is explained where it is set).
//
// Two column families: small records go through the write-ahead log, one sync per write; the blocks of a checkpoint are written to SST
// files of their own and ingested by move, so that no compaction of small records ever rewrites them. Deleting a checkpoint drops whole
// files. Threads: any.
#ifndef BALLAST_SERVER_STORAGE_ROCKS_STORE_H_
#define BALLAST_SERVER_STORAGE_ROCKS_STORE_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/storage/store.h"

namespace ballast {

// Told of each write that fails, from the thread that made it: the process must stop.
using StoreFailed = std::function<void(const absl::Status&)>;

// Opens or creates; `<dir>.writes` beside the directory counts the writes that were acknowledged. Errors: DataLoss when RocksDB finds its
// files damaged or missing, or when it opened with less than was acknowledged; FailedPrecondition when another process holds them.
absl::StatusOr<std::unique_ptr<Store>> OpenRocksStore(const std::string& dir, StoreFailed on_failed = nullptr);

// The same for a directory that is in no server's hands: nothing on the disk is changed, and every write fails. NotFound when there is no
// store.
absl::StatusOr<std::unique_ptr<Store>> ReadRocksStore(const std::string& dir);

}  // namespace ballast

#endif  // BALLAST_SERVER_STORAGE_ROCKS_STORE_H_
