#include "tools/ngram/flags.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace ballast::ngram {
namespace {

// Levenshtein's distance.
size_t Edits(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t changed = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, changed}));
    }
  }
  return row.back();
}

absl::Status Wrong(const std::string& name, const std::string& value, const std::string& want) {
  return absl::InvalidArgumentError(absl::StrCat("--", name, " ", value, ": ", want));
}

absl::Status Unknown(const std::string& name, const std::vector<FlagSpec>& known) {
  std::vector<std::string> names;
  for (const FlagSpec& spec : known) names.push_back(spec.name);
  const std::string nearest = Nearest(name, names);
  return absl::InvalidArgumentError(
      absl::StrCat("unknown flag --", name, nearest.empty() ? "" : absl::StrCat("; did you mean --", nearest, "?")));
}

}  // namespace

std::string Nearest(const std::string& name, const std::vector<std::string>& known) {
  std::string nearest;
  size_t least = name.size() / 2 + 2;
  for (const std::string& candidate : known) {
    const size_t edits = Edits(name, candidate);
    if (edits < least) {
      least = edits;
      nearest = candidate;
    }
  }
  return nearest;
}

absl::StatusOr<Flags> Flags::Parse(const std::vector<std::string>& arguments, const std::vector<FlagSpec>& known) {
  Flags flags;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (!absl::StartsWith(arguments[i], "--")) {
      flags.arguments_.push_back(arguments[i]);
      continue;
    }
    const size_t equals = arguments[i].find('=');
    const std::string name = arguments[i].substr(2, equals == std::string::npos ? equals : equals - 2);
    const auto spec = std::find_if(known.begin(), known.end(), [&](const FlagSpec& s) { return name == s.name; });
    if (spec == known.end()) return Unknown(name, known);
    std::string value = equals == std::string::npos ? "" : arguments[i].substr(equals + 1);
    if (spec->value == nullptr && equals != std::string::npos)
      return absl::InvalidArgumentError(absl::StrCat("--", name, " takes no value"));
    if (spec->value != nullptr && equals == std::string::npos) {
      if (i + 1 == arguments.size()) return absl::InvalidArgumentError(absl::StrCat("--", name, " wants ", spec->value));
      value = arguments[++i];
    }
    if (!flags.values_.emplace(name, value).second) return absl::InvalidArgumentError(absl::StrCat("--", name, " is there twice"));
  }
  return flags;
}

std::string Flags::Text(const std::string& name, const std::string& otherwise) const {
  const auto found = values_.find(name);
  return found == values_.end() ? otherwise : found->second;
}

absl::StatusOr<int64_t> Flags::Integer(const std::string& name, int64_t otherwise, int64_t least, int64_t most) const {
  if (!Has(name)) return otherwise;
  int64_t value;
  if (!absl::SimpleAtoi(Text(name), &value) || value < least || value > most)
    return Wrong(name, Text(name), absl::StrCat("want a whole number from ", least, " to ", most));
  return value;
}

absl::StatusOr<double> Flags::Number(const std::string& name, double otherwise) const {
  if (!Has(name)) return otherwise;
  double value;
  if (!absl::SimpleAtod(Text(name), &value)) return Wrong(name, Text(name), "want a number");
  return value;
}

absl::StatusOr<uint64_t> Flags::Bytes(const std::string& name, uint64_t otherwise) const {
  if (!Has(name)) return otherwise;
  std::string digits = Text(name);
  int shift = 0;
  if (!digits.empty()) {
    const char unit = digits.back();
    shift = unit == 'K' ? 10 : unit == 'M' ? 20 : unit == 'G' ? 30 : 0;
    if (shift != 0) digits.pop_back();
  }
  uint64_t value;
  if (!absl::SimpleAtoi(digits, &value) || value == 0 || value > (uint64_t{1} << 50) >> shift)
    return Wrong(name, Text(name), "want bytes, as 512M or 2G");
  return value << shift;
}

absl::StatusOr<std::vector<uint64_t>> Flags::Integers(const std::string& name) const {
  std::vector<uint64_t> values;
  for (const absl::string_view word : absl::StrSplit(Text(name), absl::ByAnyChar(", "), absl::SkipEmpty())) {
    values.emplace_back();
    if (!absl::SimpleAtoi(word, &values.back())) return Wrong(name, Text(name), "want whole numbers with commas between");
  }
  if (Has(name) && values.empty()) return Wrong(name, Text(name), "want whole numbers with commas between");
  return values;
}

absl::StatusOr<std::vector<double>> Flags::Numbers(const std::string& name) const {
  std::vector<double> values;
  for (const absl::string_view word : absl::StrSplit(Text(name), absl::ByAnyChar(", "), absl::SkipEmpty())) {
    values.emplace_back();
    if (!absl::SimpleAtod(word, &values.back())) return Wrong(name, Text(name), "want numbers with commas between");
  }
  return values;
}

}  // namespace ballast::ngram
