// Bytes in and out of files and pipes, with large buffers. One thread at a time.
#ifndef BALLAST_TOOLS_NGRAM_FILE_H_
#define BALLAST_TOOLS_NGRAM_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ballast::ngram {

// A name for standard input and output as lines of base64, for pipes that carry nothing but text. Decoded, they are the stream; where the
// lines are cut does not matter.
inline constexpr char kStandardLines[] = "-lines";

// A file that has its name only once it is whole: written beside it, renamed by Commit. Without Commit nothing is left under the name.
class OutputFile {
 public:
  // "-" is standard output, which has no name to protect; kStandardLines is the same in lines of base64. Errors: Unavailable when the file
  // cannot be made.
  static absl::StatusOr<std::unique_ptr<OutputFile>> Create(const std::string& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // Errors: ResourceExhausted when the disk is full, else Unavailable; every later call then fails too.
  [[nodiscard]] absl::Status Write(const void* data, size_t size);
  [[nodiscard]] absl::Status Write(absl::string_view text) { return Write(text.data(), text.size()); }
  // Flushes and gives the file its name.
  [[nodiscard]] absl::Status Commit();

 private:
  OutputFile(int fd, std::string path, std::string temporary);
  absl::Status Flush();
  absl::Status WriteOut(const char* data, size_t size);
  absl::Status WriteThrough(const char* data, size_t size);

  int fd_;
  const std::string path_;
  const std::string temporary_;  // Empty for standard output and once committed.
  std::vector<char> buffer_;
  size_t used_ = 0;
  absl::Status status_;
  bool committed_ = false;
};

class InputFile {
 public:
  // "-" is standard input, also as kStandardLines. Errors: NotFound, or Unavailable when it cannot be read.
  static absl::StatusOr<std::unique_ptr<InputFile>> Open(const std::string& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  // Up to `size` bytes; fewer only at the end.
  absl::StatusOr<size_t> Read(void* data, size_t size);
  // The next bytes that are there, without a copy; empty at the end. Valid until the next call.
  absl::StatusOr<absl::string_view> ReadSome();
  absl::StatusOr<bool> AtEnd();
  // All of `size` bytes from `offset` on, past the buffer; only for files. Errors: DataLoss when the file is shorter.
  [[nodiscard]] absl::Status ReadAt(uint64_t offset, void* data, size_t size) const;
  const std::string& path() const { return path_; }

 private:
  InputFile(int fd, std::string path);
  absl::Status Fill();
  absl::Status FillDecoded();
  absl::StatusOr<size_t> ReadThrough(char* data, size_t size);

  const int fd_;
  const std::string path_;
  const bool lines_;
  std::string undecoded_;  // Of kStandardLines: lines that were read, the last one perhaps in part.
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;
};

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_FILE_H_
