#include "tests/sim/scenario.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

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
  if (rng.Chance(20)) s.durability = Durability::kCheckpoint;
  if (rng.Chance(30)) s.rollbacks = rng.Between(1, 3);
  return s;
}

namespace {

std::string Staleness(uint32_t s) { return s == kStalenessUnbounded ? "any" : absl::StrCat(s); }
std::string Batches(const std::vector<BatchId>& list) {
  return absl::StrJoin(list, ",", [](std::string* out, const BatchId& b) { absl::StrAppend(out, b.epoch, ":", b.partition, ":", b.seq); });
}

// Numbers between separators; false when a piece is no number.
template <typename T>
bool Numbers(absl::string_view text, char separator, std::vector<T>& out) {
  out.clear();
  for (absl::string_view piece : absl::StrSplit(text, separator, absl::SkipEmpty())) {
    if (!absl::SimpleAtoi(piece, &out.emplace_back())) return false;
  }
  return true;
}

bool ReadTasks(absl::string_view text, Scenario& s) {
  s.tasks.clear();
  for (absl::string_view piece : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    std::vector<uint32_t> pair;
    if (!Numbers(piece, '@', pair) || pair.size() != 2) return false;
    s.tasks.emplace_back(pair[0], pair[1]);
  }
  return true;
}

bool ReadBatches(absl::string_view text, std::vector<BatchId>& out) {
  out.clear();
  for (absl::string_view piece : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    std::vector<uint32_t> id;
    if (!Numbers(piece, ':', id) || id.size() != 3) return false;
    out.push_back({id[0], id[1], id[2]});
  }
  return true;
}

bool ReadFaults(absl::string_view kinds, Scenario& s) {
  s.worker_faults = absl::StrContains(kinds, 'w');
  s.shard_faults = absl::StrContains(kinds, 's');
  s.coordinator_faults = absl::StrContains(kinds, 'c');
  s.network_faults = absl::StrContains(kinds, 'n');
  return kinds.find_first_not_of("wscn") == kinds.npos;
}

bool Read(absl::string_view key, absl::string_view value, Scenario& s) {
  if (key == "seed") return absl::SimpleAtoi(value, &s.seed);
  if (key == "shards") return absl::SimpleAtoi(value, &s.shards);
  if (key == "workers") return absl::SimpleAtoi(value, &s.workers);
  if (key == "epochs") return absl::SimpleAtoi(value, &s.epochs);
  if (key == "partitions") return Numbers(value, ',', s.partitions);
  if (key == "tasks") return ReadTasks(value, s);
  if (key == "cores") return absl::SimpleAtoi(value, &s.cores);
  if (key == "window") return absl::SimpleAtoi(value, &s.window);
  if (key == "batch_rows") return absl::SimpleAtoi(value, &s.batch_rows);
  if (key == "even") return absl::SimpleAtob(value, &s.even_batches);
  if (key == "step_rows") return absl::SimpleAtoi(value, &s.step_rows);
  if (key == "contribution_rows") return absl::SimpleAtoi(value, &s.contribution_rows);
  if (key == "staleness") return value == "any" ? s.staleness_max = kStalenessUnbounded, true : absl::SimpleAtoi(value, &s.staleness_max);
  if (key == "clip") return absl::SimpleAtod(value, &s.clip_norm);
  if (key == "checkpoint") return absl::SimpleAtoi(value, &s.checkpoint_versions);
  if (key == "lease_ms") return absl::SimpleAtoi(value, &s.lease_ms);
  if (key == "linger_ms") return absl::SimpleAtoi(value, &s.linger_ms);
  if (key == "faults") return absl::SimpleAtoi(value, &s.faults);
  if (key == "kinds") return ReadFaults(value, s);
  if (key == "repeat") return absl::SimpleAtob(value, &s.repeat_submits);
  if (key == "disk_fills") return absl::SimpleAtob(value, &s.disk_fills);
  if (key == "bad") return ReadBatches(value, s.bad);
  if (key == "durability") {
    s.durability = value == "checkpoint" ? Durability::kCheckpoint : Durability::kLog;
    return value == "checkpoint" || value == "log";
  }
  if (key == "rollbacks") return absl::SimpleAtoi(value, &s.rollbacks);
  if (key == "poison") return ReadBatches(value, s.poison);
  return false;
}

}  // namespace

std::string Describe(const Scenario& s) {
  std::string text = absl::StrCat(
      "seed=", s.seed, " shards=", s.shards, " workers=", s.workers, " epochs=", s.epochs, " partitions=", absl::StrJoin(s.partitions, ","),
      " tasks=", absl::StrJoin(s.tasks, ",", absl::PairFormatter("@")), " cores=", s.cores, " window=", s.window);
  absl::StrAppend(&text, " batch_rows=", s.batch_rows, " even=", s.even_batches, " step_rows=", s.step_rows,
                  " contribution_rows=", s.contribution_rows, " staleness=", Staleness(s.staleness_max), " clip=", s.clip_norm,
                  " checkpoint=", s.checkpoint_versions, " lease_ms=", s.lease_ms, " linger_ms=", s.linger_ms);
  absl::StrAppend(&text, " faults=", s.faults, " kinds=", s.worker_faults ? "w" : "", s.shard_faults ? "s" : "",
                  s.coordinator_faults ? "c" : "", s.network_faults ? "n" : "", " repeat=", s.repeat_submits, " disk_fills=", s.disk_fills,
                  " bad=", Batches(s.bad), " poison=", Batches(s.poison),
                  " durability=", s.durability == Durability::kCheckpoint ? "checkpoint" : "log", " rollbacks=", s.rollbacks);
  return text;
}

absl::StatusOr<Scenario> ParseScenario(absl::string_view text) {
  Scenario s;
  for (absl::string_view field : absl::StrSplit(text, ' ', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> pair = absl::StrSplit(field, absl::MaxSplits('=', 1));
    if (!Read(pair.first, pair.second, s)) return absl::InvalidArgumentError(absl::StrCat("a scenario has no ", field));
  }
  const auto in_range = [&](const auto& t) { return t.first < s.partitions.size() && t.second < s.workers; };
  if (s.shards == 0 || s.workers == 0 || s.cores == 0 || s.window == 0 || s.partitions.empty() ||
      !std::all_of(s.tasks.begin(), s.tasks.end(), in_range)) {
    return absl::InvalidArgumentError(
        "a scenario needs at least one of each, and tasks NUMBER@WORKER of partitions and workers that there are");
  }
  return s;
}

}  // namespace ballast::sim
