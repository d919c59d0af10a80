// Rows: what travels between the stages, and their sizes. The format is docs/NGRAM.md, "Rows". All words of a row are stored last word
// first, so that suffix order is the plain lexicographic order of the row. Pure functions.
#ifndef BALLAST_TOOLS_NGRAM_ROW_H_
#define BALLAST_TOOLS_NGRAM_ROW_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tools/ngram/words.h"

namespace ballast::ngram {

enum class RowKind : uint8_t {
  kTuple = 't',     // N words: raw count (u64)
  kCount = 'c',     // n words: adjusted count, raw count (u64 each)
  kProb = 'p',      // n words: probability (float32)
  kBackoff = 'b',   // n words, a context: backoff (float32)
  kWildcard = 'w',  // n words, a context: adjusted counts of its pruned children, summed (u64)
  kModel = 'm',     // n words: log10 probability, log10 backoff (float32 each)
  kCensus = 'n',    // no words; n is the order counted: how many n-grams have adjusted count 1, 2, 3, 4 (u64 each)
  kLast = 'l',  // N words, the last tuple: adjusted and raw count of each of its suffixes of order 1 to N - 1, 0 where another shard has it
  kEnd = 'e',   // the end of a stream, no rows: without it the stream was cut off
};

// Values after the words, in units of 4 bytes; -1 for an unknown kind.
constexpr int ValueUnits(RowKind kind, int n) {
  switch (kind) {
    case RowKind::kTuple:
    case RowKind::kWildcard:
    case RowKind::kModel:
      return 2;
    case RowKind::kCount:
      return 4;
    case RowKind::kProb:
    case RowKind::kBackoff:
      return 1;
    case RowKind::kCensus:
      return 8;
    case RowKind::kLast:
      return 4 * (n - 1);
    case RowKind::kEnd:
      return 0;
  }
  return -1;
}

constexpr int WordUnits(RowKind kind, int n) { return kind == RowKind::kCensus || kind == RowKind::kEnd ? 0 : n; }

constexpr int RowUnits(RowKind kind, int n) { return WordUnits(kind, n) + ValueUnits(kind, n); }

// Counts inside of rows are only aligned to 4 bytes.
inline uint64_t LoadCount(const uint32_t* at) {
  uint64_t value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}
inline void StoreCount(uint64_t value, uint32_t* at) { std::memcpy(at, &value, sizeof(value)); }
inline float LoadFloat(const uint32_t* at) {
  float value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}
inline void StoreFloat(float value, uint32_t* at) { std::memcpy(at, &value, sizeof(value)); }

// Suffix order: negative, 0 or positive, like memcmp.
inline int CompareWords(const WordId* a, const WordId* b, int n) {
  for (int i = 0; i < n; ++i) {
    if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
  }
  return 0;
}

// How many words from the last one on are the same.
inline int SharedWords(const WordId* a, const WordId* b, int n) {
  int i = 0;
  while (i < n && a[i] == b[i]) ++i;
  return i;
}

// Order of the longest n-gram in a tuple of `n` words: <s> counts once, in front.
inline int GramLength(const WordId* tuple, int n) {
  for (int i = 1; i < n; ++i) {
    if (tuple[i] == kBos) return i + 1;
  }
  return n;
}

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_ROW_H_
