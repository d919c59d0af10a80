// Flags that several commands share, and what they mean. Errors: InvalidArgument with flag and value.
#ifndef BALLAST_TOOLS_NGRAM_SMOOTHING_FLAGS_H_
#define BALLAST_TOOLS_NGRAM_SMOOTHING_FLAGS_H_

#include <optional>
#include <vector>

#include "tools/ngram/counter.h"
#include "tools/ngram/discounts.h"
#include "tools/ngram/flags.h"
#include "tools/ngram/header.h"
#include "tools/ngram/plan.h"

namespace ballast::ngram {

// --order --memory --scratch --skip-symbols
std::vector<FlagSpec> CounterFlagSpecs();
absl::StatusOr<CounterOptions> CounterFlags(const Flags& flags);

// --prune --vocab-pad --no-interpolate-unigrams
std::vector<FlagSpec> SmoothingFlagSpecs();
absl::StatusOr<Header> SmoothingFlags(const Flags& flags, int order);

// --discount-fallback --compat
std::vector<FlagSpec> DiscountFlagSpecs();
absl::StatusOr<std::optional<Discounts>> FallbackFlag(const Flags& flags);
absl::StatusOr<bool> CompatFlag(const Flags& flags);

// --shards --tau --levels
std::vector<FlagSpec> PlanFlagSpecs();
absl::StatusOr<PlanOptions> PlanFlags(const Flags& flags);

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_SMOOTHING_FLAGS_H_
