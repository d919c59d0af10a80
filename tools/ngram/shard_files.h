// Tuples of a file, and a file for each shard of them. One thread at a time.
#ifndef BALLAST_TOOLS_NGRAM_SHARD_FILES_H_
#define BALLAST_TOOLS_NGRAM_SHARD_FILES_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/ngram/header.h"
#include "tools/ngram/plan.h"

namespace ballast::ngram {

[[nodiscard]] absl::Status ForEachTuple(const std::string& path,
                                        const std::function<absl::Status(const WordId* row, uint64_t count)>& on_tuple);

// `tuples` must be sorted.
absl::StatusOr<Plan> PlanTuples(const std::string& tuples, const PlanOptions& options);

std::string ShardPath(const std::string& folder, const ShardId& shard);

// Writes each shard that has a tuple to its ShardPath, with `head` (or a bare head) as its head. Returns the shards.
absl::StatusOr<std::vector<ShardId>> SplitTuples(const std::string& tuples, const Plan& plan, const std::string& folder,
                                                 const Header* head);

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_SHARD_FILES_H_
