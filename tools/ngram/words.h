// Word ids and the bounds that every stage shares. docs/NGRAM.md explains the terms.
#ifndef BALLAST_TOOLS_NGRAM_WORDS_H_
#define BALLAST_TOOLS_NGRAM_WORDS_H_

#include <cstdint>

namespace ballast::ngram {

// <unk>, <s> and </s> come first; the other words follow in the order of their first appearance.
using WordId = uint32_t;
inline constexpr WordId kUnk = 0;
inline constexpr WordId kBos = 1;
inline constexpr WordId kEos = 2;
inline constexpr WordId kReserved = 3;

inline constexpr int kOrderMin = 2;
inline constexpr int kOrderMax = 8;

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_WORDS_H_
