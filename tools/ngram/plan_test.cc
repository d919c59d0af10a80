#include "tools/ngram/plan.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace ballast::ngram {
namespace {

using Row = std::array<WordId, 4>;

// Tuples of order 4, last word first, in suffix order: "5 6" is a frequent history, of which "7 5 6" and "8 5 6" are parts.
std::vector<Row> Rows() {
  std::vector<Row> rows;
  for (WordId word = 10; word < 200; ++word) {
    rows.push_back({word, 3, 1, 1});
    rows.push_back({word, 6, 5, 7});
    rows.push_back({word, 6, 5, 8});
  }
  return rows;
}

Plan::Scan ScanOf(const std::vector<Row>& rows) {
  return [&rows](const std::function<void(const WordId*)>& on_row) {
    for (const Row& row : rows) on_row(row.data());
    return absl::OkStatus();
  };
}

// The literals come from the published description of XXH64, written down in Python for one word of four bytes; Spark 4's xxhash64(5) and
// xxhash64(5, 7) are the same.
TEST(Plan, KeysAreHashedWordByWordFromTheLastOneOfTheHistory) {
  const Row row = {9, 5, 7, 1};
  EXPECT_EQ(HashKey(row.data(), 0), 42u);
  EXPECT_EQ(HashKey(row.data(), 1), 0x06fea35875d01bb8u);
  EXPECT_EQ(HashKey(row.data(), 2), 0x64707c8fa923f65eu);
  const Row other_word = {8, 5, 7, 3};
  EXPECT_EQ(HashKey(row.data(), 2), HashKey(other_word.data(), 2)) << "the predicted word and what is before the key do not count";
}

TEST(Plan, ShardIsThePositiveRemainderOfTheSignedHash) {
  EXPECT_EQ(ShardOfHash(7, 5), 2u);
  EXPECT_EQ(ShardOfHash(static_cast<uint64_t>(int64_t{-7}), 5), 3u);
}

TEST(Plan, AShardOverTheThresholdIsOpenedAndItsTuplesGoOn) {
  const std::vector<Row> rows = Rows();
  absl::StatusOr<Plan> plan = Plan::Make(4, {64, 2, 3}, ScanOf(rows));
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->levels().size(), 3u);
  EXPECT_EQ(plan->Find(rows[1].data()).level, 3) << "one key holds most of it until three words tell it apart";
}

TEST(Plan, TheLastLevelKeepsWhatItHas) {
  const std::vector<Row> rows = Rows();
  absl::StatusOr<Plan> plan = Plan::Make(4, {64, 0.001, 1}, ScanOf(rows));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->levels().size(), 1u);
  for (const Row& row : rows) EXPECT_EQ(plan->Find(row.data()).level, 1);
}

TEST(Plan, ATupleWhoseHistoryBeginsTheSentenceGoesNoFurther) {
  const std::vector<Row> rows = Rows();
  absl::StatusOr<Plan> plan = Plan::Make(4, {1, 0.0001, 3}, ScanOf(rows));
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->levels().size(), 3u);
  const Row spent = {10, 3, 1, 1};
  EXPECT_EQ(plan->Find(spent.data()).level, 3) << "its longest n-gram has three words, which level 2 holds and level 3 counts";
  const Row shorter = {3, 1, 1, 1};
  EXPECT_EQ(plan->Find(shorter.data()).level, 2);
}

TEST(Plan, IsTheSameAfterFormatAndParse) {
  const std::vector<Row> rows = Rows();
  absl::StatusOr<Plan> plan = Plan::Make(4, {64, 0.5, 3}, ScanOf(rows));
  ASSERT_TRUE(plan.ok()) << plan.status();
  absl::StatusOr<Plan> parsed = Plan::Parse(plan->Format());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->Format(), plan->Format());
  for (const Row& row : rows) EXPECT_EQ(parsed->Find(row.data()).shard, plan->Find(row.data()).shard);
  EXPECT_FALSE(Plan::Parse("ballast-ngram-plan 1\norder 4\nmean_load 3\nlevel 2 shards 1 opened\n").ok());
  EXPECT_FALSE(Plan::Parse("order 4\n").ok());
}

}  // namespace
}  // namespace ballast::ngram
