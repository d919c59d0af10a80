// Makes a failing world smaller while it still fails in the same way: fewer workers, shards, tasks, batches and faults, then fewer moves.
#ifndef BALLAST_TESTS_SIM_MINIMISE_H_
#define BALLAST_TESTS_SIM_MINIMISE_H_

#include <cstdint>
#include <string>

#include "tests/sim/scenario.h"

namespace ballast::sim {

struct Failure {
  Scenario scenario;
  std::string violation;
  uint64_t moves = 0;
};

// `failing`: a scenario whose world breaks a promise. A smaller one seldom fails from the same seed, so each is tried from `seeds_max`
// seeds.
Failure Minimise(const Scenario& failing, uint64_t seeds_max = 500);

}  // namespace ballast::sim

#endif  // BALLAST_TESTS_SIM_MINIMISE_H_
