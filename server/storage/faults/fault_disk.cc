#include "server/storage/faults/fault_disk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "server/storage/faults/disk_history.h"

namespace ballast::testing {
namespace {

std::string Absolute(const char* path) { return path[0] == '/' ? path : std::filesystem::current_path().string() + "/" + path; }

bool Exists(const std::string& path) {
  struct stat st;
  return ::lstat(path.c_str(), &st) == 0;
}

}  // namespace

// std::mutex, because this is below everything, Abseil included, with the annotations that it lacks.
class ABSL_LOCKABLE DiskMutex {
 public:
  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { mu_.lock(); }
  void Unlock() ABSL_UNLOCK_FUNCTION() { mu_.unlock(); }

 private:
  std::mutex mu_;
};

class ABSL_SCOPED_LOCKABLE DiskLock {
 public:
  explicit DiskLock(DiskMutex* mu) ABSL_EXCLUSIVE_LOCK_FUNCTION(mu) : mu_(mu) { mu_->Lock(); }
  ~DiskLock() ABSL_UNLOCK_FUNCTION() { mu_->Unlock(); }
  DiskLock(const DiskLock&) = delete;
  DiskLock& operator=(const DiskLock&) = delete;

 private:
  DiskMutex* const mu_;
};

class FaultDisk::Impl {
 public:
  explicit Impl(const std::string& root) : root_(root + "/"), trash_(root + ".trash"), history_(trash_) {
    std::filesystem::create_directories(trash_);
  }
  ~Impl() {
    std::error_code ignored;
    std::filesystem::remove_all(trash_, ignored);
  }

  bool Concerns(const std::string& path) const { return (path + "/").compare(0, root_.size(), root_) == 0; }

  // The path that this descriptor was opened with; nothing when it is none of ours (or its number has been used again).
  std::optional<std::string> PathOf(int fd) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const auto it = open_.find(fd);
    if (it == open_.end() || InodeOf(fd) != it->second.second) return std::nullopt;
    return it->second.first;
  }

  // Counts the call. Returns the errno it fails with; -1: a bit flips. `under_way` is what the call does: the power may go in its middle.
  int Gate(DiskCall call, const std::string& path, const std::function<void()>& under_way = nullptr) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (call != DiskCall::kRead && ++calls_ == cut_at_) {
      if (under_way) under_way();
      LosePower();
    }
    if (struck_) since_.emplace_back(call, path);
    for (DiskFault& fault : faults_) {
      if (fault.call != call || path.find(fault.path) == std::string::npos) continue;
      if (fault.nth > 1) {
        --fault.nth;
        continue;
      }
      if (fault.nth == 0) continue;  // once, and it was
      if (!fault.for_ever) fault.nth = 0;
      if (!struck_) since_.emplace_back(call, path);
      struck_ = true;
      return fault.error == 0 ? -1 : fault.error;
    }
    return 0;
  }

  void LosePower() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    history_.Lose(seed_);
    std::_Exit(kPowerIsOff);
  }

  DiskMutex mu_;
  const std::string root_;
  const std::string trash_;
  DiskHistory history_ ABSL_GUARDED_BY(mu_);
  std::map<int, std::pair<std::string, Inode>> open_ ABSL_GUARDED_BY(mu_);
  std::vector<DiskFault> faults_ ABSL_GUARDED_BY(mu_);
  std::vector<std::pair<DiskCall, std::string>> since_ ABSL_GUARDED_BY(mu_);
  bool struck_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t calls_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t cut_at_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t seed_ ABSL_GUARDED_BY(mu_) = 0;
};

// The calls themselves. One static object stands for the disk that is in place.
class DiskCalls {
 public:
  using Impl = FaultDisk::Impl;
  static void Use(FaultDisk::Impl* impl) { impl_ = impl; }
  static FaultDisk::Impl* impl() { return impl_; }

  static int Open(const char* name, int flags, mode_t mode) {
    Impl* const d = impl_;
    const std::string path = d == nullptr ? "" : Absolute(name);
    if (d == nullptr || !d->Concerns(path)) return Raw(SYS_openat, AT_FDCWD, name, flags, mode);
    const DiskLock lock(&d->mu_);
    const bool exists = Exists(path), creates = (flags & O_CREAT) != 0 && !exists;
    if (creates || (exists && (flags & O_TRUNC) != 0)) {
      if (const int error = d->Gate(DiskCall::kName, path); error != 0) return Fail(error);
    }
    const int fd = Raw(SYS_openat, AT_FDCWD, name, flags & ~O_TRUNC, mode);
    const int error = errno;
    if (creates && Exists(path)) d->history_.Created(path);  // also when O_DIRECT was refused behind it
    if (fd >= 0) d->open_[fd] = {path, InodeOf(fd)};
    if (fd >= 0 && (flags & O_TRUNC) != 0) {
      d->history_.BeforeResize(fd, 0);
      (void)::syscall(SYS_ftruncate, fd, 0);
    }
    errno = error;
    return fd;
  }

  static int Close(int fd) {
    if (Impl* const d = impl_; d != nullptr) {
      const DiskLock lock(&d->mu_);
      d->open_.erase(fd);
    }
    return Raw(SYS_close, fd);
  }

  // A write at `offset`; -1: where the descriptor stands.
  static ssize_t Write(int fd, const void* data, size_t bytes, off_t offset) {
    const auto raw = [&] { return offset < 0 ? ::syscall(SYS_write, fd, data, bytes) : ::syscall(SYS_pwrite64, fd, data, bytes, offset); };
    Impl* const d = impl_;
    if (d == nullptr) return raw();
    const DiskLock lock(&d->mu_);
    const std::optional<std::string> path = d->PathOf(fd);
    if (!path) return raw();
    const auto write = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(d->mu_) {
      const off_t at = offset >= 0 ? offset : ::lseek(fd, 0, (::fcntl(fd, F_GETFL) & O_APPEND) != 0 ? SEEK_END : SEEK_CUR);
      d->history_.BeforeWrite(fd, static_cast<uint64_t>(at), bytes);
      return raw();
    };
    if (const int error = d->Gate(DiskCall::kWrite, *path, write); error != 0) return Fail(error);
    return write();
  }

  static int Sync(int fd, long number) {
    Impl* const d = impl_;
    if (d == nullptr) return Raw(number, fd);
    const DiskLock lock(&d->mu_);
    const std::optional<std::string> path = d->PathOf(fd);
    if (!path) return Raw(number, fd);
    if (const int error = d->Gate(DiskCall::kSync, *path); error != 0) {
      d->history_.SyncFailed(fd);
      return Fail(error);
    }
    struct stat st;
    if (::fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
      d->history_.SyncedDir(*path);
    } else {
      d->history_.Synced(fd);
    }
    return 0;
  }

  static int Resize(int fd, uint64_t size, DiskCall call, const std::function<int()>& raw) {
    Impl* const d = impl_;
    if (d == nullptr) return raw();
    const DiskLock lock(&d->mu_);
    const std::optional<std::string> path = d->PathOf(fd);
    if (!path) return raw();
    if (const int error = d->Gate(call, *path); error != 0) return Fail(error);
    d->history_.BeforeResize(fd, size);
    return raw();
  }

  static int Unlink(const char* name) {
    const auto raw = [&] { return Raw(SYS_unlink, name); };
    return Named(name, raw, [&](DiskHistory& history, const std::string& path) {
      const std::string kept = history.KeepForUnlink(path);
      const int result = raw();
      if (result == 0) history.Unlinked(path, kept);
      return result;
    });
  }

  static int Rename(const char* from, const char* to) {
    const auto raw = [&] { return Raw(SYS_rename, from, to); };
    return Named(to, raw, [&](DiskHistory& history, const std::string& path) {
      const std::string kept = history.KeepForUnlink(path);
      const int result = raw();
      if (result == 0) history.Renamed(Absolute(from), path, kept);
      return result;
    });
  }

  static int Link(const char* from, const char* to) {
    const auto raw = [&] { return Raw(SYS_link, from, to); };
    return Named(to, raw, [&](DiskHistory& history, const std::string& path) {
      const int result = raw();
      if (result == 0) history.Linked(path);
      return result;
    });
  }

  static int Mkdir(const char* name, mode_t mode) {
    const auto raw = [&] { return Raw(SYS_mkdir, name, mode); };
    return Named(name, raw, [&](DiskHistory& history, const std::string& path) {
      const int result = raw();
      if (result == 0) history.MadeDir(path);
      return result;
    });
  }

  static ssize_t Read(int fd, void* data, size_t bytes, off_t offset) {
    const ssize_t n = ::syscall(SYS_pread64, fd, data, bytes, offset);
    Impl* const d = impl_;
    if (d == nullptr || n <= 0) return n;
    const DiskLock lock(&d->mu_);
    const std::optional<std::string> path = d->PathOf(fd);
    const int error = path ? d->Gate(DiskCall::kRead, *path) : 0;
    if (error > 0) return Fail(error);
    if (error < 0) static_cast<char*>(data)[n / 2] ^= 0x10;
    return n;
  }

 private:
  template <typename... Args>
  static int Raw(long number, Args... args) {
    return static_cast<int>(::syscall(number, args...));
  }
  static int Fail(int error) {
    errno = error;
    return -1;
  }
  template <typename RawCall, typename Body>
  static int Named(const char* name, const RawCall& raw, const Body& body) {
    Impl* const d = impl_;
    const std::string path = d == nullptr ? "" : Absolute(name);
    if (d == nullptr || !d->Concerns(path)) return raw();
    const DiskLock lock(&d->mu_);
    if (const int error = d->Gate(DiskCall::kName, path); error != 0) return Fail(error);
    return body(d->history_, path);
  }

  static inline std::atomic<FaultDisk::Impl*> impl_{nullptr};
};

FaultDisk::FaultDisk(const std::string& root) : impl_(std::make_unique<Impl>(root)) { DiskCalls::Use(impl_.get()); }
FaultDisk::~FaultDisk() { DiskCalls::Use(nullptr); }

void FaultDisk::CutPowerAfter(uint64_t calls, uint64_t seed) {
  const DiskLock lock(&impl_->mu_);
  impl_->seed_ = seed;
  impl_->cut_at_ = impl_->calls_ + calls;
  if (calls == 0) impl_->LosePower();
}
void FaultDisk::Inject(const DiskFault& fault) {
  const DiskLock lock(&impl_->mu_);
  impl_->faults_.push_back(fault);
  impl_->since_.clear();
  impl_->struck_ = false;
}
void FaultDisk::Heal() {
  const DiskLock lock(&impl_->mu_);
  impl_->faults_.clear();
}
uint64_t FaultDisk::calls() const {
  const DiskLock lock(&impl_->mu_);
  return impl_->calls_;
}
std::vector<std::string> FaultDisk::SinceFault(DiskCall call) const {
  const DiskLock lock(&impl_->mu_);
  std::vector<std::string> paths;
  for (const auto& [kind, path] : impl_->since_) {
    if (kind == call) paths.push_back(path);
  }
  return paths;
}

}  // namespace ballast::testing

// ---- the names that the program and its shared libraries call ----
using Calls = ballast::testing::DiskCalls;

extern "C" {

int open(const char* path, int flags, ...) {
  mode_t mode = 0;
  if ((flags & (O_CREAT | O_TMPFILE)) != 0) {
    va_list arguments;
    va_start(arguments, flags);
    mode = va_arg(arguments, mode_t);
    va_end(arguments);
  }
  return Calls::Open(path, flags, mode);
}
int close(int fd) { return Calls::Close(fd); }
ssize_t write(int fd, const void* data, size_t bytes) { return Calls::Write(fd, data, bytes, -1); }
ssize_t pwrite(int fd, const void* data, size_t bytes, off_t offset) { return Calls::Write(fd, data, bytes, offset); }
ssize_t pread(int fd, void* data, size_t bytes, off_t offset) { return Calls::Read(fd, data, bytes, offset); }
int fsync(int fd) { return Calls::Sync(fd, SYS_fsync); }
int fdatasync(int fd) { return Calls::Sync(fd, SYS_fdatasync); }
int rename(const char* from, const char* to) noexcept { return Calls::Rename(from, to); }
int link(const char* from, const char* to) noexcept { return Calls::Link(from, to); }
int unlink(const char* path) noexcept { return Calls::Unlink(path); }
int mkdir(const char* path, mode_t mode) noexcept { return Calls::Mkdir(path, mode); }
int ftruncate(int fd, off_t size) noexcept {
  return Calls::Resize(fd, static_cast<uint64_t>(size), ballast::testing::DiskCall::kName,
                       [&] { return static_cast<int>(syscall(SYS_ftruncate, fd, size)); });
}
int truncate(const char* path, off_t size) noexcept {
  const int fd = Calls::Open(path, O_RDWR | O_CLOEXEC, 0);
  if (fd < 0) return -1;
  const int result = ftruncate(fd, size);
  const int error = errno;
  (void)Calls::Close(fd);
  errno = error;
  return result;
}
int fallocate(int fd, int mode, off_t offset, off_t bytes) {
  const auto raw = [&] { return static_cast<int>(syscall(SYS_fallocate, fd, mode, offset, bytes)); };
  struct stat st;
  const off_t size = fstat(fd, &st) == 0 ? st.st_size : 0;
  const off_t after = mode == 0 && offset + bytes > size ? offset + bytes : size;
  return Calls::Resize(fd, static_cast<uint64_t>(after), ballast::testing::DiskCall::kSpace, raw);
}

}  // extern "C"
