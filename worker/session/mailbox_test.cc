// A session's mailbox under many producers. TSan runs it in tools/test.
#include "worker/session/mailbox.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace ballast {
namespace {

constexpr int kProducers = 4;
constexpr int kClosures = 5000;  // of each

TEST(SessionMailboxTest, EachProducersClosuresRunOnceInOrder) {
  Mailbox mailbox;
  std::vector<int> received[kProducers];  // only touched by closures, which this thread runs
  std::vector<std::thread> producers;
  for (int p = 0; p < kProducers; ++p) {
    producers.emplace_back([&mailbox, &numbers = received[p]] {
      for (int i = 0; i < kClosures; ++i) mailbox.Post([&numbers, i] { numbers.push_back(i); });
    });
  }
  for (int left = kProducers * kClosures; left > 0;) {
    for (const auto& closure : mailbox.Take(absl::InfiniteFuture())) {
      closure();
      --left;
    }
  }
  for (std::thread& producer : producers) producer.join();
  EXPECT_TRUE(mailbox.Take(SteadyNow()).empty());
  for (const std::vector<int>& numbers : received) {
    ASSERT_EQ(numbers.size(), static_cast<size_t>(kClosures));
    for (int i = 0; i < kClosures; ++i) ASSERT_EQ(numbers[i], i);
  }
}

TEST(SessionMailboxTest, WhatIsPostedAfterCloseIsDropped) {
  Mailbox mailbox;
  int ran = 0;
  std::vector<std::thread> producers;
  for (int p = 0; p < kProducers; ++p) {
    producers.emplace_back([&] {
      for (int i = 0; i < kClosures; ++i) mailbox.Post([&ran] { ++ran; });
    });
  }
  for (const auto& closure : mailbox.Take(absl::InfiniteFuture())) closure();
  mailbox.Close();
  const int before = ran;
  for (std::thread& producer : producers) producer.join();
  EXPECT_TRUE(mailbox.Take(SteadyNow()).empty());
  EXPECT_GT(before, 0);
  EXPECT_EQ(ran, before);
}

TEST(SessionMailboxTest, TakeEndsAtItsDeadline) {
  Mailbox mailbox;
  EXPECT_TRUE(mailbox.Take(SteadyNow() + absl::Milliseconds(1)).empty());
}

}  // namespace
}  // namespace ballast
