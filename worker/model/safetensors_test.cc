#include "worker/model/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace ballast {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string File(const std::string& header, const std::string& data) {
  std::string file(8, '\0');
  for (int i = 0; i < 8; ++i) file[i] = static_cast<char>((header.size() >> (8 * i)) & 0xff);
  return file + header + data;
}

TensorSpec Spec(const std::string& name, std::vector<int64_t> shape, DType dtype) {
  TensorSpec spec;
  spec.name = name;
  spec.shape = std::move(shape);
  spec.dtype = dtype;
  return spec;
}

TEST(Safetensors, EveryKindOfNumberIsRead) {
  const std::string file = File(
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"F16","shape":[3],"data_offsets":[4,10]},)"
      R"("c":{"dtype":"BOOL","shape":[2],"data_offsets":[10,12]},"d":{"dtype":"I32","shape":[],"data_offsets":[12,16]}})",
      std::string("\x80\x3f\x00\xc0", 4) + std::string("\x00\x3c\x01\x00\x00\xfc", 6) + std::string("\x01\x00", 2) +
          std::string("\xfe\xff\xff\xff", 4));
  std::vector<TensorSpec> tensors = {Spec("a", {2}, DType::kF32), Spec("b", {3}, DType::kF32), Spec("other", {2}, DType::kI64),
                                     Spec("d", {}, DType::kI64)};
  tensors[2].aliases = {"c"};
  ParameterStore store(tensors);
  ASSERT_TRUE(LoadSafetensors(file, tensors, &store).ok());
  EXPECT_THAT(store.F32(0), ElementsAre(1.0f, -2.0f));
  EXPECT_THAT(store.F32(1), ElementsAre(1.0f, 0x1p-24f, -INFINITY));
  EXPECT_THAT(store.I64(2), ElementsAre(1, 0));
  EXPECT_THAT(store.I64(3), ElementsAre(-2));
}

TEST(Safetensors, WhatDoesNotFitTheRunIsNamed) {
  const std::string file = File(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", std::string(4, '\0'));
  const auto load = [&](const std::vector<TensorSpec>& tensors) {
    ParameterStore store(tensors);
    return std::string(LoadSafetensors(file, tensors, &store).message());
  };
  EXPECT_THAT(load({Spec("a", {1}, DType::kF32), Spec("b", {1}, DType::kF32)}), HasSubstr("lacks 1 tensors of the run: b"));
  EXPECT_THAT(load({}), HasSubstr("no tensors named a"));
  EXPECT_THAT(load({Spec("a", {1, 1}, DType::kF32)}), HasSubstr("shape [1], the run's is [1, 1]"));
  EXPECT_THAT(load({Spec("a", {1}, DType::kI64)}), HasSubstr("needs integers"));
}

TEST(Safetensors, LengthsAreCheckedBeforeTheyAreBelieved) {
  const auto code = [](const std::string& file) { return ParseSafetensors(file).status().code(); };
  const std::string good = File(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", std::string(4, '\0'));
  ASSERT_EQ(code(good), absl::StatusCode::kOk);
  for (size_t n = 0; n < good.size(); ++n) EXPECT_EQ(code(good.substr(0, n)), absl::StatusCode::kInvalidArgument) << n;
  EXPECT_EQ(code(std::string(8, '\xff') + good), absl::StatusCode::kInvalidArgument);
  for (const char* header :
       {R"([])", R"({"a":1})", R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})",
        R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}})",
        R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", R"({"a":{"dtype":"X","shape":[1],"data_offsets":[0,4]}})",
        R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})",
        R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})"}) {
    EXPECT_EQ(code(File(header, std::string(4, '\0'))), absl::StatusCode::kInvalidArgument) << header;
  }
}

}  // namespace
}  // namespace ballast
