#include "worker/model/description.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ballast {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kGood[] = R"({"format":1,
  "inputs":[{"name":"tokens","dtype":"int32","shape":[32]}],"label":{"name":"label","dtype":"int64","shape":[]},
  "outputs":[{"name":"output","dtype":"float32","shape":[58]}],"loss":"cross_entropy",
  "tensors":[{"name":"w","dtype":"bfloat16","shape":[2,3],"rule":"OPT","aliases":["v"],"persistent":true,"requires_grad":true},
             {"name":"seen","dtype":"bool","shape":[],"rule":"SET","aliases":[],"persistent":false,"requires_grad":false}]})";

TEST(Description, SaysWhatTheExportWrote) {
  const auto d = ParseDescription(kGood);
  ASSERT_TRUE(d.ok()) << d.status();
  EXPECT_EQ(d->inputs.at(0), (ColumnSpec{"tokens", "int32", {32}}));
  EXPECT_EQ(d->inputs.at(0).RowBytes(), 128u);
  EXPECT_EQ(d->label->RowBytes(), 8u);
  EXPECT_EQ(d->LossMethod(), "");
  const std::vector<TensorSpec> specs = ToTensorSpecs(*d);
  ASSERT_EQ(specs.size(), 2u);
  EXPECT_EQ(specs[0].dtype, DType::kF32);
  EXPECT_EQ(specs[0].source_dtype, "bfloat16");
  EXPECT_THAT(specs[0].aliases, ElementsAre("v"));
  EXPECT_EQ(specs[1].dtype, DType::kI64);
  EXPECT_EQ(specs[1].rule, UpdateRule::kSet);
  EXPECT_FALSE(specs[1].persistent);
}

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(Description, WhatIsWrongIsSaid) {
  const auto message = [](const std::string& from, const std::string& to) {
    return std::string(ParseDescription(Replaced(kGood, from, to)).status().message());
  };
  EXPECT_THAT(message("\"format\":1", "\"format\":2"), HasSubstr("format must be 1"));
  EXPECT_THAT(message("int32", "complex64"), HasSubstr("tokens has dtype complex64"));
  EXPECT_THAT(message("[32]", "[-1]"), HasSubstr("shape of tokens"));
  EXPECT_THAT(message("[2,3]", "[1099511627776,1099511627776]"), HasSubstr("more than 2^40"));
  EXPECT_THAT(message("cross_entropy", "hinge"), HasSubstr("\"hinge\" is none of"));
  EXPECT_THAT(message("cross_entropy", "method:"), HasSubstr("without a name"));
  EXPECT_THAT(message("\"OPT\"", "\"ADD\""), HasSubstr("rule ADD"));
  EXPECT_THAT(message("\"SET\"", "\"MEAN\""), HasSubstr("seen has integers"));
  EXPECT_THAT(message("\"seen\"", "\"v\""), HasSubstr("the name v is used twice"));
  EXPECT_THAT(message("{\"name\":\"label\",\"dtype\":\"int64\",\"shape\":[]}", "null"), HasSubstr("needs a label"));
  EXPECT_THAT(message("\"inputs\":[{", "\"inputs\":{\"x\":[{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(ParseDescription("[]").status().message(), HasSubstr("not a JSON object"));
}

}  // namespace
}  // namespace ballast
