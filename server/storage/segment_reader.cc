#include "server/storage/segment_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <memory>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/storage/files.h"
#include "server/storage/high_mark.h"
#include "server/storage/segment_prefetch.h"

namespace ballast {
namespace {

constexpr absl::string_view kSuffix = ".log";

// What was synced is what the mark says at least; a log that never had a mark is believed as it is.
absl::Status CheckAgainstMark(const std::string& dir, const LogEnd& end) {
  const absl::StatusOr<uint64_t> mark = ReadHighMark(SyncedMarkPath(dir));
  if (absl::IsNotFound(mark.status())) return absl::OkStatus();
  if (!mark.ok()) return mark.status();
  if (*mark < end.next_sequence) return absl::OkStatus();
  if (end.tail_segment == 0) {
    return absl::DataLossError(absl::StrCat("no record is left of the log in ", dir, ", but record ", *mark, " was on disk"));
  }
  return SegmentLoss(
      dir, end.tail_segment, end.tail_offset,
      absl::StrCat("the log ends at record ", end.next_sequence - 1, ", but record ", *mark, " was on disk: records are lost"));
}

}  // namespace

std::string SyncedMarkPath(const std::string& dir) { return dir + "/SYNCED"; }

absl::StatusOr<std::vector<uint64_t>> ListSegments(const std::string& dir) {
  std::vector<uint64_t> segments;
  absl::StatusOr<std::vector<std::string>> names = ListDir(dir);
  if (absl::IsNotFound(names.status())) return segments;
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    if (!absl::EndsWith(name, kSuffix)) continue;
    const std::string digits = name.substr(0, name.size() - kSuffix.size());
    uint64_t number = 0;
    const bool numeric =
        digits.size() >= 8 && std::all_of(digits.begin(), digits.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
    if (numeric && absl::SimpleAtoi(digits, &number)) segments.push_back(number);
  }
  std::sort(segments.begin(), segments.end());
  return segments;
}

absl::StatusOr<uint64_t> LogFileBytes(const std::string& dir) {
  absl::StatusOr<std::vector<uint64_t>> segments = ListSegments(dir);
  if (!segments.ok()) return segments.status();
  uint64_t bytes = 0;
  for (uint64_t segment : *segments) {
    struct stat st;
    if (::stat(SegmentPath(dir, segment).c_str(), &st) == 0) bytes += static_cast<uint64_t>(st.st_size);
  }
  return bytes;
}

absl::StatusOr<std::vector<std::string>> ListSpares(const std::string& dir) {
  absl::StatusOr<std::vector<std::string>> names = ListDir(dir);
  if (!names.ok()) return names.status();
  std::vector<std::string> spares;
  for (const std::string& name : *names) {
    if (absl::StartsWith(name, "spare-")) spares.push_back(name);
  }
  std::sort(spares.begin(), spares.end());
  return spares;
}

absl::StatusOr<LogEnd> ReadLog(const std::string& dir, bool sync_first,
                               absl::FunctionRef<absl::Status(const RecordHeader&, const LogPosition&, absl::string_view)> visit) {
  absl::StatusOr<std::vector<uint64_t>> segments = ListSegments(dir);
  if (!segments.ok()) return segments.status();
  std::vector<std::string> paths;
  for (uint64_t segment : *segments) paths.push_back(SegmentPath(dir, segment));
  SegmentPrefetch prefetch(std::move(paths), sync_first);
  LogWalk walk(dir, visit);
  for (size_t i = 0; i < segments->size(); ++i) {
    const uint64_t segment = (*segments)[i];
    if (i > 0 && segment != (*segments)[i - 1] + 1) {
      return absl::DataLossError(absl::StrCat(SegmentPath(dir, (*segments)[i - 1] + 1), " is missing, but later segments are there"));
    }
    absl::StatusOr<FileBytes> bytes = prefetch.Next();
    if (!bytes.ok()) return bytes.status();
    if (absl::Status s = walk.Segment(segment, bytes->view()); !s.ok()) return s;
    prefetch.Reuse(*std::move(bytes));
  }
  if (absl::Status s = CheckAgainstMark(dir, walk.end()); !s.ok()) return s;
  return walk.end();
}

absl::StatusOr<std::string> ReadRecordAt(const std::string& dir, const LogPosition& at, RecordKind kind) {
  const std::string path = SegmentPath(dir, at.segment);
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return FileError("open", path, errno);
  const auto read = [&](uint64_t offset, uint64_t bytes) -> absl::StatusOr<std::string> {
    std::string out(bytes, '\0');
    for (size_t done = 0; done < out.size();) {
      const ssize_t n = ::pread(fd.get(), out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return FileError(absl::StrCat("read at byte ", offset, " of"), path, errno);
      if (n == 0) return SegmentLoss(dir, at.segment, offset, "the file ends inside a record");
      done += static_cast<size_t>(n);
    }
    return out;
  };
  absl::StatusOr<std::string> raw = read(at.offset, kRecordHeaderBytes);
  if (!raw.ok()) return raw.status();
  absl::StatusOr<RecordHeader> header = ParseRecordHeader(*raw);
  if (!header.ok()) return SegmentLoss(dir, at.segment, at.offset, header.status().message());
  if (header->segment != at.segment || header->sequence != at.sequence || header->kind != kind || header->body_bytes > kRecordBodyMax) {
    return SegmentLoss(dir, at.segment, at.offset, absl::StrCat("expected record ", at.sequence, ", found ", header->sequence));
  }
  absl::StatusOr<std::string> body = read(at.offset + kRecordHeaderBytes, header->body_bytes);
  if (!body.ok()) return body;
  RecordHeader again = *header;
  char encoded[kRecordHeaderBytes];
  const absl::string_view piece = *body;
  EncodeRecordHeader(again, absl::MakeConstSpan(&piece, 1), absl::MakeSpan(encoded));
  if (again.chain != header->chain) return SegmentLoss(dir, at.segment, at.offset, "the record does not match its checksum");
  return body;
}

}  // namespace ballast
