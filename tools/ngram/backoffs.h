// Backoffs that make the probabilities of every context sum to 1. Pure functions.
#ifndef BALLAST_TOOLS_NGRAM_BACKOFFS_H_
#define BALLAST_TOOLS_NGRAM_BACKOFFS_H_

#include <cstdint>
#include <vector>

#include "tools/ngram/model.h"

namespace ballast::ngram {

// The rows of one order, those of one context behind each other, contexts in suffix order.
std::vector<uint32_t> ByContext(const ModelOrder& order);

// One past the last row of the context that begins at `begin` of ByContext.
size_t ContextEnd(const ModelOrder& order, const std::vector<uint32_t>& by_context, size_t begin);

// What a context leaves to its listed words and to the others: 1 - sum p(w|h) and 1 - sum p(w|h') over the listed w, in double.
struct LeftOver {
  double listed = 1;
  double backed_off = 1;
};
LeftOver LeftOverOf(const Model& model, int n, const std::vector<uint32_t>& by_context, size_t begin, size_t end);

// Sets every backoff to the ratio of the two, both at least 1e-12, from the lowest order up; 0 (log10) where nothing is listed.
void RecomputeBackoffs(Model& model);

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_BACKOFFS_H_
