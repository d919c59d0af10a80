// Probabilities of histories by raw counts, for entropy pruning: P(h) = c(h) / T, T the words and </s> of the text, c(<s>) its sentences.
#ifndef BALLAST_TOOLS_NGRAM_RAW_COUNTS_H_
#define BALLAST_TOOLS_NGRAM_RAW_COUNTS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tools/ngram/model.h"

namespace ballast::ngram {

// [n - 1][row of order n], log10, for orders below the highest. `tuples` are those of the model's text, with the model's ids and order.
// A history that does not occur has probability 0.
absl::StatusOr<std::vector<std::vector<double>>> RawHistories(const Model& model, const std::string& tuples);

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_RAW_COUNTS_H_
