// Entropy pruning (Stolcke 1998), docs/NGRAM.md "Entropy pruning": drops n-grams without which the model hardly changes. Pure functions.
#ifndef BALLAST_TOOLS_NGRAM_ENTROPY_PRUNING_H_
#define BALLAST_TOOLS_NGRAM_ENTROPY_PRUNING_H_

#include <vector>

#include "absl/status/statusor.h"
#include "tools/ngram/model.h"

namespace ballast::ngram {

// [n - 1][row of order n]: log10 probability of the n-gram as a history by the model itself: the product over its words, a leading <s>
// scored as the unigram </s>. For orders below the highest.
std::vector<std::vector<double>> ModelHistories(const Model& model);

// `histories` as above. Drops an n-gram when the perplexity would grow by less than the share `theta`, unless a longer one that is kept
// needs it as its context; then recomputes the backoffs. All decisions are made on the unpruned model.
absl::StatusOr<Model> PruneByEntropy(const Model& model, const std::vector<std::vector<double>>& histories, double theta);

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_ENTROPY_PRUNING_H_
