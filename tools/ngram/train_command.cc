#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/ngram/commands.h"
#include "tools/ngram/smoothing_flags.h"
#include "tools/ngram/train.h"

namespace ballast::ngram {
namespace {

absl::Status RunTrain(const Flags& flags) {
  TrainOptions options;
  options.texts = flags.arguments();
  options.arpa = flags.Text("out");
  options.limit_vocab = flags.Text("limit-vocab");
  if (options.texts.empty()) return absl::InvalidArgumentError("no text; - is standard input");
  if (options.arpa.empty()) return absl::InvalidArgumentError("no --out: where the ARPA file goes");
  absl::StatusOr<CounterOptions> counter = CounterFlags(flags);
  if (!counter.ok()) return counter.status();
  absl::StatusOr<Header> smoothing = SmoothingFlags(flags, counter->order);
  if (!smoothing.ok()) return smoothing.status();
  absl::StatusOr<std::optional<Discounts>> fallback = FallbackFlag(flags);
  if (!fallback.ok()) return fallback.status();
  absl::StatusOr<bool> compat = CompatFlag(flags);
  if (!compat.ok()) return compat.status();
  absl::StatusOr<PlanOptions> plan = PlanFlags(flags);
  if (!plan.ok()) return plan.status();
  options.counter = *counter;
  options.smoothing = *smoothing;
  options.fallback = *fallback;
  options.compat_lmplz = *compat;
  options.plan = *plan;
  return Training(std::move(options)).Run();
}

}  // namespace

Command TrainCommand() {
  Command command{"train",
                  "TEXT...",
                  "text to an ARPA file on this machine",
                  {{"out", "FILE", "the ARPA file"},
                   {"limit-vocab", "FILE", "drop n-grams with a word that is not in this list, beside those of --prune"}},
                  RunTrain};
  for (const std::vector<FlagSpec>& group : {CounterFlagSpecs(), SmoothingFlagSpecs(), DiscountFlagSpecs(), PlanFlagSpecs()})
    command.flags.insert(command.flags.end(), group.begin(), group.end());
  return command;
}

}  // namespace ballast::ngram
