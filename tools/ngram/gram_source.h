// The n-grams of a shard, order by order from the unigrams on, whatever the shard is made of. One thread at a time.
#ifndef BALLAST_TOOLS_NGRAM_GRAM_SOURCE_H_
#define BALLAST_TOOLS_NGRAM_GRAM_SOURCE_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "tools/ngram/grams.h"
#include "tools/ngram/shard.h"

namespace ballast::ngram {

// Counts are exact for orders > level; below, the n-grams are there for the places of suffixes and contexts.
class GramSource {
 public:
  // Errors: FailedPrecondition when the shard has 2^32 rows or more; InvalidArgument when a counted n-gram lacks its suffix.
  static absl::StatusOr<GramSource> Create(Shard shard);

  // Highest order that there is.
  int order() const { return order_; }
  // The n-grams of the next order. Valid as long as the source.
  Grams Next();

 private:
  Grams CountedGrams(int n);
  static absl::Status Link(const Tuples& rows, const Tuples& suffixes, std::vector<uint32_t>& places);

  // On the heap, because Grams point to them.
  std::unique_ptr<Shard> shard_;
  const Tuples* tuples_ = nullptr;  // What the lower orders are derived from.
  Shape shape_;
  std::vector<std::vector<uint32_t>> links_;  // [n - 1] of counted n-grams of order > level + 1: the place of the suffix.
  int order_ = 0;
  int next_ = 1;
};

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_GRAM_SOURCE_H_
