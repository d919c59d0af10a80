#include "tests/sim/scenario.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace ballast::sim {

Scenario RandomScenario(uint64_t seed) {
  Random rng(seed * 2654435761u + 17);
  Scenario s;
  s.seed = seed;
  s.shards = static_cast<uint32_t>(rng.Between(1, 3));
  s.workers = static_cast<uint32_t>(rng.Between(1, 3));
  s.epochs = rng.Chance(20) ? 2 : 1;
  s.partitions.clear();
  for (int p = rng.Between(1, 3); p > 0; --p) s.partitions.push_back(static_cast<uint32_t>(rng.Between(0, 4)));
  for (uint32_t p = 0; p < s.partitions.size(); ++p) s.tasks.emplace_back(p, static_cast<uint32_t>(rng.Below(s.workers)));
  if (rng.Chance(40))
    s.tasks.emplace_back(static_cast<uint32_t>(rng.Below(s.partitions.size())), static_cast<uint32_t>(rng.Below(s.workers)));
  s.cores = static_cast<uint32_t>(rng.Between(1, static_cast<int>(s.tasks.size())));
  s.window = static_cast<uint32_t>(rng.Between(1, 4));
  s.even_batches = rng.Chance(50);
  constexpr uint32_t kTau[] = {0, 0, 1, 2, kStalenessUnbounded};
  s.staleness_max = kTau[rng.Below(5)];
  s.step_rows = rng.Chance(25) ? 0 : s.batch_rows * static_cast<uint64_t>(rng.Between(1, 4));
  s.contribution_rows = s.step_rows > 0 && rng.Chance(50) ? s.step_rows : s.batch_rows * static_cast<uint64_t>(rng.Between(1, 3));
  s.clip_norm = rng.Chance(20) ? 1.0 : 0;
  s.checkpoint_versions = rng.Chance(40) ? static_cast<uint64_t>(rng.Between(1, 3)) : 0;
  s.faults = rng.Chance(25) ? 0 : rng.Between(1, 4);
  s.repeat_submits = rng.Chance(50);
  s.disk_fills = rng.Chance(10);
  const auto batch = [&] {
    const uint32_t p = static_cast<uint32_t>(rng.Below(s.partitions.size()));
    return BatchId{1, p, rng.Below(std::max<uint64_t>(s.partitions[p], 1))};
  };
  if (rng.Chance(10)) s.bad.push_back(batch());
  if (rng.Chance(5)) s.poison.push_back(batch());
  return s;
}

std::string Describe(const Scenario& s) {
  std::string tasks = absl::StrJoin(s.tasks, " ", [](std::string* out, const auto& t) { absl::StrAppend(out, t.first, "@w", t.second); });
  return absl::StrCat("seed ", s.seed, ": ", s.shards, " shards, ", s.workers, " workers, ", s.epochs, " epochs, partitions [",
                      absl::StrJoin(s.partitions, " "), "], tasks [", tasks, "], cores ", s.cores, ", window ", s.window, ", step_rows ",
                      s.step_rows, ", contribution_rows ", s.contribution_rows, ", staleness ",
                      s.staleness_max == kStalenessUnbounded ? std::string("any") : absl::StrCat(s.staleness_max), ", clip ", s.clip_norm,
                      ", checkpoint every ", s.checkpoint_versions, ", faults ", s.faults, ", bad ", s.bad.size(), ", poison ",
                      s.poison.size(), s.mutation.empty() ? "" : ", without rule ", s.mutation);
}

}  // namespace ballast::sim
