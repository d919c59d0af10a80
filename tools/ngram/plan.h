// The plan of progressive sharding: how many shards each level has and which of them were too large and go on to the next level.
// docs/NGRAM.md, "Levels". Not thread-safe while it is made, then constant.
#ifndef BALLAST_TOOLS_NGRAM_PLAN_H_
#define BALLAST_TOOLS_NGRAM_PLAN_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/ngram/row.h"

namespace ballast::ngram {

struct Level {
  uint32_t shards = 0;
  std::vector<bool> opened;    // [shard]
  std::vector<uint64_t> load;  // [shard]: its n-grams of order > level; only while the plan is made.
};

// Where a tuple is estimated.
struct ShardId {
  int level = 0;
  uint32_t shard = 0;
};

struct PlanOptions {
  uint32_t shards = 0;  // Of level 1.
  double tau = 2;       // A shard over tau times the mean share of level 1 is opened.
  int levels_max = 3;   // The last level keeps what it has, whatever its size.
};

class Plan {
 public:
  // Calls its argument for each tuple, sorted.
  using Scan = std::function<absl::Status(const std::function<void(const WordId* row)>& on_row)>;

  // Scans the tuples once for each level.
  static absl::StatusOr<Plan> Make(int order, const PlanOptions& options, const Scan& scan);

  ShardId Find(const WordId* row) const;
  int order() const { return order_; }
  const std::vector<Level>& levels() const { return levels_; }  // [level - 1]
  uint64_t mean_load() const { return mean_load_; }

  // What a person wants to know of a plan that was just made: shards, opened ones, and the largest one that stays, by level.
  std::string Describe() const;

  std::string Format() const;
  static absl::StatusOr<Plan> Parse(const std::string& text);

 private:
  void AddLevel(uint32_t shards);
  uint64_t ScanLevel(const Scan& scan, absl::Status& status);

  int order_ = 0;
  uint64_t mean_load_ = 0;
  std::vector<Level> levels_;
};

// Chained XXH64 over the last `level` words of the history, last one first, seed 42: what Spark's xxhash64 makes of integer columns. As
// there, a shard is pmod(hash, shards).
uint64_t HashKey(const WordId* row, int level);
uint32_t ShardOfHash(uint64_t hash, uint32_t shards);

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_PLAN_H_
