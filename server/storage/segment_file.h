// One segment file that is being written: preallocated, direct where the file system takes it. Used by the log's thread only.
// Errors: Internal, ResourceExhausted; never retried.
#ifndef BALLAST_SERVER_STORAGE_SEGMENT_FILE_H_
#define BALLAST_SERVER_STORAGE_SEGMENT_FILE_H_

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/storage/files.h"

namespace ballast {

// Memory that O_DIRECT takes: aligned to a page, grows by doubling, keeps its capacity for the next group.
class PageBuffer {
 public:
  char* Extend(size_t bytes);  // room for so many more bytes; the old ones stay
  absl::string_view view() const { return absl::string_view(data_.get(), size_); }
  char* data() { return data_.get(); }
  size_t size() const { return size_; }
  size_t capacity() const { return capacity_; }
  void Clear() { size_ = 0; }

 private:
  struct Free {
    void operator()(char* p) const { std::free(p); }
  };
  std::unique_ptr<char, Free> data_;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

class SegmentFile {
 public:
  // Takes a spare file of `dir` if there is one, else makes a new one; `bytes` long; its name is durable when it returns.
  static absl::StatusOr<SegmentFile> Create(const std::string& dir, uint64_t segment, uint64_t bytes);

  absl::Status WriteAt(uint64_t offset, absl::string_view pages) const;  // whole pages from a PageBuffer
  absl::Status Sync(const std::function<int(int fd)>& sync) const;
  bool direct() const { return direct_; }

 private:
  SegmentFile(std::string path, UniqueFd fd, bool direct) : path_(std::move(path)), fd_(std::move(fd)), direct_(direct) {}

  std::string path_;
  UniqueFd fd_;
  bool direct_;
};

// Takes segments [.., first_needed) out of the log, oldest first: some become spares, the rest is deleted. Durable when it returns.
// Returns the bytes of these files.
absl::StatusOr<uint64_t> RecycleSegments(const std::string& dir, uint64_t first_needed);

// Gives back the preallocated space behind the last record of a segment that will not be written again.
absl::Status TrimSegment(const std::string& dir, uint64_t segment, uint64_t bytes);

}  // namespace ballast

#endif  // BALLAST_SERVER_STORAGE_SEGMENT_FILE_H_
