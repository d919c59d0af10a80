#include "core/text.h"

#include <gtest/gtest.h>

namespace ballast {
namespace {

TEST(TextTest, ShortTextStaysAsItIs) {
  EXPECT_EQ(Excerpt(""), "");
  EXPECT_EQ(Excerpt("name"), "name");
  EXPECT_EQ(Excerpt(std::string(kExcerptBytes, 'x')), std::string(kExcerptBytes, 'x'));
}

TEST(TextTest, LongTextIsCutAndSaysHowLongItWas) { EXPECT_EQ(Excerpt("abcdef", 3), "abc... (6 bytes)"); }

TEST(TextTest, NoCharacterIsCutInTwo) {
  EXPECT_EQ(Excerpt("ab\u00e9\u00e9", 3), "ab... (6 bytes)");
  EXPECT_EQ(Excerpt("\xa9\xa9\xa9\xa9", 2), "... (4 bytes)");  // not UTF-8 at all
}

}  // namespace
}  // namespace ballast
