#include "tools/ngram/header.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "tools/ngram/number.h"
#include "tools/ngram/words.h"

namespace ballast::ngram {
namespace {

absl::Status ParseDiscounts(const std::vector<absl::string_view>& words, Header& header) {
  int n = 0;
  Discounts discounts;
  bool ok = words.size() == 5 && absl::SimpleAtoi(words[1], &n) && n == static_cast<int>(header.discounts.size()) + 1;
  for (int j = 0; ok && j < 3; ++j) ok = absl::SimpleAtof(words[2 + j], &discounts[j]);
  if (!ok) return absl::DataLossError("want: discount n D1 D2 D3, orders from 1 on");
  header.discounts.push_back(discounts);
  return absl::OkStatus();
}

absl::Status ParseThresholds(const std::vector<absl::string_view>& words, Header& header) {
  header.thresholds.clear();
  for (size_t i = 1; i < words.size(); ++i) {
    uint64_t threshold;
    if (!absl::SimpleAtoi(words[i], &threshold)) return absl::DataLossError("want: thresholds t1 ... tN");
    header.thresholds.push_back(threshold);
  }
  return absl::OkStatus();
}

absl::Status ParseLine(absl::string_view line, Header& header) {
  const std::vector<absl::string_view> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
  const absl::string_view name = words.empty() ? "" : words[0];
  if (name == "discount") return ParseDiscounts(words, header);
  if (name == "thresholds") return ParseThresholds(words, header);
  bool ok = false;
  if (words.size() == 2) {
    if (name == "order") ok = absl::SimpleAtoi(words[1], &header.order);
    if (name == "level") ok = absl::SimpleAtoi(words[1], &header.level);
    if (name == "vocab_pad") ok = absl::SimpleAtoi(words[1], &header.vocab_pad);
    if (name == "interpolate_unigrams") ok = absl::SimpleAtob(words[1], &header.interpolate_unigrams);
  }
  return ok ? absl::OkStatus() : absl::DataLossError("unknown name or a wrong value");
}

absl::Status CheckHeader(const Header& header) {
  if (header.order < kOrderMin || header.order > kOrderMax)
    return absl::DataLossError(absl::StrCat("the head says order ", header.order, "; possible are ", kOrderMin, " to ", kOrderMax));
  if (header.level < 0 || header.level >= header.order)
    return absl::DataLossError(absl::StrCat("the head says level ", header.level, " at order ", header.order));
  const size_t order = static_cast<size_t>(header.order);
  if (!header.discounts.empty() && header.discounts.size() != order)
    return absl::DataLossError("the head has discounts of some orders only");
  if (!header.thresholds.empty() && header.thresholds.size() != order)
    return absl::DataLossError("the head has thresholds of some orders only");
  return absl::OkStatus();
}

}  // namespace

std::string FormatHeader(const Header& header) {
  std::string text = absl::StrCat(kMagic, "\norder ", header.order, "\nlevel ", header.level, "\n");
  for (size_t i = 0; i < header.discounts.size(); ++i) {
    absl::StrAppend(&text, "discount ", i + 1);
    for (const float d : header.discounts[i]) absl::StrAppend(&text, " ", ShortestDecimal(d));
    text += "\n";
  }
  if (!header.thresholds.empty()) absl::StrAppend(&text, "thresholds ", absl::StrJoin(header.thresholds, " "), "\n");
  absl::StrAppend(&text, "vocab_pad ", header.vocab_pad, "\n");
  absl::StrAppend(&text, "interpolate_unigrams ", header.interpolate_unigrams ? 1 : 0, "\n\n");
  return text;
}

absl::StatusOr<Header> ParseHeader(const std::vector<std::string>& lines) {
  if (lines.empty() || lines[0] != kMagic) return absl::DataLossError(absl::StrCat("not rows of the estimator: no line \"", kMagic, "\""));
  Header header;
  for (size_t i = 1; i < lines.size(); ++i) {
    if (absl::Status parsed = ParseLine(lines[i], header); !parsed.ok())
      return absl::DataLossError(absl::StrCat("line ", i + 1, " of the head, \"", lines[i], "\": ", parsed.message()));
  }
  if (absl::Status checked = CheckHeader(header); !checked.ok()) return checked;
  return header;
}

absl::StatusOr<std::vector<uint64_t>> ExpandThresholds(std::vector<uint64_t> given, int order) {
  if (given.empty()) return given;
  if (static_cast<int>(given.size()) > order)
    return absl::InvalidArgumentError(absl::StrCat(given.size(), " thresholds for a model of order ", order));
  for (size_t i = 1; i < given.size(); ++i) {
    if (given[i] < given[i - 1])
      return absl::InvalidArgumentError(
          absl::StrCat("thresholds must not decrease with the order, or a kept n-gram would lose its suffix: ", absl::StrJoin(given, " ")));
  }
  given.resize(static_cast<size_t>(order), given.back());
  return given;
}

}  // namespace ballast::ngram
