// Writes the log of one run and shard: preallocated segments of 64 MiB, O_DIRECT, group writes of whole pages ended by a PAD record, one
// fdatasync a group, nothing ever written twice. Old segments are recycled by rename: overwriting blocks that were written before syncs in
// half the time of fresh ones. Where O_DIRECT is refused (tmpfs) the files are written buffered, and one log line says so.
//
// Threads: Append and the others from any thread; a thread of its own writes and syncs and calls the callbacks, in the order of the
// records. Append copies into the group that is being collected and returns; only a CONTRIBUTION waits, when buffered_bytes_max are not yet
// on disk.
//
// A failed write, preallocation or fsync ends the log: on_failed is called once, callbacks that are still due never come, nothing is
// retried (after a failed fsync the kernel may have dropped the pages). The process must stop; recovery reads what is really on disk.
#ifndef BALLAST_SERVER_STORAGE_SEGMENT_LOG_H_
#define BALLAST_SERVER_STORAGE_SEGMENT_LOG_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "core/record/log_record.h"
#include "server/storage/segment_reader.h"

namespace ballast {

struct SegmentLogOptions {
  std::string dir;                          // exists
  std::string run_record;                   // body of the RUN record that starts every segment
  uint64_t segment_bytes = 64u << 20;       // multiple of kLogPageBytes
  uint64_t buffered_bytes_max = 64u << 20;  // appended and not yet on disk
  uint64_t disk_reserve_bytes = 0;          // free space below which on_disk(true) is called
  bool retain_all = false;                  // Cut does nothing
  std::function<void(const absl::Status&)> on_failed;
  std::function<void(bool low, const std::string& reason)> on_disk;   // each change, once
  std::function<void(uint64_t bytes, double sync_seconds)> on_group;  // each group write
  std::function<void(uint64_t bytes)> on_cut;                         // segments that left the log
  std::function<int(int fd)> sync;                                    // tests: instead of fdatasync
};

class SegmentLog {
 public:
  // Goes on after `end` (of ReadLog) in a new segment, whose RUN record is on disk when Open returns. Errors: those of the first write.
  static absl::StatusOr<std::unique_ptr<SegmentLog>> Open(SegmentLogOptions options, const LogEnd& end);
  virtual ~SegmentLog() = default;  // what is appended is synced first, unless the log has failed

  // `body` in pieces. `on_synced` (may be empty) is called by the log's thread when the record is on disk. REQUIRES a body that fits
  // kRecordBodyMax and a segment. Errors: that of the failed log.
  virtual absl::StatusOr<LogPosition> Append(RecordKind kind, absl::Span<const absl::string_view> body,
                                             std::function<void()> on_synced) = 0;

  // Calls `then` from the log's thread (or at once) when the record `sequence` is on disk.
  virtual void WhenSynced(uint64_t sequence, std::function<void()> then) = 0;
  // Waits for it. Errors: that of the failed log.
  virtual absl::Status WaitSynced(uint64_t sequence) = 0;
  virtual uint64_t synced_sequence() = 0;

  // Segments below this one are not needed any more: recycled or deleted, later, by the log's thread.
  virtual void Cut(uint64_t first_needed_segment) = 0;
  virtual uint64_t segment() = 0;  // that is being written
};

}  // namespace ballast

#endif  // BALLAST_SERVER_STORAGE_SEGMENT_LOG_H_
