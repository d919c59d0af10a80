// One world to simulate: sizes, consistency, data, and which faults may happen. Drawn from a seed, or written by hand for a named case.
#ifndef BALLAST_TESTS_SIM_SCENARIO_H_
#define BALLAST_TESTS_SIM_SCENARIO_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/types.h"

namespace ballast::sim {

// SplitMix64: the same numbers on every machine, and cheap to seed.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  uint64_t Below(uint64_t n) { return Next() % n; }                                                                // n >= 1
  int Between(int low, int high) { return low + static_cast<int>(Below(static_cast<uint64_t>(high - low + 1))); }  // both included
  bool Chance(int percent) { return Below(100) < static_cast<uint64_t>(percent); }

 private:
  uint64_t state_;
};

struct Scenario {
  uint64_t seed = 0;
  uint32_t shards = 2;
  uint32_t workers = 2;
  uint32_t epochs = 1;
  std::vector<uint32_t> partitions = {2, 2};         // batches in each
  std::vector<std::pair<uint32_t, uint32_t>> tasks;  // (partition, worker); a partition twice is a speculative twin
  uint32_t cores = 2;                                // tasks that run at once
  uint32_t window = 2;                               // unacknowledged batches of a task
  uint32_t batch_rows = 4;                           // most rows of a batch
  bool even_batches = false;                         // every batch has batch_rows rows
  uint64_t step_rows = 8;
  uint64_t contribution_rows = 8;
  uint32_t staleness_max = 0;
  Durability durability = Durability::kLog;
  double clip_norm = 0;
  uint64_t checkpoint_versions = 0;
  uint32_t lease_ms = 4000;
  uint32_t linger_ms = 200;
  int faults = 0;  // at most so many, of the kinds below
  bool worker_faults = true;
  bool shard_faults = true;
  bool coordinator_faults = true;
  bool network_faults = true;  // one-way and two-way partitions
  int rollbacks = 0;           // at most so many, by request, to a checkpoint that is there by chance
  bool repeat_submits = false;
  bool disk_fills = false;
  std::vector<BatchId> bad;     // cannot be trained: skipped by the worker
  std::vector<BatchId> poison;  // kills its worker
  std::string mutation;         // of rules.h; empty: none
  bool trace = false;           // every move on stderr
};

// Everything random about a world comes from its seed.
Scenario RandomScenario(uint64_t seed);
// As text: "seed=1 shards=2 ...". The mutation and trace are not in it.
std::string Describe(const Scenario& scenario);
// What Describe wrote; fields that are left out keep their defaults.
absl::StatusOr<Scenario> ParseScenario(absl::string_view text);

}  // namespace ballast::sim

#endif  // BALLAST_TESTS_SIM_SCENARIO_H_
