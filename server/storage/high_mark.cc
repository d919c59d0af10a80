#include "server/storage/high_mark.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "core/record/hash.h"

namespace ballast {
namespace {

constexpr size_t kCopies = 2;
constexpr size_t kCopyApart = 512;  // a sector, which the disk writes whole
constexpr size_t kCopyBytes = 2 * sizeof(uint64_t);

// Value, then its XXH3-64, both little-endian.
std::string EncodeCopy(uint64_t value) {
  std::string out(kCopyBytes, '\0');
  std::memcpy(out.data(), &value, sizeof(value));
  const uint64_t checksum = Hash64(absl::string_view(out).substr(0, sizeof(value)));
  std::memcpy(out.data() + sizeof(value), &checksum, sizeof(checksum));
  return out;
}

}  // namespace

absl::StatusOr<uint64_t> ReadHighMark(const std::string& path) {
  absl::StatusOr<std::string> bytes = ReadFile(path);
  if (!bytes.ok()) return bytes.status();
  uint64_t highest = 0;
  bool whole = false;
  for (size_t copy = 0; copy < kCopies; ++copy) {
    const size_t at = copy * kCopyApart;
    if (bytes->size() < at + kCopyBytes) break;
    uint64_t value = 0;
    std::memcpy(&value, bytes->data() + at, sizeof(value));
    if (bytes->compare(at, kCopyBytes, EncodeCopy(value)) != 0) continue;
    whole = true;
    highest = std::max(highest, value);
  }
  if (!whole) return absl::DataLossError(absl::StrCat(path, " at byte 0: neither copy of the mark matches its checksum"));
  return highest;
}

absl::StatusOr<HighMark> HighMark::Create(const std::string& path, uint64_t value) {
  std::string bytes = EncodeCopy(value);
  bytes.resize(kCopyApart, '\0');
  bytes += EncodeCopy(value);
  if (absl::Status s = WriteFileAtomically(path, bytes); !s.ok()) return s;
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (fd.get() < 0) return FileError("open", path, errno);
  return HighMark(path, std::move(fd));
}

absl::Status HighMark::Set(uint64_t value) {
  const std::string copy = EncodeCopy(value);
  const ssize_t n = ::pwrite(fd_.get(), copy.data(), copy.size(), static_cast<off_t>(next_copy_ * kCopyApart));
  if (n != static_cast<ssize_t>(copy.size())) return FileError("write", path_, n < 0 ? errno : EIO);
  next_copy_ = 1 - next_copy_;
  return absl::OkStatus();
}

absl::Status HighMark::Sync() const {
  if (::fdatasync(fd_.get()) != 0) return FileError("fdatasync", path_, errno);
  return absl::OkStatus();
}

}  // namespace ballast
