// The few file operations that durability needs, with errors that name the file. Used by the segments and by the data directory, from any
// thread. Errors: Internal with operation, path and the system's text (ResourceExhausted when the disk is full); NotFound where said.
#ifndef BALLAST_SERVER_STORAGE_FILES_H_
#define BALLAST_SERVER_STORAGE_FILES_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ballast {

// Status of a failed system call; `error` is errno.
absl::Status FileError(absl::string_view operation, absl::string_view path, int error);

// Closes on destruction. -1: none.
class UniqueFd {
 public:
  explicit UniqueFd(int fd = -1) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~UniqueFd();
  int get() const { return fd_; }

 private:
  int fd_;
};

// Creates the directory and its missing parents; every new name is synced into its parent.
absl::Status MakeDirs(const std::string& dir);
// Makes creations, renames and deletions in `dir` durable.
absl::Status SyncDir(const std::string& dir);
// Names in `dir`, without "." and "..", unordered. NotFound when there is no such directory.
absl::StatusOr<std::vector<std::string>> ListDir(const std::string& dir);

// Whole file. NotFound when there is none.
absl::StatusOr<std::string> ReadFile(const std::string& path);
// All or nothing, and durable when it returns: temporary file, sync, rename, sync of the directory.
absl::Status WriteFileAtomically(const std::string& path, absl::string_view bytes);

}  // namespace ballast

#endif  // BALLAST_SERVER_STORAGE_FILES_H_
