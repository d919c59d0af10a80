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
#include "server/storage/log_walk.h"

namespace ballast {

// HighMark (high_mark.h) of the log: the highest sequence number that was synced, as its writer last said.
std::string SyncedMarkPath(const std::string& dir);
// Numbers of the segments in `dir`, ascending; empty when there is no such directory.
absl::StatusOr<std::vector<uint64_t>> ListSegments(const std::string& dir);
// Size of all of them, their preallocated ends included.
absl::StatusOr<uint64_t> LogFileBytes(const std::string& dir);
// Names of recycled files that wait for another use.
absl::StatusOr<std::vector<std::string>> ListSpares(const std::string& dir);

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
