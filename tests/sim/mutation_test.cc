// Each rule of core/coordinator/rules.h is needed: without it some world breaks a promise. Prints the first seed that shows it.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include "tests/sim/world.h"

namespace ballast::sim {
namespace {

constexpr uint64_t kSeedsMax = 20000;

struct Mutation {
  const char* name;
  const char* shows;  // part of the broken promise
};
const Mutation kMutations[] = {
    {"no-fence-check", "decided twice"},
    {"no-withdraw", "decided twice"},
    {"no-own-log-check", "is not durable on shard 0"},
    {"early-receipt", "is not durable on shard"},
    {"holds-anything", "nothing moves any more"},
    {"never-flush", ""},  // dead ends, or batches given up because their sessions lose one lease after another
};

class Mutations : public testing::TestWithParam<Mutation> {};

TEST_P(Mutations, BreakAPromise) {
  const Mutation& mutation = GetParam();
  for (uint64_t seed = 1; seed <= kSeedsMax; ++seed) {
    Scenario scenario = RandomScenario(seed);
    scenario.mutation = mutation.name;
    World world(scenario);
    const std::string violation = world.Run();
    if (violation.empty() || violation.find(mutation.shows) == std::string::npos) continue;
    std::printf("%s: %s\n  %s\n", mutation.name, violation.c_str(), Describe(scenario).c_str());
    scenario.mutation.clear();
    World sound(scenario);
    EXPECT_EQ(sound.Run(), "") << "with every rule the same world must hold";
    return;
  }
  FAIL() << mutation.name << " was not noticed in " << kSeedsMax << " worlds";
}
INSTANTIATE_TEST_SUITE_P(Rules, Mutations, testing::ValuesIn(kMutations), [](const auto& info) {
  std::string name = info.param.name;
  for (char& c : name) c = c == '-' ? '_' : c;
  return name;
});

}  // namespace
}  // namespace ballast::sim
