#include "tools/ngram/grams.h"

namespace ballast::ngram {

Shape ShapeOf(const Tuples& tuples) {
  Shape shape;
  shape.shared.resize(tuples.size());
  shape.length.resize(tuples.size());
  for (size_t i = 0; i < tuples.size(); ++i) {
    shape.shared[i] = static_cast<uint8_t>(i == 0 ? 0 : SharedWords(tuples.row(i - 1), tuples.row(i), tuples.order));
    shape.length[i] = static_cast<uint8_t>(GramLength(tuples.row(i), tuples.order));
  }
  return shape;
}

Grams GramsOf(const Tuples& tuples, const Shape& shape, int order) {
  Grams grams{order, &tuples, {}, {}, {}, {}};
  uint32_t suffixes = 0;
  for (size_t i = 0; i < tuples.size(); ++i) {
    if (order > 1 && shape.Begins(i, order - 1)) ++suffixes;
    if (shape.length[i] < order) continue;
    if (shape.shared[i] < order) {
      grams.at.push_back(static_cast<uint32_t>(i));
      grams.suffix.push_back(order > 1 ? suffixes - 1 : 0);
      grams.adjusted.push_back(0);
      grams.raw.push_back(0);
    }
    grams.raw.back() += tuples.counts[i];
    const bool counts_raw = order == tuples.order || tuples.row(i)[order - 1] == kBos;
    if (counts_raw) {
      grams.adjusted.back() = grams.raw.back();
    } else if (shape.Begins(i, order + 1)) {
      ++grams.adjusted.back();
    }
  }
  return grams;
}

}  // namespace ballast::ngram
