#include "server/storage/segment_log.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/failpoint.h"
#include "server/log.h"
#include "server/storage/high_mark.h"
#include "server/storage/segment_file.h"
#include "steady.h"

namespace ballast {
namespace {

// After a pause of this length one page says that everything before it is on disk (RecordHeader.synced). Without it a reader could not tell
// damage in the very last group from a torn write.
constexpr absl::Duration kIdleMark = absl::Milliseconds(20);
constexpr absl::Duration kDiskCheck = absl::Seconds(1);
constexpr size_t kPoolBuffers = 2;
constexpr size_t kPoolBufferBytes = 32u << 20;  // larger ones are not kept

using Clock = std::chrono::steady_clock;

uint64_t RoundUp(uint64_t n, uint64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Bytes of one segment that go out in one write.
struct Group {
  uint64_t segment = 0;
  uint64_t offset = 0;  // in the segment
  PageBuffer bytes;
  uint64_t last_sequence = 0;
  bool marks_only = true;  // PADs and RUN records: nothing that an idle mark must vouch for
};

class SegmentLogImpl : public SegmentLog {
 public:
  SegmentLogImpl(SegmentLogOptions options, const LogEnd& end, HighMark mark)
      : options_(std::move(options)),
        sequence_(end.next_sequence),
        chain_(end.chain),
        segment_(end.last_segment),
        synced_(end.next_sequence - 1),
        mark_(std::move(mark)) {}

  ~SegmentLogImpl() override {
    {
      absl::MutexLock lock(&mu_);
      stop_ = true;
      work_.Set();
    }
    if (thread_.joinable()) thread_.join();
  }

  absl::Status Start() {
    {
      absl::MutexLock lock(&mu_);
      OpenSegment();
    }
    if (absl::Status s = WriteGroups(/*always_sync=*/true); !s.ok()) return s;
    thread_ = std::thread([this] { Run(); });
    return absl::OkStatus();
  }

  absl::StatusOr<LogPosition> Append(RecordKind kind, absl::Span<const absl::string_view> body, std::function<void()> on_synced) override {
    uint64_t body_bytes = 0;
    for (absl::string_view piece : body) body_bytes += piece.size();
    const uint64_t bytes = RecordBytes(body_bytes);
    const uint64_t room = options_.segment_bytes - RecordBytes(options_.run_record.size()) - kRecordHeaderBytes;
    if (body_bytes > kRecordBodyMax || bytes > room) {
      return absl::InvalidArgumentError(absl::StrCat("a log record of ", body_bytes, " bytes does not fit"));
    }
    absl::MutexLock lock(&mu_);
    if (kind == RecordKind::kContribution) {
      const auto has_room = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        return !status_.ok() || unsynced_bytes_ == 0 || unsynced_bytes_ + bytes <= options_.buffered_bytes_max;
      };
      mu_.Await(absl::Condition(&has_room));
    }
    if (!status_.ok()) return status_;
    if (!Fits(bytes)) {
      ClosePage();
      OpenSegment();
    }
    const LogPosition at = Write(kind, body);
    if (on_synced) due_.emplace_back(at.sequence, std::move(on_synced));
    return at;
  }

  void WhenSynced(uint64_t sequence, std::function<void()> then) override {
    {
      absl::MutexLock lock(&mu_);
      if (!status_.ok()) return;
      if (sequence > synced_) {
        const auto after = std::upper_bound(due_.begin(), due_.end(), sequence, [](uint64_t s, const auto& due) { return s < due.first; });
        due_.emplace(after, sequence, std::move(then));
        return;
      }
    }
    then();
  }

  absl::Status WaitSynced(uint64_t sequence) override {
    absl::MutexLock lock(&mu_);
    const auto reached = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return !status_.ok() || synced_ >= sequence; };
    mu_.Await(absl::Condition(&reached));
    return synced_ >= sequence ? absl::OkStatus() : status_;
  }

  uint64_t synced_sequence() override {
    absl::MutexLock lock(&mu_);
    return synced_;
  }

  void Cut(uint64_t first_needed_segment) override {
    if (options_.retain_all) return;
    absl::MutexLock lock(&mu_);
    cut_below_ = std::max(cut_below_, std::min(first_needed_segment, segment_));
  }

  uint64_t segment() override {
    absl::MutexLock lock(&mu_);
    return segment_;
  }

 private:
  // Whether `bytes` more leave the page open for a PAD behind them.
  bool Fits(uint64_t bytes) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const uint64_t end = offset_ + bytes;
    return end + kRecordHeaderBytes <= options_.segment_bytes || (end == options_.segment_bytes && end % kLogPageBytes == 0);
  }

  void OpenSegment() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    ++segment_;
    offset_ = 0;
    group_open_ = false;
    const absl::string_view body = options_.run_record;
    Write(RecordKind::kRun, absl::MakeConstSpan(&body, 1));
  }

  Group& OpenGroup() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (group_open_) return groups_.back();
    group_open_ = true;
    Group& group = groups_.emplace_back();
    work_.Set();
    group.segment = segment_;
    group.offset = offset_;
    if (!pool_.empty()) {
      group.bytes = std::move(pool_.back());
      pool_.pop_back();
    }
    return group;
  }

  LogPosition Write(RecordKind kind, absl::Span<const absl::string_view> body) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    Group& group = OpenGroup();
    RecordHeader header;
    header.kind = kind;
    for (absl::string_view piece : body) header.body_bytes += static_cast<uint32_t>(piece.size());
    header.segment = segment_;
    header.sequence = sequence_;
    header.synced = synced_;
    header.previous_chain = chain_;
    const uint64_t bytes = RecordBytes(header.body_bytes);
    char* at = group.bytes.Extend(bytes);
    char* to = at + kRecordHeaderBytes;
    for (absl::string_view piece : body) {
      if (piece.empty()) continue;
      std::memcpy(to, piece.data(), piece.size());
      to += piece.size();
    }
    std::memset(to, 0, static_cast<size_t>(at + bytes - to));
    const absl::string_view copied(at + kRecordHeaderBytes, header.body_bytes);
    EncodeRecordHeader(header, absl::MakeConstSpan(&copied, 1), absl::MakeSpan(at, kRecordHeaderBytes));

    const LogPosition position{sequence_, segment_, offset_};
    chain_ = header.chain;
    ++sequence_;
    offset_ += bytes;
    unsynced_bytes_ += bytes;
    group.last_sequence = position.sequence;
    if (kind != RecordKind::kPad && kind != RecordKind::kRun) group.marks_only = false;
    return position;
  }

  // Ends the open group at a page boundary: from here on its bytes do not change.
  void ClosePage() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (!group_open_) return;
    const int64_t pad = PadBodyBytes(offset_);
    if (pad >= 0) WritePad(static_cast<size_t>(pad));
    group_open_ = false;
  }

  void WritePad(size_t body_bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    static const std::string* const zeros = new std::string(2 * kLogPageBytes, '\0');
    const absl::string_view body(zeros->data(), body_bytes);
    Write(RecordKind::kPad, absl::MakeConstSpan(&body, 1));
  }

  void Run() {
    bool mark_due = true;  // the RUN record of Start
    while (true) {
      bool stop;
      work_.WaitFor(mark_due ? kIdleMark : kDiskCheck);
      {
        absl::MutexLock lock(&mu_);
        if (mark_due && groups_.empty() && status_.ok()) AppendMark();
        stop = stop_;
        mark_due = false;
        for (const Group& group : groups_) mark_due |= !group.marks_only;
      }
      absl::Status s = WriteGroups();
      if (s.ok()) s = CutNow();
      if (!s.ok()) return;
      CheckDisk();
      if (stop && !mark_due) {
        (void)mark_.Sync();  // all it says is true already
        return;
      }
    }
  }

  void AppendMark() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (!Fits(kLogPageBytes))
      OpenSegment();
    else
      WritePad(kLogPageBytes - kRecordHeaderBytes);
  }

  // Writes and syncs everything that was appended until now, then calls what waited for it. An idle mark alone needs no sync: whoever finds
  // it can believe it, and nobody misses it.
  absl::Status WriteGroups(bool always_sync = false) {
    std::deque<Group> groups;
    bool sync = always_sync;
    {
      absl::MutexLock lock(&mu_);
      if (!status_.ok()) return status_;
      ClosePage();
      groups.swap(groups_);
      if (!stop_) work_.Clear();
      sync |= !due_.empty();
      for (const Group& group : groups) sync |= !group.marks_only;
    }
    if (groups.empty()) return absl::OkStatus();
    BALLAST_FAILPOINT("log-write");
    uint64_t bytes = 0;
    Clock::duration sync_time{};
    for (const Group& group : groups) {
      absl::Status s = WriteGroup(group, sync_time);
      if (!s.ok()) return Fail(s);
      bytes += group.bytes.size();
    }
    const uint64_t sequence = sync ? groups.back().last_sequence : 0;
    if (sync) {
      if (absl::Status s = SyncFile(sync_time); !s.ok()) return Fail(s);
      if (absl::Status s = mark_.Set(sequence); !s.ok()) return Fail(s);
    }
    BALLAST_FAILPOINT("log-written");
    if (options_.on_group) options_.on_group(bytes, std::chrono::duration<double>(sync_time).count());
    Release(std::move(groups), bytes, sequence);
    BALLAST_FAILPOINT("log-told");
    return absl::OkStatus();
  }

  absl::Status WriteGroup(const Group& group, Clock::duration& sync_time) {
    if (!file_.has_value() || file_segment_ != group.segment) {
      if (file_.has_value()) {
        if (absl::Status s = SyncFile(sync_time); !s.ok()) return s;
        if (absl::Status s = mark_.Sync(); !s.ok()) return s;
      }
      absl::StatusOr<SegmentFile> file = SegmentFile::Create(options_.dir, group.segment, options_.segment_bytes);
      if (!file.ok()) return file.status();
      if (!file->direct() && file_segment_ == 0)
        LogWarning("log is written buffered: the file system refuses O_DIRECT", {{"dir", options_.dir}});
      file_.emplace(*std::move(file));
      file_segment_ = group.segment;
    }
    return file_->WriteAt(group.offset, group.bytes.view());
  }

  absl::Status SyncFile(Clock::duration& sync_time) {
    const Clock::time_point start = Clock::now();
    absl::Status s = file_->Sync(options_.sync);
    sync_time += Clock::now() - start;
    return s;
  }

  void Release(std::deque<Group> groups, uint64_t bytes, uint64_t sequence) {
    std::vector<std::function<void()>> due;
    {
      absl::MutexLock lock(&mu_);
      synced_ = std::max(synced_, sequence);
      unsynced_bytes_ -= bytes;
      for (; !due_.empty() && due_.front().first <= sequence; due_.pop_front()) due.push_back(std::move(due_.front().second));
      for (Group& group : groups) {
        if (pool_.size() == kPoolBuffers || group.bytes.capacity() > kPoolBufferBytes) continue;
        group.bytes.Clear();
        pool_.push_back(std::move(group.bytes));
      }
    }
    for (const auto& call : due) call();
  }

  absl::Status Fail(const absl::Status& status) {
    {
      absl::MutexLock lock(&mu_);
      status_ = status;
      due_.clear();
      groups_.clear();
    }
    if (options_.on_failed) options_.on_failed(status);
    return status;
  }

  absl::Status CutNow() {
    uint64_t cut_below;
    {
      absl::MutexLock lock(&mu_);
      cut_below = std::min(cut_below_, file_segment_);
    }
    if (cut_below <= cut_done_) return absl::OkStatus();
    BALLAST_FAILPOINT("log-cut");
    const absl::StatusOr<uint64_t> bytes = RecycleSegments(options_.dir, cut_below);
    if (!bytes.ok()) return Fail(bytes.status());
    cut_done_ = cut_below;
    BALLAST_FAILPOINT("log-shortened");
    if (options_.on_cut && *bytes != 0) options_.on_cut(*bytes);
    return absl::OkStatus();
  }

  void CheckDisk() {
    if (options_.disk_reserve_bytes == 0 || !options_.on_disk ||
        (disk_checked_.has_value() && Clock::now() - *disk_checked_ < absl::ToChronoSeconds(kDiskCheck)))
      return;
    disk_checked_ = Clock::now();
    struct statvfs fs;
    if (::statvfs(options_.dir.c_str(), &fs) != 0) return;  // says nothing about the space; writes will tell
    const uint64_t free = static_cast<uint64_t>(fs.f_bavail) * fs.f_frsize;
    // A tenth more before it counts as recovered: the state must not flap with every segment.
    const uint64_t wanted = options_.disk_reserve_bytes + (disk_low_ ? options_.disk_reserve_bytes / 10 : 0);
    const bool low = free < wanted;
    if (low == disk_low_) return;
    disk_low_ = low;
    options_.on_disk(low, low ? absl::StrCat("disk low: ", free >> 20, " MiB free in ", options_.dir, ", the reserve is ",
                                             options_.disk_reserve_bytes >> 20, " MiB")
                              : "");
  }

  const SegmentLogOptions options_;
  std::thread thread_;

  absl::Mutex mu_;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  Signal work_;                             // set: groups_ is not empty, or stop_
  uint64_t sequence_ ABSL_GUARDED_BY(mu_);  // of the next record
  uint64_t chain_ ABSL_GUARDED_BY(mu_);     // of the last one
  uint64_t segment_ ABSL_GUARDED_BY(mu_);
  uint64_t offset_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t synced_ ABSL_GUARDED_BY(mu_);
  uint64_t unsynced_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  bool group_open_ ABSL_GUARDED_BY(mu_) = false;  // groups_.back() still grows
  std::deque<Group> groups_ ABSL_GUARDED_BY(mu_);
  std::deque<std::pair<uint64_t, std::function<void()>>> due_ ABSL_GUARDED_BY(mu_);  // ascending sequence
  std::vector<PageBuffer> pool_ ABSL_GUARDED_BY(mu_);
  uint64_t cut_below_ ABSL_GUARDED_BY(mu_) = 0;

  // The log's thread only.
  HighMark mark_;
  std::optional<SegmentFile> file_;
  uint64_t file_segment_ = 0;
  uint64_t cut_done_ = 0;
  bool disk_low_ = false;
  std::optional<Clock::time_point> disk_checked_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SegmentLog>> SegmentLog::Open(SegmentLogOptions options, const LogEnd& end) {
  if (options.segment_bytes % kLogPageBytes != 0 || options.segment_bytes < RecordBytes(options.run_record.size()) + 2 * kLogPageBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("segments of ", options.segment_bytes, " bytes: want a multiple of ", kLogPageBytes, " with room for the RUN record"));
  }
  BALLAST_FAILPOINT_STATUS("log-open");
  if (end.tail_segment != 0 && end.torn_segment == 0) {
    for (uint64_t segment = end.tail_segment; segment <= end.last_segment; ++segment) {
      const uint64_t bytes = segment == end.tail_segment ? RoundUp(end.tail_offset, kLogPageBytes) : 0;
      if (absl::Status s = TrimSegment(options.dir, segment, bytes); !s.ok()) return s;
    }
  }
  // What was read was synced first: it may not vanish any more.
  absl::StatusOr<HighMark> mark = HighMark::Create(SyncedMarkPath(options.dir), end.next_sequence - 1);
  if (!mark.ok()) return mark.status();
  auto log = std::make_unique<SegmentLogImpl>(std::move(options), end, *std::move(mark));
  if (absl::Status s = log->Start(); !s.ok()) return s;
  BALLAST_FAILPOINT("log-opened");
  return std::unique_ptr<SegmentLog>(std::move(log));
}

}  // namespace ballast
