// A Store in memory, for tests: everything is "durable" as long as the object lives, so a test keeps it over a simulated restart.
// Threads: any.
#ifndef BALLAST_SERVER_STORAGE_MEMORY_STORE_H_
#define BALLAST_SERVER_STORAGE_MEMORY_STORE_H_

#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/storage/store.h"

namespace ballast {

class MemoryStore : public Store {
 public:
  absl::Status Put(absl::string_view key, absl::string_view value) override;
  absl::StatusOr<std::string> Get(absl::string_view key) override;
  absl::Status Delete(absl::string_view key) override;
  absl::Status DeletePrefix(absl::string_view prefix) override;
  absl::Status Scan(absl::string_view prefix, const std::function<bool(absl::string_view, absl::string_view)>& visit) override;
  absl::StatusOr<std::unique_ptr<Bulk>> NewBulk() override;

 private:
  friend class MemoryBulk;
  absl::Mutex mu_;
  std::map<std::string, std::string> entries_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ballast

#endif  // BALLAST_SERVER_STORAGE_MEMORY_STORE_H_
