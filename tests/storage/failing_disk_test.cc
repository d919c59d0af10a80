// A disk that returns errors: the shard stops at the first one, tries nothing again, and what was acknowledged is there at the next start.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "server/storage/faults/fault_disk.h"
#include "server/storage/files.h"
#include "tests/storage/shard_life.h"

namespace ballast::testing {
namespace {

namespace fs = std::filesystem;

constexpr size_t kDecisions = 30;

const Script& TheScript() {
  static const Script* const script = new Script(Script::Make(TestSpec(), 0, kDecisions));
  return *script;
}

struct Case {
  const char* name;
  DiskFault fault;
  absl::StatusCode code;  // of OnFailed
};

class FailingDiskBase : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::exists("/dev/shm") ? "/dev/shm/ballast_failing_XXXXXX" : ::testing::TempDir() + "/failing_XXXXXX";
    ASSERT_NE(::mkdtemp(root_.data()), nullptr);
    TheScript();
  }
  void TearDown() override {
    for (const char* suffix : {"", ".trash", ".txt"}) fs::remove_all(root_ + suffix);
  }
  int Child(const std::function<void(Promises&)>& life) { return RunInChild(root_ + ".txt", promises_, life); }
  std::string Said() { return ReadFile(root_ + ".txt").value_or(""); }

  std::string root_;
  Promises promises_;
};

class FailingDiskTest : public FailingDiskBase, public ::testing::WithParamInterface<Case> {};

TEST_P(FailingDiskTest, StopsTriesNothingAgainAndLosesNothing) {
  const int status = Child([this](Promises& promises) {
    FaultDisk disk(root_);
    auto life = ShardLife::Open(TheScript(), root_ + "/data");
    ASSERT_TRUE(life.ok()) << life.status();
    ASSERT_TRUE((*life)->Check(promises).ok());
    ASSERT_TRUE((*life)->Run(10, /*wait=*/true, promises));
    disk.Inject(GetParam().fault);
    ASSERT_FALSE((*life)->Run(kDecisions, /*wait=*/true, promises));
    const absl::Status failed = (*life)->WaitFailed();
    EXPECT_EQ(failed.code(), GetParam().code) << failed;
    const std::vector<std::string> syncs = disk.SinceFault(DiskCall::kSync);
    const std::string file = disk.SinceFault(GetParam().fault.call).at(0);
    EXPECT_LE(std::count(syncs.begin(), syncs.end(), file), GetParam().fault.call == DiskCall::kSync ? 1 : 0)
        << file << " was synced again";
    std::fflush(nullptr);
    if (HasFailure()) std::_Exit(1);
    disk.CutPowerAfter(0, 7);  // what the failed call left in memory was never on the disk
  });
  ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == kPowerIsOff) << status << "\n" << Said();
  ASSERT_GE(promises_.index, 10u);
  const int again = Child([this](Promises& promises) {
    auto life = ShardLife::Open(TheScript(), root_ + "/data");
    ASSERT_TRUE(life.ok()) << life.status();
    const absl::Status checked = (*life)->Check(promises);
    ASSERT_TRUE(checked.ok()) << checked;
    EXPECT_TRUE((*life)->Run(kDecisions, /*wait=*/true, promises));
  });
  EXPECT_EQ(again, 0) << Said();
}

INSTANTIATE_TEST_SUITE_P(
    Faults, FailingDiskTest,
    ::testing::Values(Case{"LogSync", {DiskCall::kSync, ".log", 3, EIO, false}, absl::StatusCode::kInternal},
                      Case{"LogWrite", {DiskCall::kWrite, "shard-0/0", 3, EIO, false}, absl::StatusCode::kInternal},
                      Case{"LogWriteDiskFull", {DiskCall::kWrite, "shard-0/0", 3, ENOSPC, true}, absl::StatusCode::kResourceExhausted},
                      Case{"NewSegmentDiskFull", {DiskCall::kSpace, "shard-0/0", 1, ENOSPC, true}, absl::StatusCode::kResourceExhausted},
                      Case{"MarkWrite", {DiskCall::kWrite, "SYNCED", 2, EIO, false}, absl::StatusCode::kInternal},
                      Case{"CheckpointWriteDiskFull", {DiskCall::kWrite, ".sst", 1, ENOSPC, true}, absl::StatusCode::kResourceExhausted},
                      Case{"CheckpointSync", {DiskCall::kSync, ".sst", 1, EIO, false}, absl::StatusCode::kInternal}),
    [](const auto& info) { return info.param.name; });

// A bit that flips between disk and memory is found like one that flipped on the disk.
class FlippedReadTest : public FailingDiskBase {};

TEST_F(FlippedReadTest, IsRefused) {
  const int status = Child([this](Promises& promises) {
    {
      auto life = ShardLife::Open(TheScript(), root_ + "/data");
      ASSERT_TRUE(life.ok()) << life.status();
      ASSERT_TRUE((*life)->Run(10, /*wait=*/true, promises));
    }
    FaultDisk disk(root_);
    disk.Inject({DiskCall::kRead, "00000001.log", 1, 0, false});
    const absl::Status refused = ShardLife::Open(TheScript(), root_ + "/data").status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kDataLoss) << refused;
    EXPECT_TRUE(absl::StrContains(refused.message(), "00000001.log at byte")) << refused;
  });
  EXPECT_EQ(status, 0) << Said();
}

}  // namespace
}  // namespace ballast::testing
