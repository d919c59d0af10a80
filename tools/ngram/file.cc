#include "tools/ngram/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ballast::ngram {
namespace {

constexpr size_t kBufferBytes = 256 << 10;

absl::Status SystemError(absl::string_view what, const std::string& path, int error) {
  const std::string text = absl::StrCat(what, " ", path == "-" ? "the standard stream" : path, ": ", std::strerror(error));
  if (error == ENOSPC || error == EDQUOT) return absl::ResourceExhaustedError(text);
  if (error == ENOENT) return absl::NotFoundError(text);
  return absl::UnavailableError(text);
}

}  // namespace

absl::StatusOr<std::unique_ptr<OutputFile>> OutputFile::Create(const std::string& path) {
  if (path == "-") return std::unique_ptr<OutputFile>(new OutputFile(STDOUT_FILENO, path, ""));
  std::string temporary = absl::StrCat(path, ".part.", getpid());
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return SystemError("cannot write", path, errno);
  return std::unique_ptr<OutputFile>(new OutputFile(fd, path, std::move(temporary)));
}

OutputFile::OutputFile(int fd, std::string path, std::string temporary)
    : fd_(fd), path_(std::move(path)), temporary_(std::move(temporary)), buffer_(kBufferBytes) {}

OutputFile::~OutputFile() {
  if (temporary_.empty()) return;
  if (fd_ >= 0) close(fd_);
  if (!committed_) unlink(temporary_.c_str());
}

absl::Status OutputFile::WriteThrough(const char* data, size_t size) {
  while (size > 0) {
    const ssize_t written = write(fd_, data, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return status_ = SystemError("cannot write", path_, errno);
    data += written;
    size -= static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

absl::Status OutputFile::Flush() {
  const size_t size = std::exchange(used_, 0);
  return WriteThrough(buffer_.data(), size);
}

absl::Status OutputFile::Write(const void* data, size_t size) {
  if (!status_.ok()) return status_;
  if (size > buffer_.size() - used_) {
    if (absl::Status flushed = Flush(); !flushed.ok()) return flushed;
    if (size >= buffer_.size()) return WriteThrough(static_cast<const char*>(data), size);
  }
  std::memcpy(buffer_.data() + used_, data, size);
  used_ += size;
  return absl::OkStatus();
}

absl::Status OutputFile::Commit() {
  if (!status_.ok()) return status_;
  if (absl::Status flushed = Flush(); !flushed.ok()) return flushed;
  committed_ = true;
  if (temporary_.empty()) return absl::OkStatus();
  // A full network disk may say so only now.
  if (close(std::exchange(fd_, -1)) != 0) {
    status_ = SystemError("cannot write", path_, errno);
  } else if (rename(temporary_.c_str(), path_.c_str()) != 0) {
    status_ = SystemError("cannot rename to", path_, errno);
  }
  committed_ = status_.ok();
  return status_;
}

absl::StatusOr<std::unique_ptr<InputFile>> InputFile::Open(const std::string& path) {
  if (path == "-") return std::unique_ptr<InputFile>(new InputFile(STDIN_FILENO, path));
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return SystemError("cannot read", path, errno);
  return std::unique_ptr<InputFile>(new InputFile(fd, path));
}

InputFile::InputFile(int fd, std::string path) : fd_(fd), path_(std::move(path)), buffer_(kBufferBytes) {}

InputFile::~InputFile() {
  if (fd_ != STDIN_FILENO) close(fd_);
}

absl::Status InputFile::Fill() {
  ssize_t got;
  do {
    got = read(fd_, buffer_.data(), buffer_.size());
  } while (got < 0 && errno == EINTR);
  if (got < 0) return SystemError("cannot read", path_, errno);
  begin_ = 0;
  end_ = static_cast<size_t>(got);
  return absl::OkStatus();
}

absl::StatusOr<size_t> InputFile::Read(void* data, size_t size) {
  size_t done = 0;
  while (done < size) {
    if (begin_ == end_) {
      if (absl::Status filled = Fill(); !filled.ok()) return filled;
      if (end_ == 0) break;
    }
    const size_t now = std::min(size - done, end_ - begin_);
    std::memcpy(static_cast<char*>(data) + done, buffer_.data() + begin_, now);
    begin_ += now;
    done += now;
  }
  return done;
}

absl::StatusOr<absl::string_view> InputFile::ReadSome() {
  if (begin_ == end_) {
    if (absl::Status filled = Fill(); !filled.ok()) return filled;
  }
  absl::string_view some(buffer_.data() + begin_, end_ - begin_);
  begin_ = end_;
  return some;
}

absl::Status InputFile::ReadAt(uint64_t offset, void* data, size_t size) const {
  for (size_t done = 0; done < size;) {
    const ssize_t got = pread(fd_, static_cast<char*>(data) + done, size - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return SystemError("cannot read", path_, errno);
    if (got == 0) return absl::DataLossError(absl::StrCat(path_, " ends at byte ", offset + done, ": cut off"));
    done += static_cast<size_t>(got);
  }
  return absl::OkStatus();
}

}  // namespace ballast::ngram
