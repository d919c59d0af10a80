#include "core/record/log_record.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/record/hash.h"
#include "core/record/wire.h"

namespace ballast {
namespace {

// Offsets in the header; all numbers little-endian.
constexpr uint32_t kMagic = 0x474c4c42;  // "BLLG"
constexpr uint16_t kFormat = 1;
constexpr size_t kFormatAt = 4, kKindAt = 6, kFlagsAt = 8, kBodyBytesAt = 12, kSegmentAt = 16, kSequenceAt = 24, kSyncedAt = 32;
constexpr size_t kPreviousChainAt = 40, kChainAt = 48, kChecksumAt = 56;

template <typename T>
T Load(absl::string_view bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(value));
  return value;
}
template <typename T>
void Store(absl::Span<char> out, size_t at, T value) {
  std::memcpy(out.data() + at, &value, sizeof(value));
}

uint64_t ChainOfRecord(absl::string_view header, absl::Span<const absl::string_view> body) {
  Hasher hasher;
  hasher.Add(header.substr(0, kChainAt));
  for (absl::string_view piece : body) hasher.Add(piece);
  return hasher.Value();
}

// A header of `segment` at an 8-byte boundary of `bytes`, or nothing.
bool HeaderAt(absl::string_view bytes, uint64_t offset, uint64_t segment, RecordHeader& header) {
  if (bytes.size() - offset < kRecordHeaderBytes || Load<uint32_t>(bytes, offset) != kMagic) return false;
  absl::StatusOr<RecordHeader> parsed = ParseRecordHeader(bytes.substr(offset, kRecordHeaderBytes));
  if (!parsed.ok() || parsed->segment != segment) return false;
  header = *parsed;
  return true;
}

}  // namespace

int64_t PadBodyBytes(uint64_t offset) {
  const uint64_t rest = offset % kLogPageBytes;
  if (rest == 0) return -1;
  uint64_t room = kLogPageBytes - rest;
  if (room < kRecordHeaderBytes) room += kLogPageBytes;
  return static_cast<int64_t>(room - kRecordHeaderBytes);
}

void EncodeRecordHeader(RecordHeader& header, absl::Span<const absl::string_view> body, absl::Span<char> out) {
  Store(out, 0, kMagic);
  Store(out, kFormatAt, kFormat);
  Store(out, kKindAt, static_cast<uint16_t>(header.kind));
  Store(out, kFlagsAt, uint32_t{0});
  Store(out, kBodyBytesAt, header.body_bytes);
  Store(out, kSegmentAt, header.segment);
  Store(out, kSequenceAt, header.sequence);
  Store(out, kSyncedAt, header.synced);
  Store(out, kPreviousChainAt, header.previous_chain);
  const absl::string_view written(out.data(), kRecordHeaderBytes);
  header.chain = ChainOfRecord(written, body);
  Store(out, kChainAt, header.chain);
  Store(out, kChecksumAt, Hash64(written.substr(0, kChecksumAt)));
}

absl::StatusOr<RecordHeader> ParseRecordHeader(absl::string_view bytes) {
  if (bytes.size() < kRecordHeaderBytes) return absl::DataLossError("log record: header cut short");
  if (Load<uint32_t>(bytes, 0) != kMagic) return absl::DataLossError("log record: no header here");
  if (Load<uint64_t>(bytes, kChecksumAt) != Hash64(bytes.substr(0, kChecksumAt))) {
    return absl::DataLossError("log record: header checksum differs");
  }
  const uint16_t format = Load<uint16_t>(bytes, kFormatAt), kind = Load<uint16_t>(bytes, kKindAt);
  const uint32_t flags = Load<uint32_t>(bytes, kFlagsAt);
  if (format != kFormat || flags != 0 || kind < static_cast<uint16_t>(RecordKind::kRun) || kind > static_cast<uint16_t>(RecordKind::kPad)) {
    return absl::DataLossError(
        absl::StrCat("log record: format ", format, ", kind ", kind, ", flags ", flags, ": a newer release wrote it"));
  }
  RecordHeader out;
  out.kind = static_cast<RecordKind>(kind);
  out.body_bytes = Load<uint32_t>(bytes, kBodyBytesAt);
  out.segment = Load<uint64_t>(bytes, kSegmentAt);
  out.sequence = Load<uint64_t>(bytes, kSequenceAt);
  out.synced = Load<uint64_t>(bytes, kSyncedAt);
  out.previous_chain = Load<uint64_t>(bytes, kPreviousChainAt);
  out.chain = Load<uint64_t>(bytes, kChainAt);
  if (out.body_bytes > kRecordBodyMax) {
    return absl::DataLossError(absl::StrCat("log record: body of ", out.body_bytes, " bytes; allowed: ", kRecordBodyMax));
  }
  return out;
}

std::string EncodeRunRecord(const RunRecord& record) {
  std::string out;
  WireWriter w(&out);
  w.RawFixed32(record.shard);
  w.RawFixed32(record.shards);
  out += record.run_proto;
  return out;
}

absl::StatusOr<RunRecord> ParseRunRecord(absl::string_view body) {
  if (body.size() < 8) return absl::DataLossError("RUN record: body cut short");
  return RunRecord{Load<uint32_t>(body, 0), Load<uint32_t>(body, 4), std::string(body.substr(8))};
}

std::string EncodeHashRoot(const HashRoot& root) {
  std::string out;
  WireWriter w(&out);
  w.RawFixed64(root.generation);
  w.RawFixed64(root.version);
  w.RawFixed64(root.root);
  return out;
}

absl::StatusOr<HashRoot> ParseHashRoot(absl::string_view body) {
  if (body.size() != 24) return absl::DataLossError(absl::StrCat("HASH_ROOT record: body of ", body.size(), " bytes instead of 24"));
  return HashRoot{Load<uint64_t>(body, 0), Load<uint64_t>(body, 8), Load<uint64_t>(body, 16)};
}

SegmentScanner::SegmentScanner(absl::string_view segment_bytes, uint64_t segment)
    : bytes_(segment_bytes), segment_(segment), anchored_(false) {}

SegmentScanner::SegmentScanner(absl::string_view segment_bytes, uint64_t segment, uint64_t sequence, uint64_t previous_chain)
    : bytes_(segment_bytes), segment_(segment), anchored_(true), sequence_(sequence), chain_(previous_chain) {}

// Something is not as it should be at offset_. It is only the end of the log unless a later record of this segment knew it to be synced.
ScanResult SegmentScanner::Stop(absl::string_view what) {
  const bool acknowledged = anchored_ && HighestSynced(bytes_, segment_, offset_) >= sequence_;
  const auto text = absl::StrCat("segment ", segment_, ", offset ", offset_, ", record ", sequence_, ": ", what);
  if (!acknowledged) {
    status_ = absl::OutOfRangeError(text);
    return ScanResult::kTorn;
  }
  status_ = absl::DataLossError(absl::StrCat(text, "; later records say that it was synced"));
  return ScanResult::kCorrupt;
}

ScanResult SegmentScanner::Next() {
  if (bytes_.size() - offset_ < kRecordHeaderBytes) return ScanResult::kEnd;
  RecordHeader header;
  if (!HeaderAt(bytes_, offset_, segment_, header)) {
    const ScanResult damaged = Stop("no valid header");
    if (damaged == ScanResult::kCorrupt) return damaged;
    RecordHeader later;
    for (uint64_t at = offset_; at + kRecordHeaderBytes <= bytes_.size(); at += kRecordAlign) {
      if (HeaderAt(bytes_, at, segment_, later)) return ScanResult::kTorn;
    }
    status_ = absl::OkStatus();
    return ScanResult::kEnd;
  }
  if (anchored_ && (header.sequence != sequence_ || header.previous_chain != chain_)) {
    return Stop(absl::StrCat("a record with sequence number ", header.sequence, " that does not follow"));
  }
  if (!anchored_) {
    anchored_ = true;
    sequence_ = header.sequence;
    chain_ = header.previous_chain;
  }
  if (RecordBytes(header.body_bytes) > bytes_.size() - offset_) return Stop("body runs over the end of the segment");
  const absl::string_view body = bytes_.substr(offset_ + kRecordHeaderBytes, header.body_bytes);
  if (ChainOfRecord(bytes_.substr(offset_, kRecordHeaderBytes), {body}) != header.chain) return Stop("body does not match its checksum");
  header_ = header;
  body_ = body;
  record_offset_ = offset_;
  offset_ += RecordBytes(header.body_bytes);
  sequence_ = header.sequence + 1;
  chain_ = header.chain;
  return ScanResult::kRecord;
}

uint64_t HighestSynced(absl::string_view segment_bytes, uint64_t segment, uint64_t offset) {
  uint64_t highest = 0;
  RecordHeader header;
  for (uint64_t at = offset; at + kRecordHeaderBytes <= segment_bytes.size(); at += kRecordAlign) {
    if (HeaderAt(segment_bytes, at, segment, header)) highest = std::max(highest, header.synced);
  }
  return highest;
}

}  // namespace ballast
