// Damage tests of the log: what was synced is read back exactly or refused, what was not may vanish, nothing in between.
#include "server/storage/segment_log.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "server/storage/files.h"
#include "tests/support/fresh_dir.h"

namespace ballast {
namespace {

namespace fs = std::filesystem;
using Files = std::map<std::string, std::string>;

constexpr uint64_t kSegment = 64u << 10;

std::string Body(int i, size_t bytes) {
  std::string body(bytes, static_cast<char>('a' + i % 26));
  return std::to_string(i) + ":" + body;
}

SegmentLogOptions Options(const std::string& dir) {
  SegmentLogOptions o;
  o.dir = dir;
  o.run_record = "run record";
  o.segment_bytes = kSegment;
  return o;
}

struct Read {
  absl::Status status;
  LogEnd end;
  std::vector<std::string> bodies;  // of contributions
};
Read ReadAll(const std::string& dir) {
  Read out;
  const auto end = ReadLog(dir, /*sync_first=*/true, [&](const RecordHeader& header, const LogPosition&, absl::string_view body) {
    if (header.kind == RecordKind::kContribution) out.bodies.emplace_back(body);
    return absl::OkStatus();
  });
  out.status = end.status();
  if (end.ok()) out.end = *end;
  return out;
}

std::unique_ptr<SegmentLog> OpenLog(SegmentLogOptions options) {
  const Read read = ReadAll(options.dir);
  EXPECT_TRUE(read.status.ok()) << read.status;
  auto log = SegmentLog::Open(std::move(options), read.end);
  EXPECT_TRUE(log.ok()) << log.status();
  return *std::move(log);
}

absl::StatusOr<LogPosition> Add(SegmentLog& log, const std::string& body, std::function<void()> on_synced = nullptr) {
  const absl::string_view piece = body;
  return log.Append(RecordKind::kContribution, absl::MakeConstSpan(&piece, 1), std::move(on_synced));
}

// Writes `n` records, a sync for every few, and closes.
std::vector<std::string> Fill(const std::string& dir, int n, size_t bytes) {
  auto log = OpenLog(Options(dir));
  std::vector<std::string> bodies;
  for (int i = 0; i < n; ++i) {
    bodies.push_back(Body(i, bytes));
    const auto at = Add(*log, bodies.back());
    EXPECT_TRUE(at.ok()) << at.status();
    if (i % 3 == 0) {
      EXPECT_TRUE(log->WaitSynced(at->sequence).ok());
    }
  }
  return bodies;
}

Files Snapshot(const std::string& dir) {
  Files files;
  for (const auto& entry : fs::directory_iterator(dir)) files[entry.path().filename()] = ReadFile(entry.path()).value();
  return files;
}
void Restore(const std::string& dir, const Files& files) {
  for (const auto& [name, bytes] : files) std::ofstream(dir + "/" + name, std::ios::binary | std::ios::trunc) << bytes;
}

TEST(SegmentLogTest, RecordsSurviveReopenAndTheLogGoesOn) {
  const std::string dir = FreshDir();
  std::vector<std::string> bodies = Fill(dir, 40, 5000);
  {
    auto log = OpenLog(Options(dir));
    bodies.push_back("after the restart");
    ASSERT_TRUE(Add(*log, bodies.back()).ok());
  }
  const Read read = ReadAll(dir);
  ASSERT_TRUE(read.status.ok()) << read.status;
  EXPECT_EQ(read.bodies, bodies);
  EXPECT_GT(read.end.last_segment, 3u);
}

TEST(SegmentLogTest, CallbacksComeInOrderAfterTheSync) {
  const std::string dir = FreshDir();
  std::vector<int> called;
  std::atomic<int> syncs{0};
  {
    SegmentLogOptions options = Options(dir);
    options.sync = [&](int) { return ++syncs, 0; };
    auto log = OpenLog(options);
    const int before = syncs;
    for (int i = 0; i < 10; ++i) {
      ASSERT_TRUE(Add(*log, Body(i, 10), [&called, &syncs, before, i] {
                    EXPECT_GT(syncs, before);
                    called.push_back(i);
                  }).ok());
    }
    log->WhenSynced(1, [] {});  // synced long ago: at once
  }
  EXPECT_EQ(called, (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
}

// While the disk takes nothing, contributions wait for room; decisions, which are few and small, do not.
TEST(SegmentLogTest, ContributionsWaitWhenTheBufferIsFull) {
  constexpr int kRecords = 40, kFit = 8;
  const std::string body(4096 - kRecordHeaderBytes, 'c');
  absl::Notification healed;
  std::atomic<int> appended{0};
  SegmentLogOptions options = Options(FreshDir());
  options.buffered_bytes_max = kFit * 4096;
  std::atomic<bool> opened{false};
  options.sync = [&](int) {
    if (opened) healed.WaitForNotification();
    return 0;
  };
  auto log = OpenLog(options);
  opened = true;
  std::thread shard([&] {
    for (int i = 0; i < kRecords; ++i) {
      EXPECT_TRUE(Add(*log, body).ok());
      ++appended;
    }
  });
  while (appended < kFit) std::this_thread::yield();
  const absl::string_view decision = "a decision";
  const auto at = log->Append(RecordKind::kDecision, absl::MakeConstSpan(&decision, 1), nullptr);
  ASSERT_TRUE(at.ok()) << at.status();
  EXPECT_EQ(appended, kFit);
  healed.Notify();
  shard.join();
  EXPECT_EQ(appended, kRecords);
  EXPECT_TRUE(log->WaitSynced(kRecords + 1).ok());
}

TEST(SegmentLogTest, FailedSyncStopsTheLogAndIsNeverRetried) {
  const std::string dir = FreshDir();
  std::atomic<int> syncs_left{1}, failures{0}, syncs_after{0};
  absl::Notification failed;
  SegmentLogOptions options = Options(dir);
  options.sync = [&](int) {
    if (failures > 0) ++syncs_after;
    if (syncs_left-- > 0) return 0;
    errno = EIO;
    return -1;
  };
  options.on_failed = [&](const absl::Status& s) {
    EXPECT_NE(s.message().find("fdatasync"), std::string::npos) << s;
    if (++failures == 1) failed.Notify();
  };
  {
    auto log = OpenLog(options);
    ASSERT_TRUE(Add(*log, "x", [] { ADD_FAILURE() << "called for a record that is not on disk"; }).ok());
    failed.WaitForNotification();
    EXPECT_FALSE(Add(*log, "y").ok());
    EXPECT_FALSE(log->WaitSynced(1000).ok());
  }
  EXPECT_EQ(failures, 1);
  EXPECT_EQ(syncs_after, 0);
}

TEST(SegmentLogTest, CutSegmentsAreRecycled) {
  const std::string dir = FreshDir();
  const std::vector<std::string> bodies = Fill(dir, 60, 5000);
  {
    auto log = OpenLog(Options(dir));
    log->Cut(4);
    ASSERT_TRUE(log->WaitSynced(Add(*log, "z")->sequence).ok());
    for (int i = 0; i < 30; ++i) ASSERT_TRUE(log->WaitSynced(Add(*log, Body(i, 5000))->sequence).ok());
  }
  EXPECT_EQ(ListSegments(dir)->front(), 4u);
  EXPECT_TRUE(ListSpares(dir)->empty());  // taken again by the new segments, whose old bytes are not believed
  const Read read = ReadAll(dir);
  ASSERT_TRUE(read.status.ok()) << read.status;
  ASSERT_GT(read.bodies.size(), 31u);
  EXPECT_EQ(read.bodies[read.bodies.size() - 31], "z");
  EXPECT_EQ(read.bodies.back(), Body(29, 5000));
}

TEST(SegmentLogTest, RetainAllKeepsEverything) {
  const std::string dir = FreshDir();
  const std::vector<std::string> bodies = Fill(dir, 60, 5000);
  {
    SegmentLogOptions options = Options(dir);
    options.retain_all = true;
    OpenLog(options)->Cut(4);
  }
  EXPECT_EQ(ReadAll(dir).bodies, bodies);
}

TEST(SegmentLogTest, FlippedBitIsRefusedOrHarmless) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const std::string dir = FreshDir();
  const std::vector<std::string> bodies = Fill(dir, 20, 8000);
  const Files good = Snapshot(dir);
  int refused = 0;
  for (int i = 0; i < 300; ++i) {
    Files bad = good;
    auto it = std::next(bad.begin(), random() % bad.size());
    if (it->second.empty()) continue;
    const size_t at = random() % it->second.size();
    it->second[at] = static_cast<char>(it->second[at] ^ (1 << random() % 8));
    Restore(dir, bad);
    const Read read = ReadAll(dir);
    if (read.status.ok()) {
      ASSERT_EQ(read.bodies, bodies) << "flipped bit in " << it->first << " at " << at << " passed";
      continue;
    }
    ++refused;
    EXPECT_EQ(read.status.code(), absl::StatusCode::kDataLoss) << read.status;
    EXPECT_NE(read.status.message().find(".log at byte "), std::string::npos) << read.status;
  }
  EXPECT_GT(refused, 100);
  Restore(dir, good);
  EXPECT_EQ(ReadAll(dir).bodies, bodies);
}

TEST(SegmentLogTest, MissingOrShortenedSegmentIsRefused) {
  const std::string dir = FreshDir();
  Fill(dir, 40, 5000);
  const Files good = Snapshot(dir);
  ASSERT_GT(good.size(), 3u);
  fs::remove(SegmentPath(dir, 2));
  EXPECT_EQ(ReadAll(dir).status.code(), absl::StatusCode::kDataLoss);
  Restore(dir, good);
  fs::resize_file(SegmentPath(dir, 2), 20000);
  EXPECT_EQ(ReadAll(dir).status.code(), absl::StatusCode::kDataLoss);
  Restore(dir, good);
  fs::resize_file(SegmentPath(dir, 2), 0);
  EXPECT_EQ(ReadAll(dir).status.code(), absl::StatusCode::kDataLoss);
}

// The newest segment may have nothing behind it that vouches for it: the mark beside it does.
TEST(SegmentLogTest, LostTailIsRefusedHoweverTornItLooks) {
  const std::string dir = FreshDir();
  const std::vector<std::string> bodies = Fill(dir, 40, 5000);
  const Files good = Snapshot(dir);
  uint64_t newest = 0;  // segment of the last record; a later one may hold the idle mark alone
  ASSERT_TRUE(ReadLog(dir, false, [&](const RecordHeader& header, const LogPosition& at, absl::string_view) {
                if (header.kind == RecordKind::kContribution) newest = at.segment;
                return absl::OkStatus();
              }).ok());
  const std::string last = SegmentPath(dir, newest);
  const uint64_t bytes = fs::file_size(last);
  fs::remove(SegmentPath(dir, newest + 1));
  const auto expect_refused = [&](const char* how) {
    const Read read = ReadAll(dir);
    EXPECT_EQ(read.status.code(), absl::StatusCode::kDataLoss) << how;
    EXPECT_NE(read.status.message().find("was on disk"), std::string::npos) << how << ": " << read.status;
    Restore(dir, good);
    fs::remove(SegmentPath(dir, newest + 1));
  };
  fs::remove(last);
  expect_refused("deleted");
  std::ofstream(last, std::ios::binary) << std::string(bytes, '\0');
  expect_refused("zeros");
  fs::resize_file(last, 0);
  expect_refused("emptied");
  fs::resize_file(last, kLogPageBytes);
  expect_refused("cut");
  fs::remove(SyncedMarkPath(dir));  // of a log that an older release wrote
  EXPECT_EQ(ReadAll(dir).bodies, bodies);
}

TEST(SegmentLogTest, MarkSurvivesDamageOfOneCopy) {
  const std::string dir = FreshDir();
  Fill(dir, 10, 500);
  const Files good = Snapshot(dir);
  const std::string mark = good.at("SYNCED");
  for (size_t at : {0u, 9u, 512u, 521u}) {
    std::string bad = mark;
    bad[at] = static_cast<char>(bad[at] ^ 4);
    Restore(dir, {{"SYNCED", bad}});
    EXPECT_TRUE(ReadAll(dir).status.ok()) << at;
  }
  Restore(dir, {{"SYNCED", std::string(mark.size(), '\0')}});
  EXPECT_EQ(ReadAll(dir).status.code(), absl::StatusCode::kDataLoss);
}

// Power fails: of what was written after the last successful sync, each page is there or not.
TEST(SegmentLogTest, PowerLossKeepsEverySyncedRecordAndAPrefix) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 40; ++round) {
    const std::string dir = FreshDir();
    std::vector<std::string> bodies;
    size_t acknowledged = 0;
    for (int life = 0; life < 3; ++life) {
      Files durable;
      int syncs_left = 2 + static_cast<int>(random() % 6);
      absl::Notification failed;
      SegmentLogOptions options = Options(dir);
      options.sync = [&](int) {
        if (syncs_left-- <= 0) return errno = EIO, -1;
        durable = Snapshot(dir);
        return 0;
      };
      options.on_failed = [&](const absl::Status&) { failed.Notify(); };
      std::atomic<size_t> synced{acknowledged};
      {
        auto log = OpenLog(options);
        for (int i = 0;; ++i) {
          const std::string body = Body(static_cast<int>(bodies.size()), random() % 20000);
          const auto at = Add(*log, body, [&synced, n = bodies.size() + 1] { synced = n; });
          if (!at.ok()) break;
          bodies.push_back(body);
          if (i % 2 == 0) (void)log->WaitSynced(at->sequence);
        }
        failed.WaitForNotification();
      }
      Files now = Snapshot(dir);
      for (auto& [name, bytes] : now) {
        std::string& old = durable[name];
        old.resize(bytes.size(), '\0');
        for (size_t page = 0; page < bytes.size(); page += kLogPageBytes) {
          if (random() % 2 == 0) bytes.replace(page, kLogPageBytes, old, page, kLogPageBytes);
        }
      }
      Restore(dir, now);
      const Read read = ReadAll(dir);
      ASSERT_TRUE(read.status.ok()) << "round " << round << " life " << life << ": " << read.status;
      ASSERT_GE(read.bodies.size(), synced.load());
      ASSERT_LE(read.bodies.size(), bodies.size());
      bodies.resize(read.bodies.size());
      ASSERT_EQ(read.bodies, bodies);
      acknowledged = bodies.size();  // believed from here on: recovery synced it
    }
    fs::remove_all(dir);
  }
}

TEST(SegmentLogTest, OneRecordIsReadBackByPosition) {
  const std::string dir = FreshDir();
  auto log = OpenLog(Options(dir));
  const auto at = Add(*log, "hello");
  ASSERT_TRUE(log->WaitSynced(at->sequence).ok());
  EXPECT_EQ(ReadRecordAt(dir, *at, RecordKind::kContribution).value(), "hello");
  EXPECT_EQ(ReadRecordAt(dir, *at, RecordKind::kDecision).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ReadRecordAt(dir, {at->sequence, 77, 0}, RecordKind::kContribution).status().code(), absl::StatusCode::kNotFound);
}

TEST(SegmentLogTest, DiskBelowTheReserveIsReported) {
  SegmentLogOptions options = Options(FreshDir());
  options.disk_reserve_bytes = uint64_t{1} << 60;
  std::string reason;
  options.on_disk = [&](bool low, const std::string& why) { reason = low ? why : "recovered"; };
  OpenLog(options).reset();
  EXPECT_NE(reason.find("disk low"), std::string::npos) << reason;
}

}  // namespace
}  // namespace ballast
