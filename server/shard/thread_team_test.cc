#include "server/shard/thread_team.h"

#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <vector>

namespace ballast {
namespace {

TEST(ThreadTeamTest, EachIndexIsWorkedOnOnceBeforeForEachReturns) {
  for (const size_t threads : {1u, 2u, 5u}) {
    ThreadTeam team(threads);
    for (size_t count = 0; count < 200; ++count) {
      std::vector<int> calls(count, 0);  // plain: two calls of one index, or one that runs on, are a race
      team.ForEach(count, [&](size_t i) { ++calls[i]; });
      ASSERT_EQ(calls, std::vector<int>(count, 1)) << threads << " threads";
    }
  }
}

TEST(ThreadTeamTest, ThreadsWorkAtTheSameTime) {
  ThreadTeam team(3);
  std::atomic<int> inside{0};
  team.ForEach(3, [&](size_t) {  // ends only when all three are in it
    ++inside;
    while (inside < 3) std::this_thread::yield();
  });
  EXPECT_EQ(inside, 3);
}

}  // namespace
}  // namespace ballast
