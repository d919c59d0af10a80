#include "tools/ngram/number.h"

#include <charconv>
#include <cmath>
#include <cstring>

namespace ballast::ngram {
namespace {

// "d.ddde-07" as to_chars writes it: without the zero in front of the exponent.
char* StripExponentZero(char* begin, char* end) {
  char* e = static_cast<char*>(std::memchr(begin, 'e', static_cast<size_t>(end - begin)));
  if (e == nullptr) return end;
  char* digits = e + 2;  // After the sign.
  if (e[1] == '+') {
    std::memmove(e + 1, e + 2, static_cast<size_t>(end - (e + 2)));
    --end;
    digits = e + 1;
  }
  while (digits + 1 < end && *digits == '0') {
    std::memmove(digits, digits + 1, static_cast<size_t>(end - digits - 1));
    --end;
  }
  return end;
}

}  // namespace

char* WriteShortestDecimal(float value, char* to) {
  if (value == 0) value = 0;  // -0 is written as 0.
  const float size = std::fabs(value);
  const bool plain = value == 0 || (size >= 1e-6f && size < 1e10f);
  const std::to_chars_result result =
      std::to_chars(to, to + kDecimalBytesMax, value, plain ? std::chars_format::fixed : std::chars_format::scientific);
  return plain ? result.ptr : StripExponentZero(to, result.ptr);
}

std::string ShortestDecimal(float value) {
  char text[kDecimalBytesMax];
  return std::string(text, WriteShortestDecimal(value, text));
}

}  // namespace ballast::ngram
