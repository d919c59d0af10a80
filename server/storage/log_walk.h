// Follows a log through the bytes of its segments, one after another: every record checked (core/record/log_record.h), the torn tail of a
// crash told apart from damage. No files: segment_reader.h brings the bytes. Threads: one. Errors: DataLoss with file and offset.
#ifndef BALLAST_SERVER_STORAGE_LOG_WALK_H_
#define BALLAST_SERVER_STORAGE_LOG_WALK_H_

#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "core/record/log_record.h"

namespace ballast {

// Where a record is.
struct LogPosition {
  uint64_t sequence = 0;
  uint64_t segment = 0;
  uint64_t offset = 0;  // in the segment
};

std::string SegmentPath(const std::string& dir, uint64_t segment);

// Where a log ends, and how it goes on: always in a new segment, so that nothing that was written once is written again.
struct LogEnd {
  uint64_t last_segment = 0;  // highest number in the directory, 0: none
  uint64_t next_sequence = 1;
  uint64_t chain = 0;
  uint64_t tail_segment = 0;  // of the last good record, 0: none
  uint64_t tail_offset = 0;   // its end
  uint64_t bytes = 0;         // of all good records
  uint64_t torn_segment = 0;  // where unsynced bytes were dropped, 0: nowhere
  uint64_t torn_offset = 0;
};

class LogWalk {
 public:
  // `body` lives until `visit` returns; its error ends the walk.
  using Visit = absl::FunctionRef<absl::Status(const RecordHeader& header, const LogPosition& at, absl::string_view body)>;
  // `dir` is for messages only.
  LogWalk(const std::string& dir, Visit visit) : dir_(dir), visit_(visit) {}

  // The next segment: visits every record of it but PADs. Not to be called again after an error.
  absl::Status Segment(uint64_t segment, absl::string_view bytes);
  const LogEnd& end() const { return end_; }

 private:
  absl::Status Corrupt(uint64_t segment, const SegmentScanner& scanner) const;
  void NoteTorn(uint64_t segment, uint64_t offset);
  absl::Status NothingHere(uint64_t segment, absl::string_view bytes, const SegmentScanner& scanner, ScanResult result);

  const std::string dir_;
  const Visit visit_;
  bool anchored_ = false;  // end_.next_sequence and end_.chain are known
  LogEnd end_;
};

// DataLoss of the file of a segment.
absl::Status SegmentLoss(const std::string& dir, uint64_t segment, uint64_t offset, absl::string_view what);

}  // namespace ballast

#endif  // BALLAST_SERVER_STORAGE_LOG_WALK_H_
