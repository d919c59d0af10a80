#include "tools/ngram/raw_counts.h"

#include <algorithm>
#include <cmath>

#include "tools/ngram/row.h"
#include "tools/ngram/shard_files.h"

namespace ballast::ngram {

absl::StatusOr<std::vector<std::vector<double>>> RawHistories(const Model& model, const std::string& tuples) {
  std::vector<std::vector<uint64_t>> counts;
  for (int n = 1; n < model.order(); ++n) counts.emplace_back(model.of(n).size(), 0);
  uint64_t total = 0, sentences = 0;
  absl::Status read = ForEachTuple(tuples, [&](const WordId* row, uint64_t count) {
    total += count;
    if (row[0] == kEos) sentences += count;
    const int length = std::min(GramLength(row, model.order()), model.order() - 1);
    for (int n = 1; n <= length; ++n) {
      const bool known = *std::max_element(row, row + n) < model.vocabulary().size();
      const int64_t found = known ? model.Find(n, row) : Model::kMissing;
      if (found != Model::kMissing) counts[static_cast<size_t>(n - 1)][static_cast<size_t>(found)] += count;
    }
    return absl::OkStatus();
  });
  if (!read.ok()) return read;
  const WordId begin = kBos;
  if (const int64_t row = model.Find(1, &begin); row != Model::kMissing) counts[0][static_cast<size_t>(row)] = sentences;
  std::vector<std::vector<double>> histories;
  for (const std::vector<uint64_t>& order : counts) {
    histories.emplace_back();
    for (const uint64_t count : order) histories.back().push_back(std::log10(static_cast<double>(count) / static_cast<double>(total)));
  }
  return histories;
}

}  // namespace ballast::ngram
