// The head of a row stream: what a stage must know before the first row. Text, one "name values..." a line, ended by an empty line;
// docs/NGRAM.md, "Head". Pure functions.
#ifndef BALLAST_TOOLS_NGRAM_HEADER_H_
#define BALLAST_TOOLS_NGRAM_HEADER_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ballast::ngram {

// D1, D2 and D3 of one order; an adjusted count of 3 and more takes D3.
using Discounts = std::array<float, 3>;

struct Header {
  int order = 0;
  int level = 0;                     // The rows are one shard: its n-grams of order > level share s_level(history). 0: no shard.
  std::vector<Discounts> discounts;  // [n - 1] of order n; empty before the barrier.
  std::vector<uint64_t> thresholds;  // [n - 1]: n-grams of order n with a raw count up to this are pruned; empty: none.
  uint64_t vocab_pad = 0;
  bool interpolate_unigrams = true;

  // Of order n >= 1. Unigrams that are not <unk>, <s> or </s> are pruned like the others.
  uint64_t Threshold(int n) const { return thresholds.empty() ? 0 : thresholds[n - 1]; }
};

inline constexpr char kMagic[] = "ballast-ngram 1";

std::string FormatHeader(const Header& header);

// `lines` without the empty one. Errors: DataLoss with the line that is wrong.
absl::StatusOr<Header> ParseHeader(const std::vector<std::string>& lines);

// Repeats the last value up to `order`. Errors: InvalidArgument when they decrease (a suffix of a kept n-gram would be pruned) or are too
// many.
absl::StatusOr<std::vector<uint64_t>> ExpandThresholds(std::vector<uint64_t> given, int order);

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_HEADER_H_
