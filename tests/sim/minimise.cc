#include "tests/sim/minimise.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "tests/sim/world.h"

namespace ballast::sim {
namespace {

// What stays the same from one size to another: the words, not the numbers.
std::string Kind(const std::string& violation) {
  std::string kind;
  for (char c : violation.substr(0, violation.find(" (move"))) {
    if (c < '0' || c > '9') kind += c;
  }
  return kind;
}

std::optional<Failure> Fails(const Scenario& scenario, const std::string& kind) {
  World world(scenario);
  std::string violation = world.Run();
  if (violation.empty() || (!kind.empty() && Kind(violation) != kind)) return std::nullopt;
  return Failure{scenario, std::move(violation), world.moves()};
}

void DropPartition(Scenario& s, uint32_t partition) {
  s.partitions.erase(s.partitions.begin() + partition);
  std::erase_if(s.tasks, [&](const auto& t) { return t.first == partition; });
  for (auto& [p, worker] : s.tasks) p -= p > partition;
  for (std::vector<BatchId>* list : {&s.bad, &s.poison}) {
    std::erase_if(*list, [&](const BatchId& b) { return b.partition == partition; });
    for (BatchId& b : *list) b.partition -= b.partition > partition;
  }
}

// A partition must keep a task, or its epoch never ends.
bool DropTask(Scenario& s, size_t task) {
  const uint32_t partition = s.tasks[task].first;
  s.tasks.erase(s.tasks.begin() + static_cast<std::ptrdiff_t>(task));
  return std::any_of(s.tasks.begin(), s.tasks.end(), [&](const auto& t) { return t.first == partition; });
}

void DropWorker(Scenario& s) {
  --s.workers;
  for (auto& [partition, worker] : s.tasks) worker = std::min(worker, s.workers - 1);
}

// Every scenario that is smaller by one thing.
std::vector<Scenario> Smaller(const Scenario& from) {
  std::vector<Scenario> smaller;
  const auto when = [&](bool possible, const std::function<bool(Scenario&)>& change) {
    Scenario s = from;
    if (possible && change(s)) smaller.push_back(std::move(s));
  };
  const auto set = [&](auto Scenario::*field, const auto& value) {
    when(from.*field != value, [&](Scenario& s) { return s.*field = value, true; });
  };
  when(from.workers > 1, [](Scenario& s) { return DropWorker(s), true; });
  when(from.shards > 1, [](Scenario& s) { return --s.shards, true; });
  for (uint32_t p = 0; p < from.partitions.size() && from.partitions.size() > 1; ++p) {
    when(true, [&](Scenario& s) { return DropPartition(s, p), true; });
  }
  for (uint32_t p = 0; p < from.partitions.size(); ++p) {
    when(from.partitions[p] > 0, [&](Scenario& s) { return --s.partitions[p], true; });
  }
  for (size_t t = 0; t < from.tasks.size(); ++t) {
    when(true, [&](Scenario& s) { return DropTask(s, t); });
  }
  set(&Scenario::epochs, 1u);
  when(from.faults > 0, [](Scenario& s) { return --s.faults, true; });
  set(&Scenario::worker_faults, false);
  set(&Scenario::shard_faults, false);
  set(&Scenario::coordinator_faults, false);
  set(&Scenario::network_faults, false);
  set(&Scenario::repeat_submits, false);
  set(&Scenario::disk_fills, false);
  set(&Scenario::bad, std::vector<BatchId>());
  set(&Scenario::poison, std::vector<BatchId>());
  set(&Scenario::clip_norm, 0.0);
  set(&Scenario::checkpoint_versions, uint64_t{0});
  set(&Scenario::even_batches, true);
  when(from.cores > 1, [](Scenario& s) { return --s.cores, true; });
  when(from.window > 1, [](Scenario& s) { return --s.window, true; });
  when(from.step_rows > from.batch_rows, [](Scenario& s) { return s.step_rows -= s.batch_rows, true; });
  when(from.contribution_rows > from.batch_rows, [](Scenario& s) { return s.contribution_rows -= s.batch_rows, true; });
  set(&Scenario::staleness_max, 0u);
  return smaller;
}

// The failure with the fewest moves, from so many seeds; the first one when `first` is enough.
std::optional<Failure> Search(Scenario scenario, const std::string& kind, uint64_t seeds_max, bool first) {
  std::optional<Failure> best;
  for (uint64_t seed = 1; seed <= seeds_max && !(first && best); ++seed) {
    scenario.seed = seed;
    std::optional<Failure> failure = Fails(scenario, kind);
    if (failure && (!best || failure->moves < best->moves)) best = std::move(failure);
  }
  return best;
}

}  // namespace

Failure Minimise(const Scenario& failing, uint64_t seeds_max) {
  Scenario quiet = failing;
  quiet.trace = false;
  std::optional<Failure> smallest = Fails(quiet, "");
  if (!smallest) return {failing, "", 0};
  const std::string kind = Kind(smallest->violation);
  for (bool found = true; found;) {
    found = false;
    for (const Scenario& candidate : Smaller(smallest->scenario)) {
      std::optional<Failure> failure = Search(candidate, kind, seeds_max, /*first=*/true);
      if (!failure) continue;
      smallest = std::move(failure);
      found = true;
      break;
    }
  }
  if (std::optional<Failure> shortest = Search(smallest->scenario, kind, 4 * seeds_max, /*first=*/false)) smallest = std::move(shortest);
  smallest->scenario.trace = failing.trace;
  return *smallest;
}

}  // namespace ballast::sim
