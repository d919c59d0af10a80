// Expected bytes are worked out by hand from the format's description; tests/e2e loads an export with the safetensors package itself.
#include "tools/ballastctl/safetensors_writer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "tests/support/fresh_dir.h"

namespace ballast::ctl {
namespace {

std::string Read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::string Floats(std::vector<float> v) { return {reinterpret_cast<const char*>(v.data()), v.size() * 4}; }
std::string Longs(std::vector<int64_t> v) { return {reinterpret_cast<const char*>(v.data()), v.size() * 8}; }

struct Parsed {
  nlohmann::json header;
  std::string data;
};
Parsed Parse(const std::string& bytes) {
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  return {nlohmann::json::parse(bytes.substr(8, length)), bytes.substr(8 + length)};
}

std::string Dir(const char* name) {
  static const std::string folder = FreshDir();
  return folder + "/" + name;
}

TEST(SafetensorsWriter, TensorsFollowOneAnotherWithoutHoles) {
  const std::string w = Floats({1.5f, -2.0f}), n = Longs({7});
  auto files = WriteSafetensors(Dir("one"), {{"w", "float32", {2}, &w}, {"n", "int64", {}, &n}}, {{"format", "pt"}});
  ASSERT_TRUE(files.ok()) << files.status();
  ASSERT_EQ(files->size(), 1u);
  const Parsed parsed = Parse(Read(files->front()));
  EXPECT_EQ(parsed.header["w"]["data_offsets"], nlohmann::json({0, 8}));
  EXPECT_EQ(parsed.header["n"]["data_offsets"], nlohmann::json({8, 16}));
  EXPECT_EQ(parsed.header["n"]["shape"], nlohmann::json::array());
  EXPECT_EQ(parsed.header["__metadata__"]["format"], "pt");
  EXPECT_EQ(parsed.data, w + n);
}

TEST(SafetensorsWriter, ValuesGoBackToTheirSourceDtype) {
  const std::string f = Floats({1.0f}), b = Longs({5});
  auto files = WriteSafetensors(Dir("dtypes"), {{"h", "bfloat16", {1}, &f}, {"f16", "float16", {1}, &f}, {"flag", "bool", {1}, &b}}, {});
  ASSERT_TRUE(files.ok()) << files.status();
  const Parsed parsed = Parse(Read(files->front()));
  EXPECT_EQ(parsed.header["h"]["dtype"], "BF16");
  EXPECT_EQ(parsed.data,
            std::string("\x80\x3f", 2) + std::string("\x00\x3c", 2) + std::string("\x01", 1));  // 1.0 in bf16, 1.0 in fp16, true
}

TEST(SafetensorsWriter, LargeStateIsSplitAndIndexed) {
  const std::string w = Floats({1, 2, 3, 4});
  auto files = WriteSafetensors(Dir("split"), {{"a", "float32", {4}, &w}, {"b", "float32", {4}, &w}}, {}, /*file_bytes_max=*/16);
  ASSERT_TRUE(files.ok()) << files.status();
  ASSERT_EQ(files->size(), 3u);
  const auto index = nlohmann::json::parse(Read(files->back()));
  EXPECT_EQ(index["weight_map"]["b"], "model-00002-of-00002.safetensors");
  EXPECT_EQ(index["metadata"]["total_size"], 32);
}

TEST(SafetensorsWriter, UnknownDtypeIsNamed) {
  const std::string w = Floats({1});
  auto files = WriteSafetensors(Dir("bad"), {{"w", "complex64", {1}, &w}}, {});
  ASSERT_FALSE(files.ok());
  EXPECT_NE(files.status().message().find("complex64"), std::string::npos);
}

TEST(SafetensorsWriter, NamesThatTheFormatCannotHoldAreRefused) {
  const std::string w = Floats({1});
  EXPECT_FALSE(WriteSafetensors(Dir("metadata"), {{"__metadata__", "float32", {1}, &w}}, {}).ok());
  EXPECT_FALSE(WriteSafetensors(Dir("twice"), {{"w", "float32", {1}, &w}, {"w", "float32", {1}, &w}}, {}).ok());
}

TEST(SafetensorsWriter, HalvesAreRoundedToNearestEven) {
  const std::string f = Floats({65519.0f, 65520.0f, 1.0f + 0x1p-11f, 1.0f + 0x1.8p-10f, -0x1p-24f, 0x1p-25f, -HUGE_VALF});
  auto files = WriteSafetensors(Dir("halves"), {{"w", "float16", {7}, &f}}, {});
  ASSERT_TRUE(files.ok()) << files.status();
  const std::string data = Parse(Read(files->front())).data;
  std::vector<uint16_t> halves(7);
  ASSERT_EQ(data.size(), 2 * halves.size());
  std::memcpy(halves.data(), data.data(), data.size());
  EXPECT_EQ(halves, (std::vector<uint16_t>{0x7bff, 0x7c00, 0x3c00, 0x3c02, 0x8001, 0x0000, 0xfc00}));
}

}  // namespace
}  // namespace ballast::ctl
