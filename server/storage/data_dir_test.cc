#include "server/storage/data_dir.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/support/fresh_dir.h"

namespace ballast {
namespace {

TEST(DataDirTest, IncarnationGrowsAtEachOpen) {
  const std::string dir = FreshDir();
  for (uint64_t life = 1; life <= 3; ++life) {
    auto data = DataDir::Open(dir, {"c", 1, 2});
    ASSERT_TRUE(data.ok()) << data.status();
    EXPECT_EQ((*data)->incarnation(), life);
  }
}

TEST(DataDirTest, LostIncarnationOfAUsedDirectoryIsRefused) {
  const std::string dir = FreshDir();
  const std::string store = (*DataDir::Open(dir, {"c", 0, 1}))->StoreDir();
  std::filesystem::remove(dir + "/INCARNATION");
  EXPECT_TRUE(DataDir::Open(dir, {"c", 0, 1}).ok());  // nothing was ever promised here
  std::filesystem::create_directory(store);
  std::filesystem::remove(dir + "/INCARNATION");
  EXPECT_EQ(DataDir::Open(dir, {"c", 0, 1}).status().code(), absl::StatusCode::kDataLoss);
}

TEST(DataDirTest, FlippedIncarnationIsRefused) {
  const std::string dir = FreshDir();
  const std::string path = dir + "/INCARNATION";
  ASSERT_TRUE(DataDir::Open(dir, {"c", 0, 1}).ok());
  const std::string good = ReadFile(path).value();
  for (size_t bit = 0; bit < 8 * good.size(); ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << bit % 8));
    std::ofstream(path, std::ios::binary) << bad;
    EXPECT_EQ(DataDir::Open(dir, {"c", 0, 1}).status().code(), absl::StatusCode::kDataLoss) << bad;
  }
  for (size_t size = 0; size < good.size(); ++size) {
    std::ofstream(path, std::ios::binary) << good.substr(0, size);
    EXPECT_EQ(DataDir::Open(dir, {"c", 0, 1}).status().code(), absl::StatusCode::kDataLoss) << size;
  }
  std::ofstream(path, std::ios::binary) << "41\n";  // as the first release wrote it
  EXPECT_EQ((*DataDir::Open(dir, {"c", 0, 1}))->incarnation(), 42u);
}

TEST(DataDirTest, SecondProcessIsRefused) {
  const std::string dir = FreshDir();
  auto first = DataDir::Open(dir, {"c", 0, 1});
  ASSERT_TRUE(first.ok());
  const auto second = DataDir::Open(dir, {"c", 0, 1});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(second.status().message().find("in use"), std::string::npos) << second.status();
  first->reset();
  EXPECT_TRUE(DataDir::Open(dir, {"c", 0, 1}).ok());
}

TEST(DataDirTest, DirectoryOfAnotherServerIsRefused) {
  const std::string dir = FreshDir();
  ASSERT_TRUE(DataDir::Open(dir, {"c", 0, 2}).ok());
  for (const ServerIdentity& other : {ServerIdentity{"c", 1, 2}, ServerIdentity{"c", 0, 3}, ServerIdentity{"d", 0, 2}}) {
    const auto refused = DataDir::Open(dir, other);
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_NE(refused.status().message().find("belongs to another server"), std::string::npos) << refused.status();
  }
  EXPECT_TRUE(DataDir::Open(dir, {"c", 0, 2}).ok());
}

TEST(DataDirTest, DirectoryOfAnotherFormatIsRefused) {
  const std::string dir = FreshDir();
  ASSERT_TRUE(DataDir::Open(dir, {"c", 0, 2}).ok());
  std::ofstream(dir + "/IDENTITY") << "format=99\ncluster=c\nserver=0\nservers=2\n";
  const auto refused = DataDir::Open(dir, {"c", 0, 2});
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(refused.status().message().find("format"), std::string::npos) << refused.status();
}

TEST(DataDirTest, DirectoryWithForeignFilesIsRefused) {
  const std::string dir = FreshDir();
  std::ofstream(dir + "/thesis.tex") << "x";
  EXPECT_EQ(DataDir::Open(dir, {"c", 0, 1}).status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace ballast
