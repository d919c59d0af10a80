// The feed queue between several feeds, the session and whoever reads its figures, each on a thread. TSan runs it in tools/test.
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "worker/feed/feed_queue.h"

namespace ballast {
namespace {

constexpr uint32_t kRows = 4;  // of a batch
constexpr uint64_t kBatchBytes = kRows * 8;
constexpr uint32_t kPartitions = 3;
constexpr uint32_t kFeeds = 2 * kPartitions;      // each partition is fed twice: speculative twins
constexpr uint64_t kBatches = 400;                // of a partition
constexpr uint64_t kBytesMax = 10 * kBatchBytes;  // less than all feeds want: some wait for others to close
constexpr size_t kInFlight = 8;                   // batches that the session has at a time

// What a task knows of its feed. As FeedOutlet demands, it takes no lock but its own.
class Task final : public FeedOutlet {
 public:
  void Welcome(std::shared_ptr<const RunSpec>, uint64_t credit_bytes) override { Credit(credit_bytes); }
  void Credit(uint64_t bytes) override {
    const std::lock_guard<std::mutex> lock(mu_);
    credit_ += bytes;
    changed_.notify_all();
  }
  void Ack(uint64_t seq, Outcome, uint64_t, const std::string&) override {
    const std::lock_guard<std::mutex> lock(mu_);
    ++acks_[seq];
  }
  void Fault(const FeedFault& fault) override {
    const std::lock_guard<std::mutex> lock(mu_);
    fault_ = fault.reason + " " + fault.message;
    finished_ = true;
    changed_.notify_all();
  }
  void Finish() override {
    const std::lock_guard<std::mutex> lock(mu_);
    finished_ = true;
    changed_.notify_all();
  }

  // False: there was a fault.
  bool AwaitCredit() {
    std::unique_lock<std::mutex> lock(mu_);
    changed_.wait(lock, [this] { return credit_ >= kBatchBytes || finished_; });
    if (finished_) return false;
    credit_ -= kBatchBytes;
    return true;
  }
  void AwaitFinish() {
    std::unique_lock<std::mutex> lock(mu_);
    changed_.wait(lock, [this] { return finished_; });
  }
  std::map<uint64_t, int> acks() {
    const std::lock_guard<std::mutex> lock(mu_);
    return acks_;
  }
  std::string fault() {
    const std::lock_guard<std::mutex> lock(mu_);
    return fault_;
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  uint64_t credit_ = 0;
  bool finished_ = false;
  std::map<uint64_t, int> acks_;
  std::string fault_;
};

RowBatch Rows(uint32_t partition, uint64_t seq) {
  RowBatch rows;
  rows.batch = {{1, partition, seq}, kRows, /*fingerprint=*/seq + 1};
  rows.columns.emplace_back("x", std::string(kBatchBytes, '\0'));
  return rows;
}

// Sends its partition as far as its credit goes. A twin may come after the other one was acknowledged: its batch is trained "again", which
// the coordinator would refuse; here that is one more acknowledgement.
void Feed(FeedQueue* queue, Task* task, uint32_t partition) {
  const FeedQueue::FeedId feed = queue->Open(task, 1, partition, absl::UnixEpoch());
  for (uint64_t seq = 0; seq < kBatches && task->AwaitCredit(); ++seq) {
    queue->Add(feed, Rows(partition, seq));
    if (seq % 7 == 0) queue->Flush(feed);
  }
  queue->End(feed);
  task->AwaitFinish();
  queue->Close(feed);
}

// Claims, gives some back, trains the rest in any order.
void Serve(FeedQueue* queue, uint32_t seed, const std::atomic<bool>* over) {
  std::mt19937 random(seed);
  std::vector<Batch> held;
  while (!*over) {
    for (const Batch& batch : queue->TakeUnclaimed(kInFlight - held.size())) held.push_back(batch);
    if (held.empty()) {
      std::this_thread::yield();
      continue;
    }
    std::swap(held[random() % held.size()], held.back());
    const BatchId id = held.back().id;
    held.pop_back();
    if (random() % 8 == 0) {
      queue->Unclaim(id);
      continue;
    }
    EXPECT_NE(queue->Find(id), nullptr);
    queue->LeaveQueue(id);
    queue->Acknowledge(id, Outcome::kTrained, 1, "");
  }
}

TEST(FeedThreadsTest, FeedsTwinsASessionAndMetricsTogether) {
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  FeedQueue queue("run", kBytesMax);
  std::atomic<uint64_t> changes{0};
  queue.Listen([&] { ++changes; });
  auto spec = std::make_shared<RunSpec>();
  spec->schema = "x:int64";
  spec->step_rows = 2 * kRows;
  spec->batch_rows = kRows;

  Task tasks[kFeeds];
  std::vector<std::thread> feeds;
  for (uint32_t f = 0; f < kFeeds; ++f) feeds.emplace_back(Feed, &queue, &tasks[f], f % kPartitions);
  std::atomic<bool> over{false};
  std::thread session(Serve, &queue, seed, &over);
  std::thread metrics([&] {
    // In the queue at most what the credits allow; kept for a recomputation at most what the session holds.
    while (!over) {
      EXPECT_LE(queue.bytes(), kBytesMax + kInFlight * kBatchBytes);
      EXPECT_LE(queue.feeds(), kFeeds);
      queue.Blocked();
      queue.waiting_since();
      std::this_thread::yield();
    }
  });
  queue.Serve(spec);  // feeds that came before it wait
  for (std::thread& feed : feeds) feed.join();
  over = true;
  session.join();
  metrics.join();

  for (Task& task : tasks) {
    EXPECT_EQ(task.fault(), "");
    const std::map<uint64_t, int> acks = task.acks();
    EXPECT_EQ(acks.size(), kBatches);
    for (const auto& [seq, times] : acks) EXPECT_EQ(times, 1) << "batch " << seq;
  }
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.bytes(), 0u);
  EXPECT_GT(changes, 0u);
}

}  // namespace
}  // namespace ballast
