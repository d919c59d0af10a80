// Thousands of seeded worlds. `--seeds N --first S --trace` (or SIM_SEEDS, SIM_FIRST, SIM_TRACE) chooses others; a failure prints its
// scenario, and the smallest one that fails in the same way, as arguments of simulate.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/sim/minimise.h"
#include "tests/sim/world.h"

namespace ballast::sim {
namespace {

struct Options {
  uint64_t seeds = 10000;
  uint64_t first = 1;
  bool trace = false;
};
Options options;

// How to see every move of a world that broke a promise, and of the smallest one that breaks it too.
std::string Again(const Scenario& scenario) {
  const Failure smallest = Minimise(scenario);
  return absl::StrCat("simulate --trace --scenario \"", Describe(scenario), "\"\nsmallest: simulate --trace --scenario \"",
                      Describe(smallest.scenario), "\"\n  ", smallest.violation);
}

void ExpectHolds(const Scenario& scenario) {
  World world(scenario);
  const std::string violation = world.Run();
  if (!violation.empty()) ADD_FAILURE() << violation << "\n" << Again(scenario);
}

TEST(Simulation, RandomWorldsKeepEveryPromise) {
  const auto start = std::chrono::steady_clock::now();
  uint64_t moves = 0;
  std::map<std::string, int> seen;
  for (uint64_t i = 0; i < options.seeds && !HasFailure(); ++i) {
    Scenario scenario = RandomScenario(options.first + i);
    scenario.trace = options.trace;
    World world(scenario);
    const std::string violation = world.Run();
    if (!violation.empty()) ADD_FAILURE() << violation << "\n" << Again(scenario);
    moves += world.moves();
    for (const auto& [what, count] : world.seen()) seen[what] += count;
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("%llu worlds from seed %llu, %llu moves, %.1f s;", static_cast<unsigned long long>(options.seeds),
              static_cast<unsigned long long>(options.first), static_cast<unsigned long long>(moves), seconds);
  for (const auto& [what, count] : seen) std::printf(" %s %d", what.c_str(), count);
  std::printf("\n");
  if (options.seeds >= 1000) {  // the faults that matter do occur
    for (const char* what : {"resumed", "receipts", "fenced", "closed", "manifests"}) EXPECT_GT(seen[what], 0) << what;
  }
}

// The small configurations in which tasks, windows, accumulation and twins could wait for one another for ever, in many interleavings.
struct FeedCase {
  const char* name;
  std::vector<uint32_t> partitions;
  std::vector<std::pair<uint32_t, uint32_t>> tasks;
  uint32_t cores, window, accumulate;
};
const FeedCase kFeedCases[] = {
    {"UnevenPartitions", {3, 1}, {{0, 0}, {1, 1}}, 2, 2, 1},
    {"TwoTasksOnOneCore", {2, 2}, {{0, 0}, {1, 1}}, 1, 2, 1},
    {"AccumulateTwoWindowOne", {2}, {{0, 0}}, 1, 1, 2},
    {"AccumulateTwoOddTail", {3}, {{0, 0}}, 1, 3, 2},
    {"AccumulateTwoOverTwoFeedsOnOneCore", {1, 1}, {{0, 0}, {1, 0}}, 1, 2, 2},
    {"AccumulateThreeOverTwoFeedsWithWindowsOfOne", {2, 2}, {{0, 0}, {1, 0}}, 2, 1, 3},
    {"SpeculativeTwinOnAnotherWorker", {2}, {{0, 0}, {0, 1}}, 2, 2, 1},
    {"TwinAndARealFeedOnItsWorker", {2, 1}, {{0, 0}, {0, 1}, {1, 1}}, 3, 1, 1},
};

class FeedCases : public testing::TestWithParam<FeedCase> {};

TEST_P(FeedCases, NeverWaitForEver) {
  const FeedCase& c = GetParam();
  for (uint64_t seed = 1; seed <= 200 && !HasFailure(); ++seed) {
    Scenario s;
    s.seed = seed;
    s.workers = 2;
    s.partitions = c.partitions;
    s.tasks = c.tasks;
    s.cores = c.cores;
    s.window = c.window;
    s.even_batches = true;
    s.contribution_rows = c.accumulate * s.batch_rows;
    s.step_rows = seed % 4 == 0 ? 0 : (seed % 3 + 1) * s.contribution_rows;
    s.staleness_max = seed % 2 == 0 ? 0 : 1;
    ExpectHolds(s);
  }
}
INSTANTIATE_TEST_SUITE_P(Models, FeedCases, testing::ValuesIn(kFeedCases), [](const auto& info) { return info.param.name; });

// The bounds of the exhaustive model of the commit path: 2 workers, 2 shards, 2 batches, faults at every point.
TEST(Simulation, CommitPathWithTwoWorkersTwoShardsTwoBatches) {
  for (uint64_t seed = 1; seed <= 1000 && !HasFailure(); ++seed) {
    Scenario s;
    s.seed = seed;
    s.partitions = {2};
    s.tasks = {{0, 0}, {0, 1}};
    s.faults = 2;
    s.repeat_submits = true;
    s.step_rows = seed % 2 == 0 ? 4 : 8;
    ExpectHolds(s);
  }
}

// What a step holds must not depend on how many workers compute it.
TEST(Simulation, StepSizeDoesNotDependOnTheNumberOfWorkers) {
  for (uint32_t workers = 1; workers <= 3; ++workers) {
    for (uint64_t seed = 1; seed <= 50 && !HasFailure(); ++seed) {
      Scenario s;
      s.seed = seed;
      s.workers = workers;
      s.partitions = {4, 4, 4};
      s.tasks = {{0, 0}, {1, 1 % workers}, {2, 2 % workers}};
      s.cores = 3;
      s.window = 4;  // 2 x step_rows
      s.even_batches = true;
      World world(s);
      ASSERT_EQ(world.Run(), "") << Describe(s);
      for (const DecisionPtr& d : world.decisions()) {
        EXPECT_TRUE(d->kind != DecisionKind::kStep || d->divisor <= 8.0f) << Describe(s);
      }
    }
  }
}

}  // namespace

void ReadOptions(int argc, char** argv) {
  const auto number = [](const char* text, uint64_t& out) {
    if (text != nullptr) out = std::strtoull(text, nullptr, 10);
  };
  number(std::getenv("SIM_SEEDS"), options.seeds);
  number(std::getenv("SIM_FIRST"), options.first);
  options.trace = std::getenv("SIM_TRACE") != nullptr;
  for (int i = 1; i < argc; ++i) {
    const char* value = i + 1 < argc ? argv[i + 1] : nullptr;
    if (std::strcmp(argv[i], "--seeds") == 0) number(value, options.seeds);
    if (std::strcmp(argv[i], "--first") == 0) number(value, options.first);
    if (std::strcmp(argv[i], "--trace") == 0) options.trace = true;
  }
}

}  // namespace ballast::sim

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  ballast::sim::ReadOptions(argc, argv);
  return RUN_ALL_TESTS();
}
