// Reads the segments of a log one after another on a thread of its own, at most kSegmentsAhead before they are asked for, past the page
// cache: a recovering server reads each byte once, and checks and applies what came before in the meantime.
//
// Threads: Next and the destructor from one thread.
#ifndef BALLAST_SERVER_STORAGE_SEGMENT_PREFETCH_H_
#define BALLAST_SERVER_STORAGE_SEGMENT_PREFETCH_H_

#include <cstddef>
#include <cstdlib>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"

namespace ballast {

inline constexpr size_t kSegmentsAhead = 1;

// The bytes of one file, aligned for direct reads.
class FileBytes {
 public:
  FileBytes() = default;
  explicit FileBytes(size_t capacity);
  char* data() { return memory_.get(); }
  size_t capacity() const { return capacity_; }
  void set_size(size_t size) { size_ = size; }
  absl::string_view view() const { return {memory_.get(), size_}; }

 private:
  struct Free {
    void operator()(char* p) const { std::free(p); }
  };
  std::unique_ptr<char[], Free> memory_;
  size_t capacity_ = 0;
  size_t size_ = 0;
};

class SegmentPrefetch {
 public:
  // `sync_first`: each file is synced before it is read, so that what is believed stays.
  SegmentPrefetch(std::vector<std::string> paths, bool sync_first);
  ~SegmentPrefetch();

  // The next file's bytes; call it at most once for each path. Errors: of open, fsync or read; then no more files come.
  absl::StatusOr<FileBytes> Next() ABSL_LOCKS_EXCLUDED(mu_);
  // Memory of a file that is done with, for one of the next.
  void Reuse(FileBytes bytes) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mu_);
  FileBytes Spare() ABSL_LOCKS_EXCLUDED(mu_);

  const std::vector<std::string> paths_;
  const bool sync_first_;
  absl::Mutex mu_;
  std::deque<absl::StatusOr<FileBytes>> read_ ABSL_GUARDED_BY(mu_);
  std::vector<FileBytes> spare_ ABSL_GUARDED_BY(mu_);
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace ballast

#endif  // BALLAST_SERVER_STORAGE_SEGMENT_PREFETCH_H_
