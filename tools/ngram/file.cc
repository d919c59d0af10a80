#include "tools/ngram/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace ballast::ngram {
namespace {

constexpr size_t kBufferBytes = 256 << 10;
constexpr size_t kLineBytes = 48 << 10;  // A multiple of 3: no line but the last is padded.

bool IsStandard(absl::string_view path) { return path == "-" || path == kStandardLines; }

absl::Status SystemError(absl::string_view what, const std::string& path, int error) {
  const std::string text = absl::StrCat(what, " ", IsStandard(path) ? "the standard stream" : path, ": ", std::strerror(error));
  if (error == ENOSPC || error == EDQUOT) return absl::ResourceExhaustedError(text);
  if (error == ENOENT) return absl::NotFoundError(text);
  return absl::UnavailableError(text);
}

}  // namespace

absl::StatusOr<std::unique_ptr<OutputFile>> OutputFile::Create(const std::string& path) {
  if (IsStandard(path)) return std::unique_ptr<OutputFile>(new OutputFile(STDOUT_FILENO, path, ""));
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

absl::Status OutputFile::WriteOut(const char* data, size_t size) {
  if (path_ != kStandardLines) return WriteThrough(data, size);
  for (size_t done = 0; done < size; done += kLineBytes) {
    const std::string line = absl::Base64Escape(absl::string_view(data + done, std::min(kLineBytes, size - done))) + "\n";
    if (absl::Status written = WriteThrough(line.data(), line.size()); !written.ok()) return written;
  }
  return absl::OkStatus();
}

absl::Status OutputFile::Flush() {
  const size_t size = std::exchange(used_, 0);
  return WriteOut(buffer_.data(), size);
}

absl::Status OutputFile::Write(const void* data, size_t size) {
  if (!status_.ok()) return status_;
  if (size > buffer_.size() - used_) {
    if (absl::Status flushed = Flush(); !flushed.ok()) return flushed;
    if (size >= buffer_.size()) return WriteOut(static_cast<const char*>(data), size);
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
  if (IsStandard(path)) return std::unique_ptr<InputFile>(new InputFile(STDIN_FILENO, path));
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return SystemError("cannot read", path, errno);
  return std::unique_ptr<InputFile>(new InputFile(fd, path));
}

InputFile::InputFile(int fd, std::string path) : fd_(fd), path_(std::move(path)), lines_(path_ == kStandardLines), buffer_(kBufferBytes) {}

InputFile::~InputFile() {
  if (fd_ != STDIN_FILENO) close(fd_);
}

absl::StatusOr<size_t> InputFile::ReadThrough(char* data, size_t size) {
  ssize_t got;
  do {
    got = read(fd_, data, size);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return SystemError("cannot read", path_, errno);
  return static_cast<size_t>(got);
}

absl::Status InputFile::Fill() {
  if (lines_) return FillDecoded();
  absl::StatusOr<size_t> got = ReadThrough(buffer_.data(), buffer_.size());
  if (!got.ok()) return got.status();
  begin_ = 0;
  end_ = *got;
  return absl::OkStatus();
}

absl::Status InputFile::FillDecoded() {
  std::string decoded;
  bool more = true;
  while (more && decoded.empty()) {
    size_t end;
    while ((end = undecoded_.find('\n')) == std::string::npos) {
      const size_t there = undecoded_.size();
      undecoded_.resize(there + kBufferBytes);
      absl::StatusOr<size_t> got = ReadThrough(&undecoded_[there], kBufferBytes);
      undecoded_.resize(there + (got.ok() ? *got : 0));
      if (!got.ok()) return got.status();
      if (*got == 0) break;
    }
    more = end != std::string::npos;
    if (!absl::Base64Unescape(absl::string_view(undecoded_).substr(0, end), &decoded))
      return absl::DataLossError("standard input holds a line that is no base64");
    undecoded_.erase(0, more ? end + 1 : end);
  }
  buffer_.assign(decoded.begin(), decoded.end());
  begin_ = 0;
  end_ = buffer_.size();
  return absl::OkStatus();
}

absl::StatusOr<bool> InputFile::AtEnd() {
  if (begin_ == end_) {
    if (absl::Status filled = Fill(); !filled.ok()) return filled;
  }
  return begin_ == end_;
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
