#include "tools/ngram/contexts.h"

#include <algorithm>

namespace ballast::ngram {

Contexts UnigramContexts(const Grams& unigrams) {
  Contexts contexts;
  contexts.of.assign(unigrams.size(), 0);
  if (unigrams.size() > 0) contexts.sample.push_back(0);
  return contexts;
}

Contexts ContextsOf(const Grams& grams, const Contexts& lower) {
  // A counting sort by the lower context, then a small sort of each group by the first word: linear where a sort of all rows would not be.
  std::vector<uint32_t> group_end(lower.size() + 1, 0);
  for (size_t g = 0; g < grams.size(); ++g) ++group_end[lower.of[grams.suffix[g]] + 1];
  for (size_t c = 1; c < group_end.size(); ++c) group_end[c] += group_end[c - 1];
  std::vector<uint64_t> by_context(grams.size());  // First word, then the n-gram.
  for (size_t g = 0; g < grams.size(); ++g) by_context[group_end[lower.of[grams.suffix[g]]]++] = uint64_t{grams.first_word(g)} << 32 | g;
  // group_end[c] has moved to where group c ends.
  Contexts contexts;
  contexts.of.resize(grams.size());
  uint32_t begin = 0;
  for (size_t c = 0; c < lower.size(); ++c) {
    const uint32_t end = group_end[c];
    std::sort(by_context.begin() + begin, by_context.begin() + end);
    for (uint32_t i = begin; i < end; ++i) {
      if (i == begin || by_context[i] >> 32 != by_context[i - 1] >> 32) contexts.sample.push_back(static_cast<uint32_t>(by_context[i]));
      contexts.of[static_cast<uint32_t>(by_context[i])] = static_cast<uint32_t>(contexts.sample.size() - 1);
    }
    begin = end;
  }
  return contexts;
}

}  // namespace ballast::ngram
