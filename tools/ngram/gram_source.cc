#include "tools/ngram/gram_source.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ballast::ngram {
namespace {

// Unigrams also are <unk> and <s>, both with count 0.
void AddUncountedUnigrams(CountRows& unigrams) {
  for (const WordId word : {kUnk, kBos}) unigrams.Add(&word, 0, 0);
  SortAndCombine(unigrams);
}

}  // namespace

absl::StatusOr<GramSource> GramSource::Create(Shard shard) {
  GramSource source;
  source.shard_ = std::make_unique<Shard>(std::move(shard));
  Shard& own = *source.shard_;
  const int level = own.header.level;
  const bool counted = own.counted();
  if (level == 0) AddUncountedUnigrams(own.counts[0]);
  source.tuples_ = counted ? &own.counts[static_cast<size_t>(level)].rows : &own.tuples;
  source.order_ = level == 0 ? 1 : own.header.order;
  if (counted) {
    // Empty above: the rows of a 0-shard are of one order.
    while (source.order_ > level + 1 && own.counts[static_cast<size_t>(source.order_ - 1)].rows.size() == 0) --source.order_;
  }
  source.links_.resize(static_cast<size_t>(own.header.order));
  for (int n = level + 2; counted && n <= source.order_; ++n) {
    const size_t i = static_cast<size_t>(n - 1);
    if (absl::Status linked = Link(own.counts[i].rows, own.counts[i - 1].rows, source.links_[i]); !linked.ok()) return linked;
  }
  size_t rows = source.tuples_->size();
  for (const CountRows& counts : own.counts) rows = std::max(rows, counts.rows.size());
  if (rows >= std::numeric_limits<uint32_t>::max())
    return absl::FailedPreconditionError(absl::StrCat("a shard of ", rows, " rows is too large: take more shards"));
  source.shape_ = ShapeOf(*source.tuples_);
  return source;
}

absl::Status GramSource::Link(const Tuples& rows, const Tuples& suffixes, std::vector<uint32_t>& places) {
  places.reserve(rows.size());
  size_t at = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    while (at < suffixes.size() && CompareWords(suffixes.row(at), rows.row(i), suffixes.order) < 0) ++at;
    if (at == suffixes.size() || CompareWords(suffixes.row(at), rows.row(i), suffixes.order) != 0)
      return absl::InvalidArgumentError(absl::StrCat("an n-gram of order ", rows.order, " has no suffix in the shard"));
    places.push_back(static_cast<uint32_t>(at));
  }
  return absl::OkStatus();
}

Grams GramSource::CountedGrams(int n) {
  const size_t i = static_cast<size_t>(n - 1);
  const CountRows& counts = shard_->counts[i];
  Grams grams;
  if (n == shard_->header.level + 1) {
    grams = GramsOf(*tuples_, shape_, n);
  } else {
    grams.order = n;
    grams.tuples = &counts.rows;
    grams.suffix = std::move(links_[i]);
    grams.at.resize(counts.rows.size());
    for (size_t g = 0; g < grams.at.size(); ++g) grams.at[g] = static_cast<uint32_t>(g);
  }
  grams.adjusted = counts.adjusted;
  grams.raw = counts.rows.counts;
  return grams;
}

Grams GramSource::Next() {
  const int n = next_++;
  if (shard_->counted() && n > shard_->header.level) return CountedGrams(n);
  return GramsOf(*tuples_, shape_, n);
}

}  // namespace ballast::ngram
