// A broken rule's world shrinks to the few parts that it needs, and what is printed is run again by what was printed.
#include "tests/sim/minimise.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/sim/world.h"

namespace ballast::sim {
namespace {

TEST(Scenario, IsReadBackFromItsText) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    const std::string text = Describe(RandomScenario(seed));
    const absl::StatusOr<Scenario> read = ParseScenario(text);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(Describe(*read), text);
  }
}

TEST(Scenario, WhatIsNoneIsRefused) {
  for (const char* text : {"seed", "seed=x", "colour=1", "shards=0", "tasks=9@0", "tasks=0@9", "kinds=wx", "bad=1:0"}) {
    EXPECT_FALSE(ParseScenario(text).ok()) << text;
  }
}

// The shortest trace of the exhaustive model needs one worker, one batch and a crash of server 0.
TEST(Minimise, ADoubleGrantNeedsOneOfEachAndOneCrash) {
  Scenario scenario = RandomScenario(6);
  scenario.mutation = "no-ledger-check";
  World world(scenario);
  ASSERT_NE(world.Run(), "");
  const Failure smallest = Minimise(scenario);
  EXPECT_EQ(smallest.scenario.workers, 1u);
  EXPECT_EQ(smallest.scenario.shards, 1u);
  EXPECT_EQ(smallest.scenario.partitions, std::vector<uint32_t>{1});
  EXPECT_EQ(smallest.scenario.faults, 1);
  EXPECT_LT(smallest.moves, world.moves());

  Scenario again = ParseScenario(Describe(smallest.scenario)).value();
  again.mutation = scenario.mutation;
  World same(again);
  EXPECT_EQ(same.Run(), smallest.violation);
  EXPECT_EQ(same.moves(), smallest.moves);
}

}  // namespace
}  // namespace ballast::sim
