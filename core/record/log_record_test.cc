#include "core/record/log_record.h"

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace ballast {
namespace {

// Writes a segment as server/storage does: records, one PAD at the end of each group, zeros after the last.
class Writer {
 public:
  explicit Writer(uint64_t segment, std::string old_bytes = "") : segment_(segment), bytes_(std::move(old_bytes)) {
    if (bytes_.empty()) bytes_.assign(64 << 10, '\0');
  }
  void Continue(const Writer& before) { sequence_ = before.sequence_, chain_ = before.chain_, synced_ = before.synced_; }

  uint64_t Add(RecordKind kind, const std::string& body) {
    RecordHeader h;
    h.kind = kind;
    h.body_bytes = static_cast<uint32_t>(body.size());
    h.segment = segment_;
    h.sequence = sequence_++;
    h.synced = synced_;
    h.previous_chain = chain_;
    EncodeRecordHeader(h, {body}, absl::MakeSpan(&bytes_[offset_], kRecordHeaderBytes));
    chain_ = h.chain;
    const uint64_t at = offset_;
    std::fill(bytes_.begin() + offset_ + kRecordHeaderBytes, bytes_.begin() + offset_ + RecordBytes(body.size()), '\0');
    bytes_.replace(offset_ + kRecordHeaderBytes, body.size(), body);
    offset_ += RecordBytes(body.size());
    return at;
  }
  void Pad() {
    if (const int64_t n = PadBodyBytes(offset_); n >= 0) Add(RecordKind::kPad, std::string(n, '\0'));
  }
  void Synced() { synced_ = sequence_ - 1; }

  uint64_t segment_;
  std::string bytes_;
  uint64_t offset_ = 0, sequence_ = 1, chain_ = 0, synced_ = 0;
};

std::vector<std::string> Bodies(SegmentScanner& scanner, ScanResult* end) {
  std::vector<std::string> out;
  ScanResult r;
  while ((r = scanner.Next()) == ScanResult::kRecord) {
    if (scanner.header().kind != RecordKind::kPad) out.emplace_back(scanner.body());
  }
  *end = r;
  return out;
}

TEST(LogRecord, ReadsWhatWasWritten) {
  Writer w(3);
  w.Add(RecordKind::kRun, "run");
  w.Add(RecordKind::kContribution, std::string(5000, 'c'));
  w.Pad();
  EXPECT_EQ(w.offset_ % kLogPageBytes, 0u);
  w.Synced();
  w.Add(RecordKind::kDecision, "decision");
  w.Pad();
  SegmentScanner scanner(w.bytes_, 3, 1, 0);
  ScanResult end;
  const auto bodies = Bodies(scanner, &end);
  EXPECT_EQ(end, ScanResult::kEnd);
  EXPECT_EQ(bodies, (std::vector<std::string>{"run", std::string(5000, 'c'), "decision"}));
  EXPECT_EQ(scanner.offset(), w.offset_);
  EXPECT_EQ(scanner.next_sequence(), w.sequence_);
  EXPECT_EQ(scanner.last_chain(), w.chain_);
}

// docs/wire_format.md section 6.
TEST(LogRecord, BytesOfTheDocumentsExample) {
  const std::string chunk(
      "\x0a\x01r\x10\x01\x18\x02\x20\x01\x38\x01\x42\x0f\x18\x05\x20\x03\x28\x09\x31\x39\x02\x5c\x00\xf9\x7a\x1d\xd4"
      "\x7a\x09\x00\x00\x80\x3f\x7f\xc0\x00\x02\x00",
      39);
  RecordHeader h{RecordKind::kContribution, 39, 1, 2, 1, 0x1122334455667788, 0};
  std::string out(kRecordHeaderBytes, '\0');
  EncodeRecordHeader(h, {chunk.substr(0, 30), chunk.substr(30)}, absl::MakeSpan(out.data(), out.size()));
  const std::string expected(
      "\x42\x4c\x4c\x47\x01\x00\x02\x00\x00\x00\x00\x00\x27\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00"
      "\x01\x00\x00\x00\x00\x00\x00\x00\x88\x77\x66\x55\x44\x33\x22\x11\x13\x86\x47\xe4\x28\xff\xd3\xca\x80\x41\xdb\x92\x07\xfb\x7f\x37",
      64);
  EXPECT_EQ(out, expected);
}

TEST(LogRecord, PadFillsThePageEvenWhenAHeaderDoesNotFit) {
  EXPECT_EQ(PadBodyBytes(0), -1);
  EXPECT_EQ(PadBodyBytes(8192), -1);
  for (uint64_t offset = 8; offset < 4096; offset += 8) {
    const int64_t n = PadBodyBytes(offset);
    ASSERT_GE(n, 0);
    EXPECT_EQ((offset + RecordBytes(n)) % kLogPageBytes, 0u) << offset;
  }
}

TEST(LogRecord, BytesOfARecycledSegmentCannotPass) {
  Writer old(1);
  for (int i = 0; i < 10; ++i) old.Add(RecordKind::kContribution, std::string(3000, 'o')), old.Pad(), old.Synced();
  Writer w(5, old.bytes_);
  w.Continue(old);
  w.Add(RecordKind::kDecision, "new");
  w.Pad();
  SegmentScanner scanner(w.bytes_, 5, old.sequence_, old.chain_);
  ScanResult end;
  EXPECT_EQ(Bodies(scanner, &end), (std::vector<std::string>{"new"}));
  EXPECT_EQ(end, ScanResult::kEnd);
}

TEST(LogRecord, EmptySegmentEndsAtOnce) {
  SegmentScanner scanner(absl::string_view(), 1, 1, 0);
  EXPECT_EQ(scanner.Next(), ScanResult::kEnd);
  const std::string zeros(8192, '\0');
  SegmentScanner blank(zeros, 1, 1, 0);
  EXPECT_EQ(blank.Next(), ScanResult::kEnd);
  EXPECT_TRUE(blank.status().ok());
}

// Two synced groups, then one that no fsync covered.
struct Damage {
  Writer w{1};
  uint64_t first, last_synced, unsynced, after;
  Damage() {
    first = w.Add(RecordKind::kContribution, std::string(2000, 'a'));
    w.Pad(), w.Synced();
    last_synced = w.Add(RecordKind::kDecision, "decided");
    w.Pad(), w.Synced();
    unsynced = w.Add(RecordKind::kContribution, std::string(2000, 'b'));
    after = w.Add(RecordKind::kDecision, "never acknowledged");
    w.Pad();
  }
  ScanResult Read(size_t* records) {
    SegmentScanner scanner(w.bytes_, 1, 1, 0);
    ScanResult end;
    *records = Bodies(scanner, &end).size();
    status = scanner.status();
    offset = scanner.offset();
    return end;
  }
  absl::Status status;
  uint64_t offset = 0;
};

TEST(LogRecord, TornTailIsDropped) {
  for (int damage = 0; damage < 4; ++damage) {
    Damage d;
    char* bytes = d.w.bytes_.data();
    if (damage == 0) bytes[d.unsynced + 700] ^= 1;             // a body sector is old
    if (damage == 1) std::memset(bytes + d.unsynced, 0, 512);  // the header's sector is missing, the rest is there
    if (damage == 2) std::memset(bytes + d.unsynced + 512, 0, d.w.bytes_.size() - d.unsynced - 512);  // only the first sector is there
    if (damage == 3) std::memset(bytes + d.unsynced, 0, 4096);                                        // nothing is there
    size_t records;
    const ScanResult end = d.Read(&records);
    EXPECT_EQ(end, damage == 3 ? ScanResult::kEnd : ScanResult::kTorn) << damage;
    EXPECT_EQ(records, 2u);
    EXPECT_EQ(d.offset, d.unsynced);
  }
}

TEST(LogRecord, DamageOfSomethingSyncedIsCorruption) {
  for (int damage = 0; damage < 3; ++damage) {
    Damage d;
    if (damage == 0) d.w.bytes_[d.first + 100] ^= 1;       // body
    if (damage == 1) d.w.bytes_[d.first + 20] ^= 1;        // header
    if (damage == 2) d.w.bytes_[d.last_synced + 65] ^= 1;  // the newest that a later record knew to be synced
    size_t records;
    EXPECT_EQ(d.Read(&records), ScanResult::kCorrupt) << damage;
    EXPECT_EQ(d.status.code(), absl::StatusCode::kDataLoss);
    EXPECT_NE(std::string(d.status.message()).find("segment 1, offset "), std::string::npos) << d.status;
    EXPECT_EQ(d.offset, damage == 2 ? d.last_synced : d.first);
  }
}

TEST(LogRecord, RestartAfterATornTailContinuesInANewSegment) {
  Damage d;
  d.w.bytes_[d.unsynced + 700] ^= 1;
  SegmentScanner before(d.w.bytes_, 1, 1, 0);
  ScanResult end;
  Bodies(before, &end);
  ASSERT_EQ(end, ScanResult::kTorn);
  Writer next(2);
  next.sequence_ = before.next_sequence();
  next.chain_ = before.last_chain();
  next.synced_ = before.next_sequence() - 1;
  next.Add(RecordKind::kDecision, "after the restart");
  next.Pad();
  SegmentScanner after(next.bytes_, 2, before.next_sequence(), before.last_chain());
  EXPECT_EQ(Bodies(after, &end), (std::vector<std::string>{"after the restart"}));
  EXPECT_EQ(end, ScanResult::kEnd);
}

TEST(LogRecord, SegmentThatDoesNotContinueShowsTheLoss) {
  Damage d;
  Writer next(2);
  next.Continue(d.w);
  next.Synced();
  next.Add(RecordKind::kDecision, "later");
  std::memset(&d.w.bytes_[d.unsynced], 0, 4096);  // it was synced after all: the next segment knows
  SegmentScanner before(d.w.bytes_, 1, 1, 0);
  ScanResult end;
  Bodies(before, &end);
  EXPECT_GE(HighestSynced(next.bytes_, 2), before.next_sequence());
  SegmentScanner after(next.bytes_, 2, before.next_sequence(), before.last_chain());
  EXPECT_NE(after.Next(), ScanResult::kRecord);
}

TEST(LogRecord, ReadsFromTheFirstSegmentThatIsKept) {
  Writer first(1), second(2);
  first.Add(RecordKind::kDecision, "dropped");
  second.Continue(first);
  second.Add(RecordKind::kDecision, "kept");
  SegmentScanner scanner(second.bytes_, 2);
  ASSERT_EQ(scanner.Next(), ScanResult::kRecord);
  EXPECT_EQ(scanner.body(), "kept");
  EXPECT_EQ(scanner.header().sequence, 2u);
  EXPECT_EQ(scanner.header().previous_chain, first.chain_);
}

TEST(LogRecord, BodyOverTheEndOfTheSegment) {
  Writer w(1);
  const uint64_t at = w.Add(RecordKind::kDecision, std::string(1000, 'x'));
  SegmentScanner scanner(absl::string_view(w.bytes_).substr(0, at + 500), 1, 1, 0);
  EXPECT_EQ(scanner.Next(), ScanResult::kTorn);
}

TEST(LogRecord, NewerFormatIsNotOurs) {
  Writer w(1);
  w.Add(RecordKind::kDecision, "x");
  EXPECT_TRUE(ParseRecordHeader(w.bytes_).ok());
  EXPECT_FALSE(ParseRecordHeader(absl::string_view(w.bytes_).substr(0, 63)).ok());
  for (size_t at = 0; at < kRecordHeaderBytes; ++at) {
    std::string bad = w.bytes_;
    bad[at] ^= 4;
    EXPECT_FALSE(ParseRecordHeader(bad).ok()) << at;
  }
}

TEST(LogRecord, RandomDamageNeverPassesAsARecord) {
  const uint32_t seed = 11;
  SCOPED_TRACE(seed);
  std::mt19937 rng(seed);
  for (int i = 0; i < 300; ++i) {
    Damage d;
    const size_t at = rng() % d.w.offset_;
    d.w.bytes_[at] ^= static_cast<char>(1 + rng() % 255);
    SegmentScanner scanner(d.w.bytes_, 1, 1, 0);
    while (scanner.Next() == ScanResult::kRecord) {
      // Only the zeros that align a record may change unseen.
      const uint64_t begin = scanner.record_offset(), body_end = begin + kRecordHeaderBytes + scanner.header().body_bytes;
      EXPECT_FALSE(at >= begin && at < body_end) << at;
    }
  }
}

TEST(Bodies, ReadWhatTheyWrote) {
  const auto run = ParseRunRecord(EncodeRunRecord({1, 2, "proto"}));
  ASSERT_TRUE(run.ok());
  EXPECT_EQ(run->shard, 1u);
  EXPECT_EQ(run->shards, 2u);
  EXPECT_EQ(run->run_proto, "proto");
  const auto root = ParseHashRoot(EncodeHashRoot({1, 16, 0xfeed}));
  ASSERT_TRUE(root.ok());
  EXPECT_EQ(root->version, 16u);
  EXPECT_EQ(root->root, 0xfeedu);
  EXPECT_FALSE(ParseRunRecord("short").ok());
  EXPECT_FALSE(ParseHashRoot(std::string(23, 'x')).ok());
}

}  // namespace
}  // namespace ballast
