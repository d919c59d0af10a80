// Tuples in memory: rows of N word ids (last word first) in suffix order with their raw counts. Not thread-safe.
#ifndef BALLAST_TOOLS_NGRAM_TUPLES_H_
#define BALLAST_TOOLS_NGRAM_TUPLES_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "tools/ngram/row.h"
#include "tools/ngram/row_stream.h"

namespace ballast::ngram {

struct Tuples {
  int order = 0;                 // N, the words of a row.
  std::vector<WordId> words;     // [size() * order]
  std::vector<uint64_t> counts;  // [size()]

  size_t size() const { return counts.size(); }
  const WordId* row(size_t i) const { return words.data() + i * static_cast<size_t>(order); }
  void Add(const WordId* row, uint64_t count) {
    words.insert(words.end(), row, row + order);
    counts.push_back(count);
  }
};

// The rows of `n` words each in suffix order, as their places.
std::vector<size_t> SuffixOrder(const std::vector<WordId>& words, int n);

// Sorts `words`, rows of `order` ids, into suffix order with two threads. Equal rows stay as many rows.
void SortRows(int order, std::vector<WordId>& words);

// Brings tuples into suffix order and adds up equal ones; cheap when they already are.
void SortAndCombine(Tuples& tuples);

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_TUPLES_H_
