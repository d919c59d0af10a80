#include "server/failpoint.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <thread>

#include "absl/strings/str_cat.h"

namespace ballast {
namespace {

using Action = FailpointPlan::Action;

absl::Status SyncPasses() {
  BALLAST_FAILPOINT_STATUS("segment-sync");
  return absl::OkStatus();
}

std::string TempPath(const char* name) { return absl::StrCat(::testing::TempDir(), "/", name, "-", ::getpid()); }

// A process reads its environment at its first pass, so every case that passes points does so in a child of its own.
class FailpointTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"BALLAST_FAILPOINTS", "BALLAST_FAILPOINTS_FILE", "BALLAST_FAILPOINTS_COVERAGE"}) ::unsetenv(name);
  }
};

TEST(FailpointPlansTest, WholeGrammarIsRead) {
  const auto plans = ParseFailpointPlans("segment-sync=error:disk gone@3*2%50; log-write=pause:/tmp/a@b ;\nfile-rename=kill");
  ASSERT_TRUE(plans.ok()) << plans.status();
  ASSERT_EQ(plans->size(), 3u);
  EXPECT_EQ((*plans)[0].point, FailpointIndex("segment-sync"));
  EXPECT_EQ((*plans)[0].action, Action::kError);
  EXPECT_EQ((*plans)[0].argument, "disk gone");
  EXPECT_EQ((*plans)[0].nth, 3u);
  EXPECT_EQ((*plans)[0].count, 2u);
  EXPECT_EQ((*plans)[0].percent, 50u);
  EXPECT_EQ((*plans)[1].action, Action::kPause);
  EXPECT_EQ((*plans)[1].argument, "/tmp/a@b");
  EXPECT_EQ((*plans)[2].action, Action::kKill);
  EXPECT_EQ((*plans)[2].nth, 1u);
}

TEST(FailpointPlansTest, WhatCannotBeReadIsNamed) {
  for (const char* text :
       {"no-such-point=kill", "log-write", "log-write=explode", "log-write=delay:soon", "log-write=pause", "log-write=kill@0"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseFailpointPlans(text).status())) << text;
  }
}

TEST(FailpointPlansTest, NamesAreUnique) {
  for (size_t i = 0; i < kFailpoints; ++i) EXPECT_EQ(FailpointIndex(kFailpointLines[i].name), i);
  EXPECT_GE(kFailpoints, 60u);
}

TEST_F(FailpointTest, KillIsSigkillAtTheNthPass) {
  ::setenv("BALLAST_FAILPOINTS", "log-write=kill@3", 1);
  EXPECT_EXIT(
      {
        BALLAST_FAILPOINT("log-write");
        BALLAST_FAILPOINT("log-write");
        std::fprintf(stderr, "two passed ");
        BALLAST_FAILPOINT("log-write");
      },
      ::testing::KilledBySignal(SIGKILL), "two passed failpoint log-write");
}

TEST_F(FailpointTest, ExitHasItsStatus) {
  ::setenv("BALLAST_FAILPOINTS", "log-write=exit:7", 1);
  EXPECT_EXIT(BALLAST_FAILPOINT("log-write"), ::testing::ExitedWithCode(7), "failpoint log-write");
}

TEST_F(FailpointTest, ErrorsAreReturnedAsOftenAsPlanned) {
  ::setenv("BALLAST_FAILPOINTS", "segment-sync=error:gone@2*1", 1);
  EXPECT_EXIT(
      {
        const bool first = SyncPasses().ok();
        const bool second = SyncPasses().message() == "failpoint segment-sync: gone";
        const bool third = SyncPasses().ok();
        std::_Exit(first && second && third ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST_F(FailpointTest, AnErrorWhereNoneCanBeReturnedIsRefused) {
  ::setenv("BALLAST_FAILPOINTS", "log-write=error", 1);
  EXPECT_EXIT(BALLAST_FAILPOINT("log-write"), ::testing::ExitedWithCode(2), "no error can be returned at log-write");
}

TEST_F(FailpointTest, ABadPlanIsRefused) {
  ::setenv("BALLAST_FAILPOINTS", "log-writ=kill", 1);
  EXPECT_EXIT(BALLAST_FAILPOINT("log-write"), ::testing::ExitedWithCode(2), "there is no point \"log-writ\"");
}

TEST_F(FailpointTest, PercentFollowsTheSeed) {
  ::setenv("BALLAST_FAILPOINTS", "segment-sync=error%30", 1);
  ::setenv("BALLAST_FAILPOINTS_SEED", "42", 1);
  EXPECT_EXIT(
      {
        int fired = 0;
        for (int i = 0; i < 1000; ++i) fired += !SyncPasses().ok();
        std::_Exit(fired > 250 && fired < 350 ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST_F(FailpointTest, PauseEndsWithItsFile) {
  const std::string file = TempPath("pause");
  std::ofstream(file) << "";
  ::setenv("BALLAST_FAILPOINTS", absl::StrCat("log-write=pause:", file).c_str(), 1);
  EXPECT_EXIT(
      {
        std::thread remover([&] {
          std::this_thread::sleep_for(std::chrono::milliseconds(50));
          ::unlink(file.c_str());
        });
        const auto start = std::chrono::steady_clock::now();
        BALLAST_FAILPOINT("log-write");
        remover.join();
        std::_Exit(std::chrono::steady_clock::now() - start >= std::chrono::milliseconds(45) ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST_F(FailpointTest, PlansAreReadAgainWhenTheFileChanges) {
  const std::string file = TempPath("plans");
  std::ofstream(file) << "";
  ::setenv("BALLAST_FAILPOINTS_FILE", file.c_str(), 1);
  EXPECT_EXIT(
      {
        if (!SyncPasses().ok()) std::_Exit(1);
        std::ofstream(file) << "segment-sync=error";
        for (int i = 0; i < 5000 && SyncPasses().ok(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        std::_Exit(SyncPasses().ok() ? 1 : 0);
      },
      ::testing::ExitedWithCode(0), "");
  ::unlink(file.c_str());
}

TEST_F(FailpointTest, CoverageSurvivesTheKillAndAddsUpOverLives) {
  const std::string file = TempPath("coverage");
  ::setenv("BALLAST_FAILPOINTS", "log-write=kill@2", 1);
  ::setenv("BALLAST_FAILPOINTS_COVERAGE", file.c_str(), 1);
  for (int life = 0; life < 2; ++life) {
    EXPECT_EXIT(
        {
          BALLAST_FAILPOINT("log-write");
          BALLAST_FAILPOINT("log-write");
        },
        ::testing::KilledBySignal(SIGKILL), "");
  }
  std::ifstream in(file, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  ASSERT_EQ(bytes.size(), kFailpoints * sizeof(CoverageLine));
  const auto* const line = reinterpret_cast<const CoverageLine*>(bytes.data()) + FailpointIndex("log-write");
  EXPECT_STREQ(line->name, "log-write");
  EXPECT_EQ(line->passes, 4u);
  EXPECT_EQ(line->fired, 2u);
  ::unlink(file.c_str());
}

}  // namespace
}  // namespace ballast
