#include "server/storage/segment_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/record/log_record.h"
#include "server/failpoint.h"
#include "server/storage/segment_reader.h"

namespace ballast {
namespace {

constexpr size_t kSparesMax = 2;
constexpr size_t kFirstCapacity = 256u << 10;

// Blocks of the file system for the whole file, so that a write never has to find room. A file system without fallocate gets a sparse file.
absl::Status Preallocate(int fd, const std::string& path, uint64_t bytes) {
  if (::fallocate(fd, 0, 0, static_cast<off_t>(bytes)) == 0) return absl::OkStatus();
  if (errno != EOPNOTSUPP && errno != ENOSYS) return FileError(absl::StrCat("preallocate ", bytes, " bytes of"), path, errno);
  if (::ftruncate(fd, static_cast<off_t>(bytes)) != 0) return FileError("resize", path, errno);
  return absl::OkStatus();
}

}  // namespace

char* PageBuffer::Extend(size_t bytes) {
  if (size_ + bytes > capacity_) {
    size_t capacity = std::max(capacity_ * 2, kFirstCapacity);
    while (capacity < size_ + bytes) capacity *= 2;
    std::unique_ptr<char, Free> larger(static_cast<char*>(std::aligned_alloc(kLogPageBytes, capacity)));
    if (larger == nullptr) throw std::bad_alloc();
    if (size_ != 0) std::memcpy(larger.get(), data_.get(), size_);
    data_ = std::move(larger);
    capacity_ = capacity;
  }
  char* at = data_.get() + size_;
  size_ += bytes;
  return at;
}

absl::StatusOr<SegmentFile> SegmentFile::Create(const std::string& dir, uint64_t segment, uint64_t bytes) {
  BALLAST_FAILPOINT_STATUS("segment-create");
  const std::string path = SegmentPath(dir, segment);
  absl::StatusOr<std::vector<std::string>> spares = ListSpares(dir);
  if (!spares.ok()) return spares.status();
  int flags = O_WRONLY | O_CLOEXEC;
  if (!spares->empty()) {
    const std::string spare = dir + "/" + spares->front();
    BALLAST_FAILPOINT_STATUS("spare-rename");
    if (::rename(spare.c_str(), path.c_str()) != 0) return FileError("rename", spare, errno);
    BALLAST_FAILPOINT("spare-renamed");
  } else {
    flags |= O_CREAT | O_EXCL;
  }
  bool direct = true;
  UniqueFd fd(::open(path.c_str(), flags | O_DIRECT, 0600));
  if (fd.get() < 0 && errno == EINVAL) {  // tmpfs and friends; O_EXCL: the file may have been made by the call that failed
    direct = false;
    fd = UniqueFd(::open(path.c_str(), (flags & ~O_EXCL), 0600));
  }
  if (fd.get() < 0) return FileError("open", path, errno);
  BALLAST_FAILPOINT_STATUS("segment-preallocate");
  if (absl::Status s = Preallocate(fd.get(), path, bytes); !s.ok()) return s;
  BALLAST_FAILPOINT_STATUS("segment-preallocated");
  if (::fsync(fd.get()) != 0) return FileError("fsync", path, errno);
  if (absl::Status s = SyncDir(dir); !s.ok()) return s;
  BALLAST_FAILPOINT("segment-created");
  return SegmentFile(path, std::move(fd), direct);
}

absl::Status SegmentFile::WriteAt(uint64_t offset, absl::string_view pages) const {
  BALLAST_FAILPOINT_STATUS("segment-write");
  while (!pages.empty()) {
    const ssize_t n = ::pwrite(fd_.get(), pages.data(), pages.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError(absl::StrCat("write at byte ", offset, " of"), path_, errno);
    if (n == 0 || (direct_ && n % static_cast<ssize_t>(kLogPageBytes) != 0)) {
      return absl::InternalError(absl::StrCat("write at byte ", offset, " of ", path_, ": ", n, " of ", pages.size(), " bytes written"));
    }
    pages.remove_prefix(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  BALLAST_FAILPOINT("segment-written");
  return absl::OkStatus();
}

absl::Status SegmentFile::Sync(const std::function<int(int fd)>& sync) const {
  BALLAST_FAILPOINT_STATUS("segment-sync");
  if ((sync ? sync(fd_.get()) : ::fdatasync(fd_.get())) != 0) return FileError("fdatasync", path_, errno);
  BALLAST_FAILPOINT("segment-synced");
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> RecycleSegments(const std::string& dir, uint64_t first_needed) {
  absl::StatusOr<std::vector<uint64_t>> segments = ListSegments(dir);
  if (!segments.ok()) return segments.status();
  absl::StatusOr<std::vector<std::string>> spares = ListSpares(dir);
  if (!spares.ok()) return spares.status();
  size_t kept = spares->size();
  uint64_t bytes = 0;
  for (uint64_t segment : *segments) {
    if (segment >= first_needed) break;
    const std::string path = SegmentPath(dir, segment);
    struct stat st;
    if (::stat(path.c_str(), &st) == 0) bytes += static_cast<uint64_t>(st.st_size);
    if (kept < kSparesMax) {
      BALLAST_FAILPOINT_STATUS("segment-recycle");
      ++kept;
      const std::string spare = absl::StrFormat("%s/spare-%08d", dir, segment);
      if (::rename(path.c_str(), spare.c_str()) != 0) return FileError("rename", path, errno);
      BALLAST_FAILPOINT("segment-recycled");
    } else {
      BALLAST_FAILPOINT_STATUS("segment-delete");
      if (::unlink(path.c_str()) != 0) return FileError("delete", path, errno);
      BALLAST_FAILPOINT("segment-deleted");
    }
    // One after another: a crash may leave any prefix of the log cut, never a hole in it.
    if (absl::Status s = SyncDir(dir); !s.ok()) return s;
  }
  return bytes;
}

absl::Status TrimSegment(const std::string& dir, uint64_t segment, uint64_t bytes) {
  const std::string path = SegmentPath(dir, segment);
  struct stat st;
  if (::stat(path.c_str(), &st) != 0) return FileError("stat", path, errno);
  if (static_cast<uint64_t>(st.st_size) <= bytes) return absl::OkStatus();
  BALLAST_FAILPOINT_STATUS("segment-trim");
  if (::truncate(path.c_str(), static_cast<off_t>(bytes)) != 0) return FileError("truncate", path, errno);
  BALLAST_FAILPOINT("segment-trimmed");
  return absl::OkStatus();
}

}  // namespace ballast
