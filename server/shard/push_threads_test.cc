// A shard's owner thread under everybody at once: streams that push against a full queue, readers, the coordinator. TSan runs it in
// tools/test.
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "server/shard/shard_testing.h"

namespace ballast::testing {
namespace {

constexpr int kPushers = 6;
constexpr int kPushes = 4;  // of each: as many as a session may have undecided
constexpr uint64_t kSession = 10;

// The answers to one pusher's contributions.
class Receipts {
 public:
  void Add(const PushResult& result) {
    const std::lock_guard<std::mutex> lock(mu_);
    results_.push_back(result);
    came_.notify_all();
  }
  std::vector<PushResult> Await(size_t count) {
    std::unique_lock<std::mutex> lock(mu_);
    came_.wait(lock, [&] { return results_.size() >= count; });
    return results_;
  }

 private:
  std::mutex mu_;
  std::condition_variable came_;
  std::vector<PushResult> results_;
};

// Pushes each chunk until there is room, as a stream does that leaves bytes in its socket.
void PushAll(RunShard* shard, std::vector<std::vector<PushedChunk>> contributions, Receipts* receipts, std::atomic<int>* full) {
  for (std::vector<PushedChunk>& chunks : contributions) {
    for (PushedChunk& chunk : chunks) {
      while (true) {
        const bool taken = shard->Push(std::move(chunk), [receipts](const PushResult& r) { receipts->Add(r); }).ok();
        if (taken) break;
        ++*full;
        std::this_thread::yield();
      }
    }
  }
}

TEST(PushThreadsTest, StreamsReadersAndDecisionsTogether) {
  TestShard t(TestSpec());
  ASSERT_TRUE(t.Open().ok());
  ASSERT_NO_FATAL_FAILURE(t.Train(1));
  t.Close();
  t.options.queue_bytes_max = 5'000;  // from now on, less than one contribution
  ASSERT_TRUE(t.Open().ok());

  std::vector<Receipts> receipts(kPushers);
  std::vector<std::vector<std::vector<PushedChunk>>> work(kPushers);
  for (int p = 0; p < kPushers; ++p) {
    for (int i = 1; i <= kPushes; ++i) work[p].push_back(t.SeededChunks({kSession + p, static_cast<uint64_t>(i)}, 100 * p + i));
  }
  std::atomic<int> full{0};
  std::vector<std::thread> threads;
  for (int p = 0; p < kPushers; ++p) threads.emplace_back(PushAll, t.shard.get(), std::move(work[p]), &receipts[p], &full);

  std::atomic<bool> over{false};
  std::thread reader([&] {
    uint64_t last = 0;
    while (!over) {
      std::mutex mu;
      std::condition_variable came;
      bool answered = false;
      uint64_t version = 0;
      t.shard->Pull(last, Codec::kInt8, [&](std::shared_ptr<const Encoding> encoding) {
        const std::lock_guard<std::mutex> lock(mu);
        version = encoding->version;
        answered = true;
        came.notify_all();
      });
      std::unique_lock<std::mutex> lock(mu);
      came.wait(lock, [&] { return answered; });
      EXPECT_GE(version, last);
      last = version;
    }
  });
  // Steps from what each pusher sent, while the others go on.
  for (int i = 1; i <= kPushes; ++i) {
    std::vector<Uid> uids;
    for (int p = 0; p < kPushers; ++p) {
      const std::vector<PushResult> results = receipts[p].Await(i);
      EXPECT_EQ(results[i - 1].error, "") << results[i - 1].detail;
      uids.push_back(results[i - 1].uid);
    }
    ASSERT_TRUE(t.Decide(DecisionKind::kStep, uids));
    t.shard->Debt();
  }
  over = true;
  for (std::thread& thread : threads) thread.join();
  reader.join();
  EXPECT_EQ(t.shard->Position().version, static_cast<uint64_t>(2 + kPushes));  // INIT, the step of Train, these
  EXPECT_TRUE(t.shard->Position().undecided.empty());
  RecordProperty("full", full);
}

}  // namespace
}  // namespace ballast::testing
