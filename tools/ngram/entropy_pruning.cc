#include "tools/ngram/entropy_pruning.h"

#include <cmath>
#include <utility>

#include "tools/ngram/backoffs.h"
#include "tools/ngram/row.h"

namespace ballast::ngram {
namespace {

using Keep = std::vector<std::vector<bool>>;  // [n - 1][row]

// Stolcke's dH of one n-gram, base 10: how much the cross entropy grows when `row` is dropped from the children of its context.
double Growth(const Model& model, int n, size_t row, const LeftOver& left, double log_backoff, double log_history) {
  const double log_p = model.of(n).log_p[row];
  const double log_lower = model.Score(model.of(n).row(row), n - 1);
  const double p = std::pow(10.0, log_p);
  const double log_new_backoff = std::log10((left.listed + p) / (left.backed_off + std::pow(10.0, log_lower)));
  return -std::pow(10.0, log_history) * (p * (log_lower + log_new_backoff - log_p) + left.listed * (log_new_backoff - log_backoff));
}

// Marks what the rows of order n leave: themselves, if they are worth it or needed, and their contexts.
void MarkOrder(const Model& model, int n, const std::vector<double>& histories, double theta, Keep& keep) {
  const ModelOrder& order = model.of(n);
  const size_t o = static_cast<size_t>(n - 1);
  const std::vector<uint32_t> by_context = ByContext(order);
  for (size_t begin = 0; begin < by_context.size();) {
    const size_t end = ContextEnd(order, by_context, begin);
    const LeftOver left = LeftOverOf(model, n, by_context, begin, end);
    const int64_t context = model.Find(n - 1, order.row(by_context[begin]) + 1);
    const bool keep_all = context == Model::kMissing || left.listed < 0 || left.backed_off <= 0;
    for (size_t i = begin; i < end; ++i) {
      const size_t row = by_context[i];
      bool kept = keep[o][row] || keep_all;
      if (!kept) {
        const double log_backoff = model.of(n - 1).log_backoff[static_cast<size_t>(context)];
        const double growth = Growth(model, n, row, left, log_backoff, histories[static_cast<size_t>(context)]);
        kept = std::pow(10.0, growth) - 1 >= theta;
      }
      keep[o][row] = kept;
      if (kept && context != Model::kMissing) keep[o - 1][static_cast<size_t>(context)] = true;
    }
    begin = end;
  }
}

}  // namespace

std::vector<std::vector<double>> ModelHistories(const Model& model) {
  std::vector<std::vector<double>> histories(static_cast<size_t>(model.order() - 1));
  const WordId end = kEos;
  for (int n = 1; n < model.order(); ++n) {
    const ModelOrder& order = model.of(n);
    for (size_t row = 0; row < order.size(); ++row) {
      const WordId* words = order.row(row);
      double log_p = 0;
      for (int i = 0; i < n; ++i) log_p += words[i] == kBos ? model.Score(&end, 1) : model.Score(words + i, n - i);
      histories[static_cast<size_t>(n - 1)].push_back(log_p);
    }
  }
  return histories;
}

absl::StatusOr<Model> PruneByEntropy(const Model& model, const std::vector<std::vector<double>>& histories, double theta) {
  Keep keep(static_cast<size_t>(model.order()));
  for (int n = 1; n <= model.order(); ++n) keep[static_cast<size_t>(n - 1)].resize(model.of(n).size(), n == 1);
  for (int n = model.order(); n >= 2; --n) MarkOrder(model, n, histories[static_cast<size_t>(n - 2)], theta, keep);
  Model pruned(model.order(), model.vocabulary().Copy());
  for (int n = 1; n <= model.order(); ++n) {
    const ModelOrder& order = model.of(n);
    for (size_t row = 0; row < order.size(); ++row) {
      if (keep[static_cast<size_t>(n - 1)][row]) pruned.Add(n, order.row(row), order.log_p[row], order.log_backoff[row]);
    }
  }
  if (absl::Status finished = pruned.Finish(); !finished.ok()) return finished;
  RecomputeBackoffs(pruned);
  return pruned;
}

}  // namespace ballast::ngram
