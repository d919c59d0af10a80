#include "tools/ngram/estimate.h"

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tools/ngram/contexts.h"
#include "tools/ngram/gram_source.h"
#include "tools/ngram/smoothing.h"

namespace ballast::ngram {
namespace {

// [level-gram]: its probability, looked up in the rows of the 0-shard; NaN where there is none, because it was pruned: then no kept n-gram
// ends in it. Both are sorted.
std::vector<float> ZeroProbabilities(const Grams& grams, const ValueRows<float>& zero) {
  std::vector<float> p(grams.size(), std::numeric_limits<float>::quiet_NaN());
  size_t row = 0;
  for (size_t g = 0; g < grams.size(); ++g) {
    while (row < zero.size() && CompareWords(zero.row(row), grams.words(g), zero.n) < 0) ++row;
    if (row < zero.size() && CompareWords(zero.row(row), grams.words(g), zero.n) == 0) p[g] = zero.values[row];
  }
  return p;
}

// The pruned children of a context count as one: docs/NGRAM.md, "Stages". Both are sorted.
absl::Status AddWildcards(const ValueRows<uint64_t>& wildcards, const Grams& grams, const Contexts& contexts,
                          std::vector<ContextSums>& sums) {
  size_t row = 0;
  for (size_t c = 0; c < contexts.size() && row < wildcards.size(); ++c) {
    if (wildcards.n > 0 && CompareWords(wildcards.row(row), grams.words(contexts.sample[c]) + 1, wildcards.n) != 0) continue;
    sums[c].adjusted += wildcards.values[row];
    sums[c].pruned += wildcards.values[row];
    ++row;
  }
  if (row < wildcards.size()) return absl::InvalidArgumentError("a wildcard row of a context that keeps no n-gram");
  return absl::OkStatus();
}

absl::Status WriteOrder(const Grams& grams, const Contexts& contexts, const std::vector<ContextSums>& sums,
                        const std::vector<float>& gammas, const std::vector<float>& p, const Cutoff& cutoff, RowWriter& out) {
  for (size_t c = 0; grams.order > 1 && c < contexts.size(); ++c) {
    if (!sums[c].any_kept()) continue;
    const WordId* context = grams.words(contexts.sample[c]) + 1;
    if (absl::Status added = out.AddFloat(RowKind::kBackoff, grams.order - 1, context, gammas[c]); !added.ok()) return added;
  }
  for (size_t g = 0; g < grams.size(); ++g) {
    if (IsPruned(grams, g, cutoff)) continue;
    if (std::isnan(p[g]))
      return absl::InvalidArgumentError(absl::StrCat("a kept ", grams.order, "-gram that ends in word ", grams.words(g)[0],
                                                     " has a suffix without a probability in the 0-shard of its level"));
    if (absl::Status added = out.AddFloat(RowKind::kProb, grams.order, grams.words(g), p[g]); !added.ok()) return added;
  }
  return absl::OkStatus();
}

absl::Status EstimateUnigrams(const Grams& unigrams, const Cutoff& cutoff, const Header& header, RowWriter& out) {
  const Contexts contexts = UnigramContexts(unigrams);
  const std::vector<ContextSums> sums = SumsOf(unigrams, contexts, cutoff);
  return WriteOrder(unigrams, contexts, sums, {}, UnigramProbabilities(unigrams, sums[0], cutoff, header), cutoff, out);
}

}  // namespace

absl::Status EstimateShard(Shard shard, RowWriter& out) {
  const Header header = shard.header;
  if (header.discounts.empty()) return absl::InvalidArgumentError("the head has no discounts: they are known once all shards are counted");
  const ValueRows<float> zero = std::move(shard.zero);
  const std::vector<ValueRows<uint64_t>> wildcards = std::move(shard.wildcards);
  const std::shared_ptr<const AllowedWords> allowed = shard.allowed;
  absl::StatusOr<GramSource> source = GramSource::Create(std::move(shard));
  if (!source.ok()) return source.status();
  if (header.level == 0) return EstimateUnigrams(source->Next(), {header.Threshold(1), allowed.get()}, header, out);

  Contexts contexts;
  std::vector<float> lower;
  for (int n = 1; n <= source->order(); ++n) {
    const Grams grams = source->Next();
    Contexts next = n == 1 ? UnigramContexts(grams) : ContextsOf(grams, contexts);
    contexts = std::move(next);
    if (n < header.level) continue;
    if (n == header.level) {
      lower = ZeroProbabilities(grams, zero);
      continue;
    }
    const Cutoff cutoff{header.Threshold(n), allowed.get()};
    std::vector<ContextSums> sums = SumsOf(grams, contexts, cutoff);
    if (absl::Status added = AddWildcards(wildcards[static_cast<size_t>(n - 1)], grams, contexts, sums); !added.ok()) return added;
    const Discounts& discounts = header.discounts[static_cast<size_t>(n - 1)];
    const std::vector<float> gammas = GammasOf(sums, discounts);
    std::vector<float> p = Interpolate(grams, contexts, sums, gammas, discounts, lower);
    if (absl::Status written = WriteOrder(grams, contexts, sums, gammas, p, cutoff, out); !written.ok()) return written;
    lower = std::move(p);
  }
  return absl::OkStatus();
}

}  // namespace ballast::ngram
