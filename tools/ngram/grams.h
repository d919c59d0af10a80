// The n-grams of one order inside of one shard, derived from its tuples: which they are, their counts, and their suffixes. Pure functions.
#ifndef BALLAST_TOOLS_NGRAM_GRAMS_H_
#define BALLAST_TOOLS_NGRAM_GRAMS_H_

#include <cstdint>
#include <vector>

#include "tools/ngram/tuples.h"

namespace ballast::ngram {

// What one scan of the tuples finds for all orders: where a tuple begins a new n-gram.
struct Shape {
  std::vector<uint8_t> shared;  // [tuple]: words from the last one on that it shares with the tuple before.
  std::vector<uint8_t> length;  // [tuple]: order of its longest n-gram.

  // The tuple is the first one that ends in its n-gram of order n.
  bool Begins(size_t i, int n) const { return length[i] >= n && shared[i] < n; }
};

Shape ShapeOf(const Tuples& tuples);

// In suffix order. `tuples` must outlive it. At most 2^32 - 1 n-grams, so shards are cut to stay below.
struct Grams {
  int order = 0;
  const Tuples* tuples = nullptr;
  std::vector<uint32_t> at;        // A tuple that ends in the n-gram.
  std::vector<uint32_t> suffix;    // Its place among the n-grams of order - 1; 0 for unigrams.
  std::vector<uint64_t> adjusted;  // Distinct words in front; the raw count at the highest order and after <s>.
  std::vector<uint64_t> raw;

  size_t size() const { return at.size(); }
  // Last word first.
  const WordId* words(size_t g) const { return tuples->row(at[g]); }
  WordId first_word(size_t g) const { return words(g)[order - 1]; }
};

Grams GramsOf(const Tuples& tuples, const Shape& shape, int order);

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_GRAMS_H_
