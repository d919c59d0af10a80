// Runs worlds by hand: from seeds, from a written scenario, with a rule of core/coordinator/rules.h taken away, and makes a failing one
// small.
//   simulate [--seed N] [--seeds N] [--scenario "seed=1 shards=2 ..."] [--mutate NAME] [--minimise] [--trace] [--mutations]
// The last line says what was broken, or how many worlds held. Exit status 1 when a promise was broken.
#include <cstdio>
#include <cstring>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "core/coordinator/rules.h"
#include "tests/sim/minimise.h"
#include "tests/sim/world.h"

namespace ballast::sim {
namespace {

struct Flags {
  uint64_t seed = 1;
  uint64_t seeds = 1;
  std::string scenario;
  std::string mutation;
  bool minimise = false;
  bool trace = false;
  bool mutations = false;
};

bool Read(int argc, char** argv, Flags& flags) {
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--minimise") {
      flags.minimise = true;
    } else if (name == "--trace") {
      flags.trace = true;
    } else if (name == "--mutations") {
      flags.mutations = true;
    } else if (i + 1 == argc) {
      return false;
    } else if (const std::string value = argv[++i]; name == "--scenario") {
      flags.scenario = value;
    } else if (name == "--mutate") {
      flags.mutation = value;
    } else if (name != "--seed" && name != "--seeds") {
      return false;
    } else if (!absl::SimpleAtoi(value, name == "--seed" ? &flags.seed : &flags.seeds)) {
      return false;
    }
  }
  Rules rules;
  return flags.mutation.empty() || Mutate(flags.mutation, rules);
}

int Report(const Flags& flags, const Scenario& failing, const std::string& violation) {
  const Failure failure = flags.minimise ? Minimise(failing) : Failure{failing, violation, 0};
  const std::string mutate = flags.mutation.empty() ? "" : absl::StrCat(" --mutate ", flags.mutation);
  std::printf("again: simulate --scenario \"%s\"%s --trace\n", Describe(failure.scenario).c_str(), mutate.c_str());
  std::printf("broken: %s\n", failure.violation.c_str());
  return 1;
}

int RunAll(const Flags& flags) {
  for (uint64_t seed = flags.seed; seed < flags.seed + flags.seeds; ++seed) {
    Scenario scenario = RandomScenario(seed);
    if (!flags.scenario.empty()) {
      const absl::StatusOr<Scenario> parsed = ParseScenario(flags.scenario);
      if (!parsed.ok()) return std::fprintf(stderr, "%s\n", parsed.status().ToString().c_str()), 2;
      scenario = *parsed;
    }
    scenario.mutation = flags.mutation;
    scenario.trace = flags.trace;
    World world(scenario);
    if (const std::string violation = world.Run(); !violation.empty()) return Report(flags, scenario, violation);
    if (!flags.scenario.empty()) break;
  }
  std::printf("%llu worlds held\n", static_cast<unsigned long long>(flags.scenario.empty() ? flags.seeds : 1));
  return 0;
}

}  // namespace
}  // namespace ballast::sim

int main(int argc, char** argv) {
  ballast::sim::Flags flags;
  if (!ballast::sim::Read(argc, argv, flags)) {
    std::fprintf(stderr, "usage: simulate [--seed N] [--seeds N] [--scenario TEXT] [--mutate NAME] [--minimise] [--trace] [--mutations]\n");
    return 2;
  }
  if (flags.mutations) {
    for (const ballast::Mutation& mutation : ballast::kMutations) std::printf("%s\n", std::string(mutation.name).c_str());
    return 0;
  }
  return ballast::sim::RunAll(flags);
}
