#include "tools/ngram/mixture.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/ngram/backoffs.h"
#include "tools/ngram/events.h"
#include "tools/ngram/row.h"
#include "tools/ngram/tuples.h"

namespace ballast::ngram {
namespace {

constexpr int kIterationsMax = 10000;

// [event * models + model]: probabilities. Each model sees the words by its own ids.
absl::StatusOr<std::vector<double>> EventTable(const std::vector<Model>& models, const std::string& text) {
  std::vector<double> table;
  uint64_t known = 0;
  for (size_t m = 0; m < models.size(); ++m) {
    size_t event = 0;
    absl::Status read = ForEachEvent(text, models[m].vocabulary(), models[m].order(), [&](const WordId* words, int n) {
      if (m == 0) table.resize(table.size() + models.size());
      table[event++ * models.size() + m] = std::pow(10.0, models[m].Score(words, n));
      known += words[0] >= kReserved;
    });
    if (!read.ok()) return read;
  }
  if (known == 0) return absl::InvalidArgumentError(absl::StrCat("the text ", text, " has not one word that a model knows"));
  return table;
}

// Numbers the words of all models.
Vocabulary JoinedVocabulary(const std::vector<Model>& models) {
  Vocabulary joined;
  for (const Model& model : models) {
    for (size_t id = 0; id < model.vocabulary().size(); ++id) joined.Add(model.vocabulary().Word(static_cast<WordId>(id)));
  }
  return joined;
}

// [word of `from`]: its id in `to`.
std::vector<WordId> Translation(const Vocabulary& from, const Vocabulary& to) {
  std::vector<WordId> ids;
  for (size_t id = 0; id < from.size(); ++id) ids.push_back(to.Find(from.Word(static_cast<WordId>(id))));
  return ids;
}

// [row of n words]: all n-grams of order n, each once, in suffix order.
std::vector<WordId> UnionOf(const std::vector<Model>& models, const std::vector<std::vector<WordId>>& to_joined, int n) {
  std::vector<WordId> words;
  for (size_t m = 0; m < models.size(); ++m) {
    if (n > models[m].order()) continue;
    for (const WordId word : models[m].of(n).words) words.push_back(to_joined[m][word]);
  }
  SortRows(n, words);
  const size_t stride = static_cast<size_t>(n);
  size_t kept = 0;
  for (size_t i = 0; i < words.size(); i += stride) {
    if (kept > 0 && CompareWords(&words[kept - stride], &words[i], n) == 0) continue;
    std::copy_n(words.begin() + static_cast<std::ptrdiff_t>(i), stride, words.begin() + static_cast<std::ptrdiff_t>(kept));
    kept += stride;
  }
  words.resize(kept);
  return words;
}

}  // namespace

absl::StatusOr<Weights> LearnWeights(const std::vector<Model>& models, const std::string& text, double eps) {
  absl::StatusOr<std::vector<double>> table = EventTable(models, text);
  if (!table.ok()) return table.status();
  const size_t k = models.size();
  Weights result{std::vector<double>(k, 1.0 / static_cast<double>(k)), 0, 0};
  for (double moved = 1; moved > eps && result.iterations < kIterationsMax; ++result.iterations) {
    std::vector<double> sums(k, 0.0);
    double log_sum = 0, events = 0;
    for (size_t event = 0; event < table->size(); event += k) {
      double total = 0;
      for (size_t m = 0; m < k; ++m) total += result.weights[m] * (*table)[event + m];
      if (total <= 0) continue;
      ++events;
      log_sum += std::log(total);
      for (size_t m = 0; m < k; ++m) sums[m] += result.weights[m] * (*table)[event + m] / total;
    }
    moved = 0;
    for (size_t m = 0; m < k; ++m) {
      const double weight = sums[m] / events;
      moved = std::max(moved, std::fabs(weight - result.weights[m]));
      result.weights[m] = weight;
    }
    result.perplexity = std::exp(-log_sum / events);
  }
  return result;
}

absl::StatusOr<Model> MixModels(const std::vector<Model>& models, const std::vector<double>& weights) {
  const Vocabulary joined = JoinedVocabulary(models);
  std::vector<std::vector<WordId>> to_joined, from_joined;
  int order = 0;
  for (const Model& model : models) {
    to_joined.push_back(Translation(model.vocabulary(), joined));
    from_joined.push_back(Translation(joined, model.vocabulary()));
    order = std::max(order, model.order());
  }
  Model mixed(order, JoinedVocabulary(models));
  std::vector<WordId> own(static_cast<size_t>(order));
  for (int n = 1; n <= order; ++n) {
    const std::vector<WordId> rows = UnionOf(models, to_joined, n);
    for (size_t i = 0; i < rows.size(); i += static_cast<size_t>(n)) {
      double p = 0;
      for (size_t m = 0; m < models.size(); ++m) {
        for (int j = 0; j < n; ++j) own[static_cast<size_t>(j)] = from_joined[m][rows[i + static_cast<size_t>(j)]];
        p += weights[m] * std::pow(10.0, models[m].Score(own.data(), n));
      }
      mixed.Add(n, &rows[i], std::min(0.0, std::log10(p)), 0);
    }
  }
  if (absl::Status finished = mixed.Finish(); !finished.ok()) return finished;
  RecomputeBackoffs(mixed);
  return mixed;
}

}  // namespace ballast::ngram
