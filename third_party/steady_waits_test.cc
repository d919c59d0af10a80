// Without anybody setting the clock a wait until a time of day takes as long as ever. tests/e2e/clock_test.py sets it.
#include <gtest/gtest.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <ctime>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace {

int WaitUntil(const timespec& time_of_day) {
  uint32_t word = 1;
  const long result = syscall(SYS_futex, &word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME, 1, &time_of_day, nullptr,
                              FUTEX_BITSET_MATCH_ANY);
  return result == 0 ? 0 : errno;
}

TEST(SteadyWaits, AWaitUntilATimeOfDayEndsThen) {
  const absl::Time start = absl::Now();
  EXPECT_EQ(WaitUntil(absl::ToTimespec(start + absl::Milliseconds(60))), ETIMEDOUT);
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(59));
}

TEST(SteadyWaits, AMomentThatIsGoneIsNoWait) {
  EXPECT_EQ(WaitUntil(absl::ToTimespec(absl::Now() - absl::Hours(1))), ETIMEDOUT);
  EXPECT_EQ(WaitUntil(absl::ToTimespec(absl::Now() - absl::Milliseconds(1))), ETIMEDOUT);
  EXPECT_EQ(WaitUntil(timespec{}), ETIMEDOUT);
}

TEST(SteadyWaits, AbseilTimesOut) {
  absl::Mutex mu;
  absl::MutexLock lock(&mu);
  const absl::Time start = absl::Now();
  bool never = false;
  EXPECT_FALSE(mu.AwaitWithTimeout(absl::Condition(&never), absl::Milliseconds(60)));
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(59));
}

TEST(SteadyWaits, OtherCallsAreAsTheyWere) {
  EXPECT_EQ(syscall(SYS_getpid), getpid());
  EXPECT_EQ(syscall(SYS_close, -1), -1);
  EXPECT_EQ(errno, EBADF);
}

}  // namespace
