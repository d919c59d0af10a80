#include "server/storage/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "server/failpoint.h"

namespace ballast {
namespace {

std::string Parent(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

absl::Status FileError(absl::string_view operation, absl::string_view path, int error) {
  const std::string text = absl::StrCat(operation, " ", path, ": ", std::strerror(error));
  if (error == ENOSPC || error == EDQUOT) return absl::ResourceExhaustedError(text);
  if (error == ENOENT) return absl::NotFoundError(text);
  if (error == EACCES || error == EPERM || error == EROFS) return absl::PermissionDeniedError(text);
  return absl::InternalError(text);
}

UniqueFd::~UniqueFd() {
  if (fd_ >= 0) ::close(fd_);
}

absl::Status SyncDir(const std::string& dir) {
  BALLAST_FAILPOINT_STATUS("dir-sync");
  UniqueFd fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0) return FileError("open", dir, errno);
  if (::fsync(fd.get()) != 0) return FileError("fsync", dir, errno);
  BALLAST_FAILPOINT("dir-synced");
  return absl::OkStatus();
}

absl::Status MakeDirs(const std::string& dir) {
  struct stat st;
  if (::stat(dir.c_str(), &st) == 0) {
    if (S_ISDIR(st.st_mode)) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat(dir, " exists and is not a directory"));
  }
  const std::string parent = Parent(dir);
  if (absl::Status s = MakeDirs(parent); !s.ok()) return s;
  BALLAST_FAILPOINT_STATUS("dir-make");
  if (::mkdir(dir.c_str(), 0700) != 0 && errno != EEXIST) return FileError("mkdir", dir, errno);
  BALLAST_FAILPOINT("dir-made");
  return SyncDir(parent);
}

absl::StatusOr<std::vector<std::string>> ListDir(const std::string& dir) {
  DIR* handle = ::opendir(dir.c_str());
  if (handle == nullptr) return FileError("open", dir, errno);
  std::vector<std::string> names;
  while (dirent* entry = ::readdir(handle)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  ::closedir(handle);
  return names;
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return FileError("open", path, errno);
  struct stat st;
  if (::fstat(fd.get(), &st) != 0) return FileError("stat", path, errno);
  std::string bytes(static_cast<size_t>(st.st_size), '\0');
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::pread(fd.get(), bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError(absl::StrCat("read at byte ", done, " of"), path, errno);
    if (n == 0) break;  // cut since fstat
    done += static_cast<size_t>(n);
  }
  bytes.resize(done);
  return bytes;
}

absl::Status WriteFileAtomically(const std::string& path, absl::string_view bytes) {
  BALLAST_FAILPOINT_STATUS("file-create");
  const std::string temporary = path + ".new";
  UniqueFd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (fd.get() < 0) return FileError("open", temporary, errno);
  BALLAST_FAILPOINT_STATUS("file-write");
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd.get(), bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError("write", temporary, errno);
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  BALLAST_FAILPOINT_STATUS("file-sync");
  if (::fsync(fd.get()) != 0) return FileError("fsync", temporary, errno);
  BALLAST_FAILPOINT_STATUS("file-rename");
  if (::rename(temporary.c_str(), path.c_str()) != 0) return FileError("rename", temporary, errno);
  BALLAST_FAILPOINT("file-renamed");
  return SyncDir(Parent(path));
}

}  // namespace ballast
