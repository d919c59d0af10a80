#include "server/machine.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <string>

namespace ballast {
namespace {

uint64_t AddressSpace() {
  std::ifstream statm("/proc/self/statm");
  uint64_t pages = 0;
  statm >> pages;
  return pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

TEST(MachineTest, FreeMemoryIsAtMostThatOfTheMachine) {
  EXPECT_GT(FreeMemory(), 0u);
  EXPECT_LE(FreeMemory(), static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)));
}

TEST(MachineTest, FreeMemoryEndsAtTheLimitOfTheAddressSpace) {
  const pid_t child = ::fork();
  if (child == 0) {
    const uint64_t limit = AddressSpace() + (64u << 20);
    const struct rlimit space = {limit, limit};
    if (::setrlimit(RLIMIT_AS, &space) != 0) ::_exit(2);
    ::_exit(FreeMemory() <= (64u << 20) ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST(MachineTest, DiskSpeedIsMeasuredWhereThereIsADirectory) {
  EXPECT_GT(DiskBytesPerSecond(::testing::TempDir(), 4u << 20), 0);
  EXPECT_EQ(DiskBytesPerSecond(::testing::TempDir() + "/none"), 0);
}

}  // namespace
}  // namespace ballast
