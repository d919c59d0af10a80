// Counts of counts and the discounts of modified Kneser-Ney: docs/NGRAM.md, "Method". Pure functions.
#ifndef BALLAST_TOOLS_NGRAM_DISCOUNTS_H_
#define BALLAST_TOOLS_NGRAM_DISCOUNTS_H_

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "tools/ngram/header.h"

namespace ballast::ngram {

// [n - 1][j - 1]: how many n-grams of order n have adjusted count j, 1 to 4. Sums over shards are plain sums.
using Census = std::vector<std::array<uint64_t, 4>>;

// `by` may be negative as an unsigned number: the quirk moves one n-gram from one count to another.
inline void AddToCensus(Census& census, int n, uint64_t adjusted, uint64_t by = 1) {
  if (adjusted >= 1 && adjusted <= 4) census[static_cast<size_t>(n - 1)][adjusted - 1] += by;
}

// Discounts of all orders, in float32 and left to right. `fallback` takes the place of all three of an order that has none.
// Errors: InvalidArgument with order, j, n1 to n4 and the remedies when the counts allow no discount.
absl::StatusOr<std::vector<Discounts>> DiscountsOf(const Census& census, const std::optional<Discounts>& fallback);

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_DISCOUNTS_H_
