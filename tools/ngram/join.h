// Joins what the shards estimated into one model: an n-gram has its probability from the shard of its history and its backoff from the
// shard in which it is a context itself. Merges sorted files, so memory is one block of each. One thread at a time.
#ifndef BALLAST_TOOLS_NGRAM_JOIN_H_
#define BALLAST_TOOLS_NGRAM_JOIN_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/ngram/merge.h"
#include "tools/ngram/vocabulary.h"

namespace ballast::ngram {

// One n-gram of a model: words last one first; log10.
using OnModelRow = std::function<absl::Status(int n, const WordId* words, float log_p, float log_backoff)>;

// Calls `on_row` for each n-gram of order n in suffix order. Without a backoff: 0. Errors: DataLoss when a probability is there twice or a
// backoff has no n-gram.
[[nodiscard]] absl::Status JoinOrder(const RowFiles& shards, int n, const OnModelRow& on_row);

// All orders, into an ARPA file.
[[nodiscard]] absl::Status JoinToArpa(const RowFiles& shards, const Vocabulary& vocabulary, const std::string& path);

// All orders, into rows of kind kModel.
[[nodiscard]] absl::Status JoinToRows(const RowFiles& shards, const std::string& path);

// [n - 1]: how many n-grams of each order the shards have. Reads no rows.
std::vector<uint64_t> CountJoined(const RowFiles& shards);

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_JOIN_H_
