#include "tools/ngram/backoffs.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tools/ngram/row.h"

namespace ballast::ngram {
namespace {

constexpr double kFloor = 1e-12;

}  // namespace

std::vector<uint32_t> ByContext(const ModelOrder& order) {
  std::vector<uint32_t> rows(order.size());
  std::iota(rows.begin(), rows.end(), 0u);
  // Rows are in suffix order, so a stable sort by the history leaves the words of a context in order too.
  std::stable_sort(rows.begin(), rows.end(),
                   [&](uint32_t a, uint32_t b) { return CompareWords(order.row(a) + 1, order.row(b) + 1, order.n - 1) < 0; });
  return rows;
}

size_t ContextEnd(const ModelOrder& order, const std::vector<uint32_t>& by_context, size_t begin) {
  size_t end = begin + 1;
  while (end < by_context.size() && CompareWords(order.row(by_context[begin]) + 1, order.row(by_context[end]) + 1, order.n - 1) == 0) ++end;
  return end;
}

LeftOver LeftOverOf(const Model& model, int n, const std::vector<uint32_t>& by_context, size_t begin, size_t end) {
  LeftOver left;
  for (size_t i = begin; i < end; ++i) {
    left.listed -= std::pow(10.0, model.of(n).log_p[by_context[i]]);
    left.backed_off -= std::pow(10.0, model.Score(model.of(n).row(by_context[i]), n - 1));
  }
  return left;
}

void RecomputeBackoffs(Model& model) {
  for (int n = 2; n <= model.order(); ++n) {
    ModelOrder& contexts = model.of(n - 1);
    std::fill(contexts.log_backoff.begin(), contexts.log_backoff.end(), 0.0);
    const ModelOrder& order = model.of(n);
    const std::vector<uint32_t> by_context = ByContext(order);
    for (size_t begin = 0; begin < by_context.size();) {
      const size_t end = ContextEnd(order, by_context, begin);
      const LeftOver left = LeftOverOf(model, n, by_context, begin, end);
      const int64_t context = model.Find(n - 1, order.row(by_context[begin]) + 1);
      if (context != Model::kMissing)
        contexts.log_backoff[static_cast<size_t>(context)] = std::log10(std::max(left.listed, kFloor) / std::max(left.backed_off, kFloor));
      begin = end;
    }
  }
}

}  // namespace ballast::ngram
