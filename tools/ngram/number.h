// Numbers of ARPA files. Pure functions.
#ifndef BALLAST_TOOLS_NGRAM_NUMBER_H_
#define BALLAST_TOOLS_NGRAM_NUMBER_H_

#include <cstddef>
#include <string>

namespace ballast::ngram {

inline constexpr size_t kDecimalBytesMax = 32;

// The shortest decimal that reads back to the same float32: plain from 1e-6 on, else as 1.5e-7. Returns the end.
char* WriteShortestDecimal(float value, char* to);
std::string ShortestDecimal(float value);

}  // namespace ballast::ngram

#endif  // BALLAST_TOOLS_NGRAM_NUMBER_H_
