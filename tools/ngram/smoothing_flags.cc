#include "tools/ngram/smoothing_flags.h"

#include <stdlib.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace ballast::ngram {

std::vector<FlagSpec> CounterFlagSpecs() {
  return {{"order", "N", "words of the longest n-grams; 5"},
          {"memory", "BYTES", "how much to sort at once, as 512M or 2G; 640M"},
          {"scratch", "FOLDER", "where intermediate files go; $TMPDIR or /tmp"},
          {"skip-symbols", nullptr, "take <s>, </s> and <unk> in the text as white space instead of an error"}};
}

absl::StatusOr<CounterOptions> CounterFlags(const Flags& flags) {
  CounterOptions options;
  absl::StatusOr<int64_t> order = flags.Integer("order", 5, kOrderMin, kOrderMax);
  if (!order.ok()) return order.status();
  absl::StatusOr<uint64_t> memory = flags.Bytes("memory", uint64_t{640} << 20);
  if (!memory.ok()) return memory.status();
  const char* tmpdir = getenv("TMPDIR");
  options.order = static_cast<int>(*order);
  options.memory_bytes_max = *memory;
  options.scratch = flags.Text("scratch", tmpdir == nullptr ? "/tmp" : tmpdir);
  options.skip_symbols = flags.Has("skip-symbols");
  return options;
}

std::vector<FlagSpec> SmoothingFlagSpecs() {
  return {{"prune", "T1,T2,...", "drop n-grams of each order that occur up to this often; the last one is repeated; 0"},
          {"vocab-pad", "WORDS", "spread the mass of unknown words over at least so many; 0"},
          {"no-interpolate-unigrams", nullptr, "give all mass of unknown words to <unk>, as SRILM does"}};
}

absl::StatusOr<Header> SmoothingFlags(const Flags& flags, int order) {
  Header header;
  header.order = order;
  absl::StatusOr<std::vector<uint64_t>> given = flags.Integers("prune");
  if (!given.ok()) return given.status();
  absl::StatusOr<std::vector<uint64_t>> thresholds = ExpandThresholds(*std::move(given), order);
  if (!thresholds.ok()) return thresholds.status();
  absl::StatusOr<int64_t> pad = flags.Integer("vocab-pad", 0, 0, int64_t{1} << 40);
  if (!pad.ok()) return pad.status();
  header.thresholds = *std::move(thresholds);
  header.vocab_pad = static_cast<uint64_t>(*pad);
  header.interpolate_unigrams = !flags.Has("no-interpolate-unigrams");
  return header;
}

std::vector<FlagSpec> DiscountFlagSpecs() {
  return {{"discount-fallback", "D1,D2,D3",
           "discounts of an order whose counts allow none, as 0.5,1,1.5; a shorter list repeats its last value"},
          {"compat", "lmplz", "count the suffixes of the last tuple as lmplz does: bit equality with it"}};
}

absl::StatusOr<std::optional<Discounts>> FallbackFlag(const Flags& flags) {
  if (!flags.Has("discount-fallback")) return std::optional<Discounts>();
  absl::StatusOr<std::vector<double>> given = flags.Numbers("discount-fallback");
  if (!given.ok()) return given.status();
  if (given->empty() || given->size() > 3) return absl::InvalidArgumentError("--discount-fallback wants one to three numbers");
  given->resize(3, given->back());
  Discounts discounts;
  for (size_t j = 0; j < 3; ++j) {
    if (!((*given)[j] >= 0 && (*given)[j] <= static_cast<double>(j + 1)))
      return absl::InvalidArgumentError(absl::StrCat("--discount-fallback: D", j + 1, " must be from 0 to ", j + 1));
    discounts[j] = static_cast<float>((*given)[j]);
  }
  return std::optional<Discounts>(discounts);
}

absl::StatusOr<bool> CompatFlag(const Flags& flags) {
  if (!flags.Has("compat")) return false;
  if (flags.Text("compat") != "lmplz")
    return absl::InvalidArgumentError(absl::StrCat("--compat ", flags.Text("compat"), ": only lmplz is known"));
  return true;
}

std::vector<FlagSpec> PlanFlagSpecs() {
  return {{"shards", "S", "shards of level 1; `train` takes as many as the memory asks for"},
          {"tau", "RATIO", "a shard over so many times the mean is opened: its n-grams go on to the next level; 2"},
          {"levels", "L", "the last level, which keeps its shards whatever their size; 3"}};
}

absl::StatusOr<PlanOptions> PlanFlags(const Flags& flags) {
  PlanOptions options;
  absl::StatusOr<int64_t> shards = flags.Integer("shards", 0, 1, 1 << 20);
  if (!shards.ok()) return shards.status();
  absl::StatusOr<double> tau = flags.Number("tau", options.tau);
  if (!tau.ok()) return tau.status();
  if (!(*tau > 0)) return absl::InvalidArgumentError("--tau must be over 0");
  absl::StatusOr<int64_t> levels = flags.Integer("levels", options.levels_max, 1, kOrderMax - 1);
  if (!levels.ok()) return levels.status();
  options.shards = static_cast<uint32_t>(*shards);
  options.tau = *tau;
  options.levels_max = static_cast<int>(*levels);
  return options;
}

}  // namespace ballast::ngram
