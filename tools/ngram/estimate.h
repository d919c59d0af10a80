// Estimates one shard: probabilities of its n-grams of order > level, backoffs of their contexts. What it needs from outside is in the
// shard: discounts, thresholds, probabilities of its level-grams. Memory is bounded by the shard. Pure but for the writer.
#ifndef BALLAST_TOOLS_NGRAM_ESTIMATE_H_
#define BALLAST_TOOLS_NGRAM_ESTIMATE_H_

#include "absl/status/status.h"
#include "tools/ngram/row_stream.h"
#include "tools/ngram/shard.h"

namespace ballast::ngram {

// Writes kProb rows of the kept n-grams and kBackoff rows of the contexts that keep one, each kind and order in suffix order. The shard is
// used up. Errors: InvalidArgument without discounts or when a kept n-gram needs a level-gram that has no probability; FailedPrecondition
// when the shard is too large.
[[nodiscard]] absl::Status EstimateShard(Shard shard, RowWriter& out);

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_ESTIMATE_H_
