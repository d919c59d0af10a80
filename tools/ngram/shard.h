// One shard in memory, as it comes from a row stream: tuples, or n-grams that are counted already, and the probabilities of the 0-shard
// that it needs.
#ifndef BALLAST_TOOLS_NGRAM_SHARD_H_
#define BALLAST_TOOLS_NGRAM_SHARD_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tools/ngram/allowed_words.h"
#include "tools/ngram/row_stream.h"
#include "tools/ngram/tuples.h"

namespace ballast::ngram {

// n-grams of one order with their counts.
struct CountRows {
  Tuples rows;  // Their counts are the raw ones.
  std::vector<uint64_t> adjusted;

  void Add(const WordId* words, uint64_t adjusted_count, uint64_t raw_count) {
    rows.Add(words, raw_count);
    adjusted.push_back(adjusted_count);
  }
};

// Brings them into suffix order and adds up equal ones: partial counts of several shards become the counts.
void SortAndCombine(CountRows& counts);

// Rows of n words with one value each.
template <typename Value>
struct ValueRows {
  int n = 0;
  std::vector<WordId> words;
  std::vector<Value> values;

  size_t size() const { return values.size(); }
  const WordId* row(size_t i) const { return words.data() + i * static_cast<size_t>(n); }
  void Add(const WordId* row, Value value) {
    words.insert(words.end(), row, row + n);
    values.push_back(value);
  }
};

struct Shard {
  Header header;
  std::shared_ptr<const AllowedWords> allowed;  // No part of the stream; null: all of them.
  Tuples tuples;                                // Either these,
  std::vector<CountRows> counts;                // [n - 1]: or n-grams of order > level
  std::vector<ValueRows<uint64_t>> wildcards;   // [n]: and what was pruned of contexts of n words.
  ValueRows<float> zero;                        // Probabilities of the level-grams; may be more than the shard has.

  bool counted() const { return tuples.size() == 0; }
};

Shard EmptyShard(const Header& header);

// The probabilities of order n of a file. Errors: DataLoss.
absl::StatusOr<ValueRows<float>> ReadZero(const std::string& path, int n);

// Reads to the end and sorts what is unsorted. Errors: DataLoss; InvalidArgument for a kind of row that is no part of a shard.
absl::StatusOr<Shard> ReadShard(RowReader& reader);

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_SHARD_H_
