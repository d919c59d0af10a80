// The log of a shard on disk: core/record/log_record and server/storage/log_walk over memory, and segment_reader over files now and then (a
// thread and three files cost more than all the rest). Damage of any kind is refused or cuts the log; a record that was not written, or
// another one in its place, is never read.
#include <filesystem>
#include <fstream>
#include <vector>

#include "core/record/hash.h"
#include "core/record/log_record.h"
#include "server/storage/log_walk.h"
#include "server/storage/segment_reader.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/temp_folder.h"

namespace ballast {
namespace {

struct Written {
  RecordKind kind;
  std::string body;
  LogPosition at;
};

struct Log {
  std::vector<std::string> segments;
  std::vector<Written> records;  // without PADs
  bool forged = false;           // a header was changed and sealed again: no checksum can tell
};

Log Write(fuzz::Input& in) {
  Log log;
  uint64_t sequence = 1, chain = 0, synced = 0;
  log.segments.resize(1 + in.Below(3));
  for (size_t s = 0; s < log.segments.size(); ++s) {
    std::string& segment = log.segments[s];
    for (uint64_t n = in.Below(6); n > 0; --n) {
      const std::string body = in.Text(48);
      RecordHeader header;
      header.kind = static_cast<RecordKind>(1 + in.Below(5));
      header.body_bytes = static_cast<uint32_t>(body.size());
      header.segment = s + 1;
      header.sequence = sequence++;
      if (in.Bool()) synced = header.sequence - 1;
      header.synced = synced;
      header.previous_chain = chain;
      char head[kRecordHeaderBytes];
      const absl::string_view piece = body;
      EncodeRecordHeader(header, absl::MakeConstSpan(&piece, 1), absl::MakeSpan(head));
      chain = header.chain;
      const uint64_t at = segment.size();
      segment.append(head, sizeof head);
      segment += body;
      segment.resize(at + RecordBytes(body.size()), '\0');
      if (header.kind != RecordKind::kPad) log.records.push_back({header.kind, body, {header.sequence, s + 1, at}});
    }
    segment.append(in.Below(3) * 64, '\0');
  }
  return log;
}

void Damage(fuzz::Input& in, Log& log) {
  for (uint64_t n = in.Below(4); n > 0; --n) {
    std::string& segment = log.segments[in.Below(log.segments.size())];
    if (segment.empty()) continue;
    const size_t at = in.Below(segment.size());
    switch (in.Below(6)) {
      case 0:
        segment[at] = static_cast<char>(segment[at] ^ (1 << in.Below(8)));
        break;
      case 1:
        segment.resize(at);
        break;
      case 2:
        std::fill(segment.begin() + static_cast<ptrdiff_t>(at), segment.end(), '\0');
        break;
      case 3: {  // an old record of the same file, or one of another
        const std::string other = log.segments[in.Below(log.segments.size())];
        const size_t from = in.Below(other.size() + 1) / 8 * 8;
        segment.replace(at / 8 * 8, other.size() - from, other.substr(from));
        break;
      }
      case 4: {  // hostile: a header with any number in it, sealed
        const size_t head = at / 8 * 8;
        if (segment.size() - head < kRecordHeaderBytes) break;
        const uint64_t value = in.U64();
        std::memcpy(&segment[head + 8 * in.Below(7)], &value, sizeof value);
        const uint64_t sum = Hash64(absl::string_view(segment).substr(head, 56));
        std::memcpy(&segment[head + 56], &sum, sizeof sum);
        log.forged = true;
        break;
      }
      default:
        segment += in.Text(64);
    }
  }
}

// Takes what a reader of the log visits: the records that were written, in order.
class Visited {
 public:
  explicit Visited(const Log& log) : log_(log) {}

  absl::Status Take(const RecordHeader& header, const LogPosition& at, absl::string_view body) {
    read.emplace_back(at, header.kind);
    if (log_.forged) return absl::OkStatus();
    FUZZ_CHECK(next_ < log_.records.size());
    const Written& written = log_.records[next_++];
    FUZZ_CHECK(header.kind == written.kind && body == written.body && at.sequence == written.at.sequence);
    return absl::OkStatus();
  }
  auto visit() {
    return [this](const RecordHeader& header, const LogPosition& at, absl::string_view body) { return Take(header, at, body); };
  }

  std::vector<std::pair<LogPosition, RecordKind>> read;

 private:
  const Log& log_;
  size_t next_ = 0;
};

void CheckLoss(const absl::Status& status) {
  if (status.ok()) return;
  fuzz::CheckRefusal(status);
  FUZZ_CHECK(absl::IsDataLoss(status));
}

absl::Status Walk(const Log& log) {
  Visited visited(log);
  const auto visit = visited.visit();
  LogWalk walk("log", visit);
  for (size_t s = 0; s < log.segments.size(); ++s) {
    if (absl::Status status = walk.Segment(s + 1, log.segments[s]); !status.ok()) return status;
  }
  return absl::OkStatus();
}

void ReadFiles(const Log& log, const absl::Status& walked) {
  const std::string& folder = fuzz::TempFolder();
  for (size_t s = 0; s < 3; ++s) {
    const std::string path = SegmentPath(folder, s + 1);
    if (s >= log.segments.size()) {
      std::error_code ignored;
      std::filesystem::remove(path, ignored);
    } else {
      std::ofstream(path, std::ios::binary | std::ios::trunc) << log.segments[s];
    }
  }
  Visited visited(log);
  const auto end = ReadLog(folder, false, visited.visit());
  FUZZ_CHECK(end.ok() == walked.ok());
  CheckLoss(end.status());
  for (const auto& [at, kind] : visited.read) {
    const auto body = ReadRecordAt(folder, at, kind);
    FUZZ_CHECK(log.forged || body.ok());
  }
}

void Scan(absl::string_view bytes) {
  for (SegmentScanner scanner : {SegmentScanner(bytes, 1), SegmentScanner(bytes, 1, 1, 0)}) {
    uint64_t end = 0;
    while (scanner.Next() == ScanResult::kRecord) {
      FUZZ_CHECK(scanner.offset() > end && scanner.offset() <= bytes.size());
      end = scanner.offset();
    }
    FUZZ_CHECK(scanner.offset() == end);
  }
  if (const auto header = ParseRecordHeader(bytes); !header.ok()) fuzz::CheckRefusal(header.status());
  if (const auto run = ParseRunRecord(bytes); run.ok()) FUZZ_CHECK(EncodeRunRecord(*run) == bytes);
  if (const auto root = ParseHashRoot(bytes); root.ok()) FUZZ_CHECK(EncodeHashRoot(*root) == bytes);
}

}  // namespace
}  // namespace ballast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ballast::fuzz::Input in(data, size);
  const uint8_t kind = in.Byte();
  if (kind % 4 == 0) {
    ballast::Scan(in.rest());
    return 0;
  }
  ballast::Log log = ballast::Write(in);
  ballast::Damage(in, log);
  for (const std::string& segment : log.segments) ballast::Scan(segment);
  const absl::Status walked = ballast::Walk(log);
  ballast::CheckLoss(walked);
  if (kind % 64 == 1) ballast::ReadFiles(log, walked);
  return 0;
}
