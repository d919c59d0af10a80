// Counts one shard: what it adds to the sums that all shards wait for before any probability is computed, and the sums. Pure but for the
// writer.
#ifndef BALLAST_TOOLS_NGRAM_ADJUST_H_
#define BALLAST_TOOLS_NGRAM_ADJUST_H_

#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "tools/ngram/discounts.h"
#include "tools/ngram/row_stream.h"
#include "tools/ngram/shard.h"

namespace ballast::ngram {

struct AdjustOptions {
  // Write the kept n-grams of order > level with their counts, and one wildcard row for the pruned ones of each context that keeps one:
  // what EstimateShard needs instead of the tuples.
  bool collapse = false;
};

// Of tuples: writes the census of orders > level, the counts of the level-grams (to be added up over the shards), and the last tuple with
// the counts of its suffixes. Errors: FailedPrecondition when the shard is too large.
[[nodiscard]] absl::Status AdjustShard(Shard shard, const AdjustOptions& options, RowWriter& out);

// The sums over all shards of all levels: the barrier.
class Totals {
 public:
  explicit Totals(int order);

  // Adds what AdjustShard wrote of one shard, each shard once. Rows that are no part of the sums are passed over. Errors: InvalidArgument
  // when a shard comes twice.
  [[nodiscard]] absl::Status Add(RowReader& reader);

  // Sorts and adds up; after the last shard. `compat_lmplz`: the suffixes of the last tuple enter the census with their raw counts
  // (docs/NGRAM.md, "The quirk").
  void Finish(bool compat_lmplz);

  // After Finish.
  const Census& census() const { return census_; }
  // [n - 1]: the n-grams of the 0-shard of level n - 1, with their counts.
  std::vector<CountRows>& counts() { return counts_; }

 private:
  absl::Status AddRow(const Block& block, size_t i);
  absl::Status AddLast(const Block& block, size_t i);
  void MoveLast();

  const int order_;
  Census census_;
  std::vector<CountRows> counts_;
  std::vector<uint32_t> last_;              // A kLast row; empty before the first.
  absl::flat_hash_set<std::string> lasts_;  // Words of all kLast rows: no two shards have the same last tuple.
};

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_ADJUST_H_
