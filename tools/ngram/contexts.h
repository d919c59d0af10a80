// The contexts of the n-grams of one order: which n-grams share a history, and the integers that are summed over them. Pure
// functions.
#ifndef BALLAST_TOOLS_NGRAM_CONTEXTS_H_
#define BALLAST_TOOLS_NGRAM_CONTEXTS_H_

#include <array>
#include <cstdint>
#include <vector>

#include "tools/ngram/grams.h"

namespace ballast::ngram {

struct Contexts {
  std::vector<uint32_t> of;      // [n-gram]: its context. Contexts are numbered in suffix order.
  std::vector<uint32_t> sample;  // [context]: one of its n-grams.

  size_t size() const { return sample.size(); }
};

// All unigrams share the empty context.
Contexts UnigramContexts(const Grams& unigrams);

// `lower` are the contexts of the n-grams of order - 1. The history of x m w is x before the history of m w, so it is found without
// comparing rows.
Contexts ContextsOf(const Grams& grams, const Contexts& lower);

// What gamma of one context needs, in integers.
struct ContextSums {
  uint64_t adjusted = 0;              // A: over all n-grams.
  uint64_t pruned = 0;                // M: over the pruned ones.
  std::array<uint64_t, 3> kept = {};  // N1, N2, N3: kept n-grams with an adjusted count of 1, 2, 3 and more.

  void Add(uint64_t count, bool is_pruned) {
    adjusted += count;
    if (is_pruned) {
      pruned += count;
    } else if (count > 0) {
      ++kept[count < 3 ? count - 1 : 2];
    }
  }
  bool any_kept() const { return kept[0] + kept[1] + kept[2] > 0; }
};

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_CONTEXTS_H_
