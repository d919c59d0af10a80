#include "tools/ngram/smoothing.h"

#include <algorithm>

namespace ballast::ngram {

std::vector<ContextSums> SumsOf(const Grams& grams, const Contexts& contexts, const Cutoff& cutoff) {
  std::vector<ContextSums> sums(contexts.size());
  for (size_t g = 0; g < grams.size(); ++g) sums[contexts.of[g]].Add(grams.adjusted[g], IsPruned(grams, g, cutoff));
  return sums;
}

std::vector<float> GammasOf(const std::vector<ContextSums>& sums, const Discounts& discounts) {
  std::vector<float> gammas(sums.size());
  std::transform(sums.begin(), sums.end(), gammas.begin(), [&](const ContextSums& s) { return Gamma(s, discounts); });
  return gammas;
}

std::vector<float> Interpolate(const Grams& grams, const Contexts& contexts, const std::vector<ContextSums>& sums,
                               const std::vector<float>& gammas, const Discounts& discounts, const std::vector<float>& lower) {
  std::vector<float> p(grams.size());
  for (size_t g = 0; g < grams.size(); ++g) {
    const uint32_t context = contexts.of[g];
    p[g] = Discounted(grams.adjusted[g], sums[context], discounts) + gammas[context] * lower[grams.suffix[g]];
  }
  return p;
}

std::vector<float> UnigramProbabilities(const Grams& unigrams, const ContextSums& sums, const Cutoff& cutoff, const Header& header) {
  const Discounts& discounts = header.discounts[0];
  const float gamma = Gamma(sums, discounts);
  uint64_t kept = 0;
  for (size_t g = 0; g < unigrams.size(); ++g) kept += !IsPruned(unigrams, g, cutoff);
  // <s> is among the kept ones but is never predicted. The reciprocal once: a division for each word has other last bits.
  const float uniform = 1.0f / static_cast<float>(std::max(header.vocab_pad, kept - 1));
  std::vector<float> p(unigrams.size());
  for (size_t g = 0; g < unigrams.size(); ++g) {
    const WordId word = unigrams.words(g)[0];
    const float discounted = Discounted(unigrams.adjusted[g], sums, discounts);
    if (word == kBos) {
      p[g] = 1;
    } else if (header.interpolate_unigrams) {
      p[g] = discounted + gamma * uniform;
    } else {
      p[g] = word == kUnk ? gamma : discounted;
    }
  }
  return p;
}

}  // namespace ballast::ngram
