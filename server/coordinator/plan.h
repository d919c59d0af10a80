// What a run will cost, told at CreateRun: bytes of log per step, memory, checkpoints. Pure functions.
#ifndef BALLAST_SERVER_COORDINATOR_PLAN_H_
#define BALLAST_SERVER_COORDINATOR_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "proto/convert.h"

namespace ballast {

// Weights and optimizer state on all servers together. REQUIRES ValidateTensors.
uint64_t StateBytes(const RunSpec& spec);

// Lines for people, ready to print.
std::vector<std::string> PlanLines(const RunDefinition& run, uint32_t servers);

// Names of the fields in which two specs of one run differ, "field: old -> new"; at most `lines_max`, then how many more.
std::vector<std::string> SpecDifferences(const RunSpec& before, const RunSpec& after, size_t lines_max = 20);

}  // namespace ballast

#endif  // BALLAST_SERVER_COORDINATOR_PLAN_H_
