#include "tools/ngram/number.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <limits>

namespace ballast::ngram {
namespace {

TEST(ShortestDecimal, IsPlainFromOneMillionthOn) {
  EXPECT_EQ(ShortestDecimal(-0.30103f), "-0.30103");
  EXPECT_EQ(ShortestDecimal(-1.0791812f), "-1.0791812");
  EXPECT_EQ(ShortestDecimal(-10.0f), "-10");
  EXPECT_EQ(ShortestDecimal(1e-6f), "0.000001");
  EXPECT_EQ(ShortestDecimal(0.0f), "0");
  EXPECT_EQ(ShortestDecimal(-0.0f), "0");
}

TEST(ShortestDecimal, BelowOneMillionthHasAnExponentWithoutPadding) {
  EXPECT_EQ(ShortestDecimal(-5.176633e-8f), "-5.176633e-8");
  EXPECT_EQ(ShortestDecimal(9.9999994e-7f), "9.999999e-7");
  EXPECT_EQ(ShortestDecimal(1e-20f), "1e-20");
}

TEST(ShortestDecimal, ReadsBackToTheSameFloat) {
  uint32_t bits = 1;
  for (int i = 0; i < 200000; ++i) {
    bits = bits * 1664525u + 1013904223u;
    float value;
    static_assert(sizeof(value) == sizeof(bits));
    __builtin_memcpy(&value, &bits, sizeof(value));
    if (!(value == value) || value == 0 || value - value != 0) continue;
    ASSERT_EQ(std::strtof(ShortestDecimal(value).c_str(), nullptr), value) << bits;
  }
}

}  // namespace
}  // namespace ballast::ngram
