// What a run will cost, told at CreateRun: bytes of log per step, memory, checkpoints; and whether it can work at all. Pure functions.
#ifndef BALLAST_SERVER_COORDINATOR_PLAN_H_
#define BALLAST_SERVER_COORDINATOR_PLAN_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "proto/convert.h"

namespace ballast {

// Weights and optimizer state on all servers together. REQUIRES ValidateTensors.
uint64_t StateBytes(const RunSpec& spec);

// Lines for people, ready to print.
std::vector<std::string> PlanLines(const RunDefinition& run, uint32_t servers);

// What a server has to give. The others are taken to be like server 0.
struct Machine {
  uint64_t free_memory = UINT64_MAX;
  uint64_t staged_bytes_max = UINT64_MAX;              // undecided contributions of a shard
  double recovery_target_s = 0;                        // 0: a restart may take as long as it likes
  std::function<double()> disk_bytes_per_s = nullptr;  // measures; 0: unknown. Only asked when contributions are large
};

// Errors: FailedPrecondition (PLAN_IMPOSSIBLE) with the figures and the way out, when a server cannot hold its share of the run, not even
// one session's contributions, or when one contribution alone takes its log beyond what a restart may take.
absl::Status CheckPlan(const RunDefinition& run, uint32_t servers, const Machine& machine);

// Names of the fields in which two specs of one run differ, "field: old -> new"; at most `lines_max`, then how many more.
std::vector<std::string> SpecDifferences(const RunSpec& before, const RunSpec& after, size_t lines_max = 20);

}  // namespace ballast

#endif  // BALLAST_SERVER_COORDINATOR_PLAN_H_
