// Opens, recovers and removes the shards of this server. Used by the coordinator runner (server 0) and by the follower (other servers).
// Threads: one opener thread; every call may block for seconds.
#ifndef BALLAST_SERVER_RUN_OPENER_H_
#define BALLAST_SERVER_RUN_OPENER_H_

#include <cstdint>
#include <memory>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/convert.h"
#include "server/metrics.h"
#include "server/run_table.h"
#include "server/shard/run_shard.h"
#include "server/storage/data_dir.h"
#include "server/storage/store.h"

namespace ballast {

class RunOpener {
 public:
  struct Options {
    bool retain_all = false;
    uint64_t incarnation = 0;  // that receipts carry
    uint64_t queue_bytes_max = 0;
    uint64_t disk_reserve_bytes = 0;
    Rules rules;
  };
  RunOpener(Options options, const DataDir* dir, Store* store, RunTable* runs, ShardMetrics* metrics)
      : options_(options), dir_(dir), store_(store), runs_(runs), metrics_(metrics) {}

  // Opens or creates this server's shard of the run and puts it into the table. What an earlier generation of the run left is removed.
  absl::StatusOr<std::shared_ptr<OpenRun>> Open(const RunDefinition& run, std::unique_ptr<ShardEvents> events);
  // Closes the run and frees its disk space.
  absl::Status Remove(const std::string& run);
  // Frees what runs left behind that are not in `known`: a removal that a crash cut short.
  absl::Status RemoveOthers(const std::set<std::string>& known);
  // How far the runs that were begun are read, in words. Any thread.
  std::string Progress() const;
  // Errors: ResourceExhausted (DISK_LOW) when `bytes` more would leave less than the reserve free.
  absl::Status CheckDisk(uint64_t bytes) const;
  // Errors: ResourceExhausted (RUN_TOO_LARGE) when this machine could never hold so much.
  static absl::Status CheckMemory(uint64_t bytes);

 private:
  const Options options_;
  const DataDir* const dir_;
  Store* const store_;
  RunTable* const runs_;
  ShardMetrics* const metrics_;
};

}  // namespace ballast

#endif  // BALLAST_SERVER_RUN_OPENER_H_
