// Interpolated modified Kneser-Ney of the n-grams of one order: integers in, float32 out, in the order of operations of docs/NGRAM.md, so
// that the result depends on nothing else. Built without fused multiply-add. Pure functions.
#ifndef BALLAST_TOOLS_NGRAM_SMOOTHING_H_
#define BALLAST_TOOLS_NGRAM_SMOOTHING_H_

#include <cstdint>
#include <vector>

#include "tools/ngram/allowed_words.h"
#include "tools/ngram/contexts.h"
#include "tools/ngram/header.h"

namespace ballast::ngram {

// gamma(h) = (D1 N1 + D2 N2 + D3 N3 + M) / A, added up from the left.
inline float Gamma(const ContextSums& sums, const Discounts& d) {
  float gamma = 0;
  for (int j = 0; j < 3; ++j) gamma += d[j] * static_cast<float>(sums.kept[j]);
  gamma += static_cast<float>(sums.pruned);
  return gamma / static_cast<float>(sums.adjusted);
}

// u(w|h) = (a - D) / A; a count of 0 has no discount.
inline float Discounted(uint64_t adjusted, const ContextSums& sums, const Discounts& d) {
  const float discount = adjusted == 0 ? 0 : d[adjusted < 3 ? adjusted - 1 : 2];
  return (static_cast<float>(adjusted) - discount) / static_cast<float>(sums.adjusted);
}

// What is pruned of one order: n-grams with a raw count up to `threshold`, and those with a word that is not allowed.
struct Cutoff {
  uint64_t threshold = 0;
  const AllowedWords* allowed = nullptr;  // null: all of them
};

// <unk>, <s> and </s> never are.
inline bool IsPruned(const Grams& grams, size_t g, const Cutoff& cutoff) {
  if (grams.raw[g] <= cutoff.threshold) return !(grams.order == 1 && grams.words(g)[0] < kReserved);
  return cutoff.allowed != nullptr && !cutoff.allowed->HasAll(grams.words(g), grams.order);
}

// [context]: sums over its n-grams.
std::vector<ContextSums> SumsOf(const Grams& grams, const Contexts& contexts, const Cutoff& cutoff);

// [context]
std::vector<float> GammasOf(const std::vector<ContextSums>& sums, const Discounts& discounts);

// [n-gram]: p(w|h) = u(w|h) + gamma(h) p(w|h'); `lower` are the probabilities of the n-grams of order - 1, by place.
std::vector<float> Interpolate(const Grams& grams, const Contexts& contexts, const std::vector<ContextSums>& sums,
                               const std::vector<float>& gammas, const Discounts& discounts, const std::vector<float>& lower);

// [unigram]: p(w) = u(w) + gamma / U; p(<s>) is 1. Uses vocab_pad and interpolate_unigrams of `header`.
std::vector<float> UnigramProbabilities(const Grams& unigrams, const ContextSums& sums, const Cutoff& cutoff, const Header& header);

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_SMOOTHING_H_
