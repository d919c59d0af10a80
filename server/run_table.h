// The runs of which this server holds a shard. The coordinator runner (server 0) or the follower (other servers) opens and closes them; the
// data plane finds them by name.
//
// Threads: Find from any; Add and Close from one opener thread. A handle that Find gave keeps the shard alive: hold it for one call, never
// in a callback that the shard itself runs.
#ifndef BALLAST_SERVER_RUN_TABLE_H_
#define BALLAST_SERVER_RUN_TABLE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "core/types.h"
#include "server/shard/run_shard.h"

namespace ballast {

struct OpenRun {
  RunSpec spec;
  uint64_t generation = 1;
  Layout layout;
  std::unique_ptr<ShardEvents> events;  // outlives the shard
  std::unique_ptr<RunShard> shard;
};

class RunTable {
 public:
  ~RunTable();  // closes what is open

  // REQUIRES that no run of this name is in the table.
  void Add(OpenRun run) ABSL_LOCKS_EXCLUDED(mu_);
  // Null when there is none.
  std::shared_ptr<OpenRun> Find(absl::string_view name) const ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<std::string> Names() const ABSL_LOCKS_EXCLUDED(mu_);
  // Takes the run out, waits until nobody holds a handle, and destroys the shard, which stops its threads. Nothing when there is none.
  void Close(absl::string_view name) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Entry {
    OpenRun run;
    absl::Notification released;      // by the last handle
    std::shared_ptr<OpenRun> handle;  // points at `run`, owns nothing
  };

  mutable absl::Mutex mu_;
  absl::flat_hash_map<std::string, std::unique_ptr<Entry>> runs_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ballast

#endif  // BALLAST_SERVER_RUN_TABLE_H_
