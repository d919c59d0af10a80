// Records of a shard's log, over memory that the caller holds; the segment files themselves are server/storage's. Format, with an example:
// docs/wire_format.md. Free functions and one scanner of one thread; no I/O.
//
// A record is a header of 64 bytes, a body, zeros up to a multiple of 8. It never spans segments. Each record carries its segment's number
// (bytes left in a recycled segment cannot pass), its sequence number (1, 2, 3, ... in the log of one run and shard), the chain of the
// record before it, and `synced`: the highest sequence number that the writer knew to be on disk when it made this record. With it a reader
// tells a torn tail, which nobody was promised, from the loss of something acknowledged.
#ifndef BALLAST_CORE_RECORD_LOG_RECORD_H_
#define BALLAST_CORE_RECORD_LOG_RECORD_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace ballast {

inline constexpr size_t kRecordHeaderBytes = 64;
inline constexpr size_t kRecordAlign = 8;
inline constexpr size_t kLogPageBytes = 4096;          // a group write is a multiple of this
inline constexpr uint64_t kRecordBodyMax = 32u << 20;  // fits a segment of 64 MiB twice
inline constexpr uint64_t kHashRootVersions = 16;      // a HASH_ROOT record follows every version that is a multiple of this

enum class RecordKind : uint32_t {
  kRun = 1,           // body: RunRecord; the first record of a run's log, again at the start of each segment
  kContribution = 2,  // body: one Chunk message (core/record/chunk.h)
  kDecision = 3,      // body: canonical bytes (core/record/decision.h)
  kHashRoot = 4,      // body: HashRoot
  kPad = 5,           // body: zeros up to the end of a page
};

struct RecordHeader {
  RecordKind kind = RecordKind::kPad;
  uint32_t body_bytes = 0;
  uint64_t segment = 0;
  uint64_t sequence = 0;
  uint64_t synced = 0;
  uint64_t previous_chain = 0;  // 0 for sequence 1
  uint64_t chain = 0;           // XXH3-64 over the first 48 bytes of the header and the body
};

// Bytes that a record takes in the segment.
constexpr uint64_t RecordBytes(uint64_t body_bytes) {
  return kRecordHeaderBytes + (body_bytes + kRecordAlign - 1) / kRecordAlign * kRecordAlign;
}

// Body size of the PAD record that fills the page from `offset` on (which may need the whole next page too); -1 when no pad is needed.
// REQUIRES offset % kRecordAlign == 0.
int64_t PadBodyBytes(uint64_t offset);

// Computes header.chain over `body` (in pieces, body_bytes in all) and writes the header. `out` has kRecordHeaderBytes. The caller writes
// the body and the zeros after it.
void EncodeRecordHeader(RecordHeader& header, absl::Span<const absl::string_view> body, absl::Span<char> out);

// Checks magic, format, flags, kind, body_bytes and the header's own checksum; knows neither position nor chain. Errors: DataLoss.
[[nodiscard]] absl::StatusOr<RecordHeader> ParseRecordHeader(absl::string_view bytes);

// ---- bodies ----
struct RunRecord {
  uint32_t shard = 0;
  uint32_t shards = 0;
  std::string run_proto;  // ballast.v1.Run with spec, generation, layout; opaque here
};
std::string EncodeRunRecord(const RunRecord& record);
[[nodiscard]] absl::StatusOr<RunRecord> ParseRunRecord(absl::string_view body);

struct HashRoot {
  uint64_t generation = 0;
  uint64_t version = 0;
  uint64_t root = 0;  // core/record/state_hash.h
};
std::string EncodeHashRoot(const HashRoot& root);
[[nodiscard]] absl::StatusOr<HashRoot> ParseHashRoot(absl::string_view body);

// ---- reading ----
enum class ScanResult {
  kRecord,   // header() and body() are valid
  kEnd,      // nothing was written here, or only bytes of an earlier use of the file
  kTorn,     // an unsynced write that a crash cut: drop it, the log ends at offset()
  kCorrupt,  // something that was synced is damaged: stop, status() names segment and offset
};

// Reads the records of one segment, in order. The caller's bytes must outlive it.
class SegmentScanner {
 public:
  // Any start: the first record's own sequence and previous chain are believed (the first segment that is kept).
  SegmentScanner(absl::string_view segment_bytes, uint64_t segment);
  // Continues a log: the first record must have this sequence number and previous chain.
  SegmentScanner(absl::string_view segment_bytes, uint64_t segment, uint64_t sequence, uint64_t previous_chain);

  // After anything but kRecord the scanner stays where it is.
  ScanResult Next();

  const RecordHeader& header() const { return header_; }
  absl::string_view body() const { return body_; }
  uint64_t record_offset() const { return record_offset_; }  // of the record that Next returned
  uint64_t offset() const { return offset_; }                // end of the last good record
  uint64_t next_sequence() const { return sequence_; }
  uint64_t last_chain() const { return chain_; }
  absl::Status status() const { return status_; }

 private:
  ScanResult Stop(absl::string_view what);

  const absl::string_view bytes_;
  const uint64_t segment_;
  bool anchored_;  // sequence_ and chain_ are known
  uint64_t sequence_ = 0;
  uint64_t chain_ = 0;
  uint64_t offset_ = 0;
  uint64_t record_offset_ = 0;
  RecordHeader header_;
  absl::string_view body_;
  absl::Status status_;
};

// Highest `synced` among valid headers of this segment from `offset` on; 0 if there is none. How a reader of several segments tells a torn
// tail from a loss: a log that ends before sequence number n, while a later segment that does not continue it has HighestSynced >= n, has
// lost acknowledged data. (A later segment whose first record continues sequence and chain is a restart after a torn tail: read on there.)
uint64_t HighestSynced(absl::string_view segment_bytes, uint64_t segment, uint64_t offset = 0);

}  // namespace ballast

#endif  // BALLAST_CORE_RECORD_LOG_RECORD_H_
