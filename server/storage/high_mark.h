// A number in a file that only grows: how far something was acknowledged. It is kept apart from what it vouches for, so that whoever reads
// that back after damage can tell "nobody was promised more" from "the end is gone".
//
// The file holds two copies with a checksum each, 512 bytes apart, written in turn: a torn write or a flipped bit leaves the other copy,
// which is a little older and still true. Threads: one at a time. Errors: those of files.h; DataLoss when neither copy is whole.
#ifndef BALLAST_SERVER_STORAGE_HIGH_MARK_H_
#define BALLAST_SERVER_STORAGE_HIGH_MARK_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/storage/files.h"

namespace ballast {

// NotFound when there is no file.
absl::StatusOr<uint64_t> ReadHighMark(const std::string& path);

class HighMark {
 public:
  // Creates or rewrites the file; durable when it returns.
  static absl::StatusOr<HighMark> Create(const std::string& path, uint64_t value);

  // REQUIRES a value that is not below the last one. Survives the end of the process at once, a power loss when the kernel has written it
  // back (or after Sync): costs a system call, not a wait for the disk.
  absl::Status Set(uint64_t value);
  absl::Status Sync() const;

 private:
  HighMark(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  std::string path_;
  UniqueFd fd_;
  int next_copy_ = 0;
};

}  // namespace ballast

#endif  // BALLAST_SERVER_STORAGE_HIGH_MARK_H_
