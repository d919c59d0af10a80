#include "worker/feed/schema.h"

#include <gtest/gtest.h>

#include <string>

namespace ballast {
namespace {

RowBatch Rows(uint32_t rows, std::vector<std::pair<std::string, size_t>> columns) {
  RowBatch batch;
  batch.batch = {{1, 3, 7}, rows, 0};
  batch.first_row_id = "row-42";
  for (auto& [name, bytes] : columns) batch.columns.emplace_back(name, std::string(bytes, '\0'));
  return batch;
}

TEST(SchemaTest, ReadsNamesTypesAndShapes) {
  const auto schema = ParseSchema("tokens:int32[32],image:float32[3x4],label:int64");
  ASSERT_TRUE(schema.ok()) << schema.status();
  ASSERT_EQ(schema->size(), 3u);
  EXPECT_EQ((*schema)[1], (ColumnSpec{"image", "float32", {3, 4}}));
  EXPECT_EQ(RowBytes(*schema), 32u * 4 + 12 * 4 + 8);
}

TEST(SchemaTest, RefusesWhatIsNoSchema) {
  for (const char* text :
       {"", "tokens", "tokens:int33", ":int32", "a:int32[", "a:int32[0]", "a:int32[-1]", "a:float32[99999999x99999999x9]"}) {
    EXPECT_FALSE(ParseSchema(text).ok()) << text;
  }
}

TEST(SchemaTest, BadRowsNameColumnExpectedFoundPartitionAndFirstRow) {
  const auto schema = *ParseSchema("tokens:int32[32],label:int64");
  EXPECT_FALSE(CheckRows(schema, 4, Rows(4, {{"tokens", 512}, {"label", 32}})).has_value());
  const auto fault = CheckRows(schema, 4, Rows(4, {{"tokens", 512}, {"label", 16}}));
  ASSERT_TRUE(fault.has_value());
  EXPECT_FALSE(fault->retry);
  for (const char* word : {"label", "int64 (32 bytes for 4 rows)", "16 bytes", "partition 3", "row-42"}) {
    EXPECT_NE(fault->message.find(word), std::string::npos) << word << " in " << fault->message;
  }
}

TEST(SchemaTest, RefusesOtherColumnsAndTooManyRows) {
  const auto schema = *ParseSchema("tokens:int32[32],label:int64");
  EXPECT_TRUE(CheckRows(schema, 4, Rows(4, {{"label", 32}, {"tokens", 512}})).has_value());
  EXPECT_TRUE(CheckRows(schema, 4, Rows(4, {{"tokens", 512}})).has_value());
  EXPECT_TRUE(CheckRows(schema, 4, Rows(4, {{"tokens", 512}, {"label", 32}, {"more", 0}})).has_value());
  EXPECT_TRUE(CheckRows(schema, 4, Rows(5, {{"tokens", 640}, {"label", 40}})).has_value());
  EXPECT_TRUE(CheckRows(schema, 4, Rows(0, {{"tokens", 0}, {"label", 0}})).has_value());
}

TEST(SchemaTest, FaultIsShortWhateverTheTaskSent) {
  const auto schema = *ParseSchema("tokens:int32[32]");
  RowBatch rows = Rows(4, {{std::string(100000, 'n'), 512}});
  rows.first_row_id = std::string(100000, 'r');
  const auto fault = CheckRows(schema, 4, rows);
  ASSERT_TRUE(fault.has_value());
  EXPECT_LT(fault->message.size(), 2000u);
  for (const auto& [key, value] : fault->metadata) EXPECT_LT(value.size(), 500u) << key;
}

}  // namespace
}  // namespace ballast
