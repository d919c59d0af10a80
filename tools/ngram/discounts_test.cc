#include "tools/ngram/discounts.h"

#include <gtest/gtest.h>

namespace ballast::ngram {
namespace {

TEST(Discounts, FollowTheFormula) {
  // Y = 60 / (60 + 40) = 0.6; D1 = 1 - 2 * 0.6 * 20 / 60, D2 = 2 - 3 * 0.6 * 10 / 20, D3 = 3 - 4 * 0.6 * 5 / 10.
  absl::StatusOr<std::vector<Discounts>> found = DiscountsOf({{60, 20, 10, 5}}, std::nullopt);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_FLOAT_EQ((*found)[0][0], 0.6f);
  EXPECT_FLOAT_EQ((*found)[0][1], 1.1f);
  EXPECT_FLOAT_EQ((*found)[0][2], 1.8f);
}

TEST(Discounts, NoCountOfFourGivesThree) {
  absl::StatusOr<std::vector<Discounts>> found = DiscountsOf({{60, 20, 10, 0}}, std::nullopt);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ((*found)[0][2], 3.0f);
}

TEST(Discounts, AMissingCountNamesOrderCountAndRemedy) {
  const absl::Status status = DiscountsOf({{60, 20, 10, 5}, {7, 0, 3, 1}}, std::nullopt).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  const std::string message(status.message());
  for (const char* part : {"D2", "order 2", "n1 7", "n2 0", "n3 3", "n4 1", "duplicate", "--discount-fallback"})
    EXPECT_NE(message.find(part), std::string::npos) << message;
}

TEST(Discounts, OneOutOfRangeIsAnErrorToo) {
  EXPECT_FALSE(DiscountsOf({{10, 10, 90, 1}}, std::nullopt).ok()) << "D2 = 2 - 3 * (1 / 3) * 90 / 10 = -7";
}

TEST(Discounts, TheFallbackTakesAllThreeOfThatOrderOnly) {
  absl::StatusOr<std::vector<Discounts>> found = DiscountsOf({{60, 20, 10, 5}, {7, 0, 3, 1}}, Discounts{0.5f, 1, 1.5f});
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_FLOAT_EQ((*found)[0][0], 0.6f);
  EXPECT_EQ((*found)[1], (Discounts{0.5f, 1, 1.5f}));
}

}  // namespace
}  // namespace ballast::ngram
