#include "server/storage/log_walk.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace ballast {

std::string SegmentPath(const std::string& dir, uint64_t segment) { return absl::StrFormat("%s/%08d.log", dir, segment); }

absl::Status SegmentLoss(const std::string& dir, uint64_t segment, uint64_t offset, absl::string_view what) {
  return absl::DataLossError(absl::StrCat(SegmentPath(dir, segment), " at byte ", offset, ": ", what));
}

absl::Status LogWalk::Segment(uint64_t segment, absl::string_view bytes) {
  end_.last_segment = segment;
  if (segment == 1) anchored_ = true;  // the log from its first record on: sequence 1, chain 0

  SegmentScanner scanner = anchored_ ? SegmentScanner(bytes, segment, end_.next_sequence, end_.chain) : SegmentScanner(bytes, segment);
  ScanResult result = scanner.Next();
  if (result != ScanResult::kRecord) return NothingHere(segment, bytes, scanner, result);
  for (; result == ScanResult::kRecord; result = scanner.Next()) {
    anchored_ = true;
    const RecordHeader& header = scanner.header();
    if (header.kind == RecordKind::kPad) continue;
    const LogPosition at{header.sequence, segment, scanner.record_offset()};
    if (absl::Status s = visit_(header, at, scanner.body()); !s.ok()) return s;
  }
  end_.next_sequence = scanner.next_sequence();
  end_.chain = scanner.last_chain();
  end_.tail_segment = segment;
  end_.tail_offset = scanner.offset();
  end_.bytes += scanner.offset();
  if (result == ScanResult::kCorrupt) return Corrupt(segment, scanner);
  if (result == ScanResult::kTorn) NoteTorn(segment, scanner.offset());
  return absl::OkStatus();
}

absl::Status LogWalk::Corrupt(uint64_t segment, const SegmentScanner& scanner) const {
  return SegmentLoss(dir_, segment, scanner.offset(), scanner.status().message());
}

void LogWalk::NoteTorn(uint64_t segment, uint64_t offset) {
  end_.torn_segment = segment;
  end_.torn_offset = offset;
}

// A segment whose first record does not continue the log. It may hold what a crash left of unsynced writes, or nothing yet. But if any
// record in it knew that the missing ones were on disk, they are lost.
absl::Status LogWalk::NothingHere(uint64_t segment, absl::string_view bytes, const SegmentScanner& scanner, ScanResult result) {
  const uint64_t synced = HighestSynced(bytes, segment);
  if (anchored_ && synced >= end_.next_sequence) {
    return SegmentLoss(dir_, segment, 0,
                       absl::StrCat("the log before it ends at record ", end_.next_sequence - 1, ", but record ", synced,
                                    " was on disk: records are lost"));
  }
  // The oldest segment was complete when the ones before it were cut: what is wrong in it is damage.
  if (result == ScanResult::kCorrupt || (result == ScanResult::kTorn && !anchored_)) return Corrupt(segment, scanner);
  if (result != ScanResult::kEnd) NoteTorn(segment, 0);
  return absl::OkStatus();
}

}  // namespace ballast
