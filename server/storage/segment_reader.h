// Reads a shard's log back: all segments of a directory in order, every record checked (core/record/log_record.h), the torn tail of a crash
// told apart from damage. Used by recovery, by replay and by readers of single decisions. Threads: any, but a directory that is being
// written is read only record by record (ReadRecordAt). Errors: DataLoss with file and offset; whatever was synced is never passed over.
#ifndef BALLAST_SERVER_STORAGE_SEGMENT_READER_H_
#define BALLAST_SERVER_STORAGE_SEGMENT_READER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
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
// HighMark (high_mark.h) of the log: the highest sequence number that was synced, as its writer last said.
std::string SyncedMarkPath(const std::string& dir);
// Numbers of the segments in `dir`, ascending; empty when there is no such directory.
absl::StatusOr<std::vector<uint64_t>> ListSegments(const std::string& dir);
// Size of all of them, their preallocated ends included.
absl::StatusOr<uint64_t> LogFileBytes(const std::string& dir);
// Names of recycled files that wait for another use.
absl::StatusOr<std::vector<std::string>> ListSpares(const std::string& dir);

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

// Visits every record but PADs, in order. `body` lives until `visit` returns; its error ends the reading and is returned. A log that ends
// before its synced mark has lost something, however much its end looks like a torn tail: DataLoss.
// `sync_first`: each segment is synced before it is read, so that what is believed now cannot vanish later (a page that another process
// wrote may still be in the page cache only).
absl::StatusOr<LogEnd> ReadLog(
    const std::string& dir, bool sync_first,
    absl::FunctionRef<absl::Status(const RecordHeader& header, const LogPosition& at, absl::string_view body)> visit);

// One record again, checked against its own chain. Errors: NotFound when the segment was cut meanwhile; DataLoss.
absl::StatusOr<std::string> ReadRecordAt(const std::string& dir, const LogPosition& at, RecordKind kind);

}  // namespace ballast

#endif  // BALLAST_SERVER_STORAGE_SEGMENT_READER_H_
