#include "tools/ngram/discounts.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "tools/ngram/number.h"

namespace ballast::ngram {
namespace {

absl::Status NoDiscount(size_t n, int j, const std::array<uint64_t, 4>& counts, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat("no discount D", j, " for order ", n, ": ", why, " (n1 ", counts[0], ", n2 ", counts[1],
                                                 ", n3 ", counts[2], ", n4 ", counts[3],
                                                 ": how many n-grams have adjusted count 1 to 4). The text is too small, made of classes "
                                                 "or characters, or has many duplicate sentences: "
                                                 "take more text, remove duplicate lines, or pass --discount-fallback"));
}

absl::StatusOr<Discounts> DiscountsOfOrder(size_t n, const std::array<uint64_t, 4>& counts) {
  for (int j = 1; j <= 3; ++j) {
    if (counts[j - 1] == 0) return NoDiscount(n, j, counts, absl::StrCat("no n-gram has adjusted count ", j));
  }
  const float y = static_cast<float>(counts[0]) / static_cast<float>(counts[0] + 2 * counts[1]);
  Discounts discounts;
  for (int j = 1; j <= 3; ++j) {
    const float d =
        static_cast<float>(j) - static_cast<float>(j + 1) * y * static_cast<float>(counts[j]) / static_cast<float>(counts[j - 1]);
    if (!(d >= 0 && d <= static_cast<float>(j))) return NoDiscount(n, j, counts, absl::StrCat("it would be ", ShortestDecimal(d)));
    discounts[j - 1] = d;
  }
  return discounts;
}

}  // namespace

absl::StatusOr<std::vector<Discounts>> DiscountsOf(const Census& census, const std::optional<Discounts>& fallback) {
  std::vector<Discounts> all;
  for (size_t n = 1; n <= census.size(); ++n) {
    absl::StatusOr<Discounts> discounts = DiscountsOfOrder(n, census[n - 1]);
    if (!discounts.ok() && !fallback.has_value()) return discounts.status();
    all.push_back(discounts.ok() ? *discounts : *fallback);
  }
  return all;
}

}  // namespace ballast::ngram
