#include "tools/ngram/plan.h"

#include <xxhash.h>

#include <algorithm>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace ballast::ngram {
namespace {

constexpr uint64_t kHashSeed = 42;

uint64_t HashWord(WordId word, uint64_t seed) { return XXH64(&word, sizeof(word), seed); }

}  // namespace

uint64_t HashKey(const WordId* row, int level) {
  uint64_t hash = kHashSeed;
  for (int i = 1; i <= level; ++i) hash = HashWord(row[i], hash);
  return hash;
}

uint32_t ShardOfHash(uint64_t hash, uint32_t shards) {
  const int64_t rest = static_cast<int64_t>(hash) % static_cast<int64_t>(shards);
  return static_cast<uint32_t>(rest < 0 ? rest + shards : rest);
}

ShardId Plan::Find(const WordId* row) const {
  uint64_t hash = kHashSeed;
  for (size_t i = 0;; ++i) {
    const Level& level = levels_[i];
    hash = HashWord(row[i + 1], hash);
    const uint32_t shard = ShardOfHash(hash, level.shards);
    // After <s> there is only padding, which opens nothing: the tuple has no n-gram beyond this level.
    const bool spent = i > 0 && row[i] == kBos;
    if (spent || !level.opened[shard] || i + 1 == levels_.size()) return {static_cast<int>(i + 1), shard};
  }
}

void Plan::AddLevel(uint32_t shards) {
  Level level;
  level.shards = shards;
  level.opened.resize(shards);
  level.load.resize(shards);
  levels_.push_back(std::move(level));
}

// Loads of the last level; returns their sum. A tuple begins an n-gram of each order over what it shares with the tuple before.
uint64_t Plan::ScanLevel(const Scan& scan, absl::Status& status) {
  const int k = static_cast<int>(levels_.size());
  uint64_t total = 0;
  std::vector<WordId> before;
  status = scan([&](const WordId* row) {
    const int shared = before.empty() ? 0 : SharedWords(before.data(), row, order_);
    before.assign(row, row + order_);
    const int begun = GramLength(row, order_) - std::max(shared, k);
    if (begun <= 0) return;
    const ShardId id = Find(row);
    if (id.level < k) return;
    levels_.back().load[id.shard] += static_cast<uint64_t>(begun);
    total += static_cast<uint64_t>(begun);
  });
  return total;
}

absl::StatusOr<Plan> Plan::Make(int order, const PlanOptions& options, const Scan& scan) {
  Plan plan;
  plan.order_ = order;
  const int levels_max = std::min(options.levels_max, order - 1);
  uint64_t shards = options.shards;
  for (int k = 1;; ++k) {
    plan.AddLevel(static_cast<uint32_t>(std::min<uint64_t>(shards, 1u << 20)));
    absl::Status scanned;
    const uint64_t total = plan.ScanLevel(scan, scanned);
    if (!scanned.ok()) return scanned;
    if (k == 1) plan.mean_load_ = std::max<uint64_t>(total / options.shards, 1);
    if (k == levels_max) return plan;
    Level& level = plan.levels_.back();
    uint64_t remainder = 0;
    for (uint32_t s = 0; s < level.shards; ++s) {
      level.opened[s] = static_cast<double>(level.load[s]) > options.tau * static_cast<double>(plan.mean_load_);
      if (level.opened[s]) remainder += level.load[s];
    }
    if (remainder == 0) return plan;
    shards = remainder / plan.mean_load_ + 1;
  }
}

std::string Plan::Describe() const {
  std::string text;
  for (size_t i = 0; i < levels_.size(); ++i) {
    const Level& level = levels_[i];
    uint64_t total = 0, largest = 0, opened = 0;
    for (uint32_t s = 0; s < level.shards; ++s) {
      total += level.load[s];
      opened += level.opened[s];
      if (!level.opened[s]) largest = std::max(largest, level.load[s]);
    }
    const double share = static_cast<double>(largest) / static_cast<double>(mean_load_);
    absl::StrAppend(&text, "level ", i + 1, ": ", level.shards, " shards of ", total, " n-grams, ", opened, " opened, the largest other ",
                    absl::StrFormat("%.2f", share), " of the mean\n");
  }
  return text;
}

std::string Plan::Format() const {
  std::string text = absl::StrCat("ballast-ngram-plan 1\norder ", order_, "\nmean_load ", mean_load_, "\n");
  for (size_t i = 0; i < levels_.size(); ++i) {
    absl::StrAppend(&text, "level ", i + 1, " shards ", levels_[i].shards, " opened");
    for (uint32_t s = 0; s < levels_[i].shards; ++s) {
      if (levels_[i].opened[s]) absl::StrAppend(&text, " ", s);
    }
    text += "\n";
  }
  return text;
}

absl::StatusOr<Plan> Plan::Parse(const std::string& text) {
  std::istringstream in(text);
  std::string magic, version, name, line, word;
  Plan plan;
  in >> magic >> version >> name >> plan.order_ >> word >> plan.mean_load_;
  std::getline(in, line);
  if (!in || magic != "ballast-ngram-plan" || version != "1" || plan.order_ < kOrderMin || plan.order_ > kOrderMax)
    return absl::DataLossError("not a plan of the estimator");
  while (std::getline(in, line)) {
    std::istringstream fields(line);
    size_t number = 0;
    uint32_t shards = 0, opened = 0;
    std::string level_word, shards_word, opened_word;
    fields >> level_word >> number >> shards_word >> shards >> opened_word;
    const bool ok =
        fields && number == plan.levels_.size() + 1 && number < static_cast<size_t>(plan.order_) && shards >= 1 && shards <= 1u << 20;
    if (!ok) return absl::DataLossError(absl::StrCat("a line of the plan is damaged: ", line));
    plan.AddLevel(shards);
    while (fields >> opened) {
      if (opened >= shards) return absl::DataLossError(absl::StrCat("the plan opens shard ", opened, " of ", shards));
      plan.levels_.back().opened[opened] = true;
    }
  }
  if (plan.levels_.empty()) return absl::DataLossError("the plan has no level");
  return plan;
}

}  // namespace ballast::ngram
