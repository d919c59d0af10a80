// The owner thread's mailbox under many producers. TSan runs it in tools/test.
#include "server/mailbox.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace ballast {
namespace {

constexpr int kProducers = 4;
constexpr int kClosures = 5000;  // of each

// Closures append to these without a lock: only the mailbox's thread may touch them.
struct Received {
  std::vector<int> of[kProducers];
  std::thread::id thread;
  bool one_thread = true;

  void Add(int producer, int number) {
    if (thread == std::thread::id()) thread = std::this_thread::get_id();
    one_thread = one_thread && thread == std::this_thread::get_id();
    of[producer].push_back(number);
  }
};

std::vector<std::thread> StartProducers(Mailbox* mailbox, Received* received) {
  std::vector<std::thread> producers;
  for (int p = 0; p < kProducers; ++p) {
    producers.emplace_back([=] {
      for (int i = 0; i < kClosures; ++i) mailbox->Post([=] { received->Add(p, i); });
    });
  }
  return producers;
}

void ExpectPrefixInOrder(const std::vector<int>& numbers) {
  for (size_t i = 0; i < numbers.size(); ++i) ASSERT_EQ(numbers[i], static_cast<int>(i));
}

TEST(MailboxTest, EachProducersClosuresRunOnceInOrderOnOneThread) {
  Received received;
  Mailbox mailbox("test");
  for (std::thread& producer : StartProducers(&mailbox, &received)) producer.join();
  mailbox.Stop();
  EXPECT_TRUE(received.one_thread);
  EXPECT_NE(received.thread, std::this_thread::get_id());
  for (const std::vector<int>& numbers : received.of) {
    EXPECT_EQ(numbers.size(), static_cast<size_t>(kClosures));
    ExpectPrefixInOrder(numbers);
  }
}

TEST(MailboxTest, NothingRunsAfterStopAndWhatRanIsEachProducersBeginning) {
  Received received;
  Mailbox mailbox("test");
  std::vector<std::thread> producers = StartProducers(&mailbox, &received);
  std::atomic<bool> running{false};
  mailbox.Post([&] { running = true; });
  while (!running) std::this_thread::yield();
  mailbox.Stop();
  size_t ran = 0;
  for (const std::vector<int>& numbers : received.of) {
    ExpectPrefixInOrder(numbers);
    ran += numbers.size();
  }
  for (std::thread& producer : producers) producer.join();
  mailbox.Post([&] { received.Add(0, -1); });
  mailbox.Stop();  // again
  for (const std::vector<int>& numbers : received.of) ran -= numbers.size();
  EXPECT_EQ(ran, 0u);
  EXPECT_EQ(mailbox.size(), 0u);
}

TEST(MailboxTest, TicksComeOnTheSameThreadWhileClosuresDo) {
  Received received;
  int ticks = 0;  // as unprotected as the rest
  std::atomic<bool> ticked{false};
  Mailbox mailbox("test", absl::Milliseconds(1), [&] {
    ++ticks;
    received.Add(0, static_cast<int>(received.of[0].size()));
    ticked = true;
  });
  std::thread producer([&] {
    do {
      mailbox.Post([&] { received.Add(1, static_cast<int>(received.of[1].size())); });
    } while (!ticked);
  });
  producer.join();
  mailbox.Stop();
  EXPECT_TRUE(received.one_thread);
  EXPECT_EQ(received.of[0].size(), static_cast<size_t>(ticks));
  EXPECT_FALSE(received.of[1].empty());
}

}  // namespace
}  // namespace ballast
