// The contract of store.h, on both implementations.
#include "server/storage/store.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/storage/memory_store.h"
#include "server/storage/rocks_store.h"
#include "tests/support/fresh_dir.h"

namespace ballast {
namespace {

namespace fs = std::filesystem;

using Entries = std::vector<std::pair<std::string, std::string>>;

class StoreTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    dir_ = FreshDir() + "/store";
    Open();
  }
  void Open() {
    if (!GetParam()) {
      if (store_ == nullptr) store_ = std::make_unique<MemoryStore>();
      return;
    }
    store_.reset();
    auto store = OpenRocksStore(dir_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  Entries All(const std::string& prefix) {
    Entries out;
    EXPECT_TRUE(store_->Scan(prefix, [&](absl::string_view k, absl::string_view v) { return out.emplace_back(k, v), true; }).ok());
    return out;
  }
  void AddBulk(const Entries& entries) {
    auto bulk = store_->NewBulk();
    ASSERT_TRUE(bulk.ok()) << bulk.status();
    for (const auto& [key, value] : entries) ASSERT_TRUE((*bulk)->Add(key, value).ok());
    const absl::Status s = (*bulk)->Finish();
    ASSERT_TRUE(s.ok()) << s;
  }
  std::string dir_;
  std::unique_ptr<Store> store_;
};

TEST_P(StoreTest, RecordsAndBlocksSurviveReopen) {
  ASSERT_TRUE(store_->Put("run/a", "1").ok());
  AddBulk({{"ckpt/a/1", std::string(1 << 20, 'x')}, {"ckpt/a/2", "y"}});
  ASSERT_TRUE(store_->Put("ckpt/a/meta", "m").ok());
  Open();
  EXPECT_EQ(store_->Get("run/a").value(), "1");
  EXPECT_EQ(store_->Get("ckpt/a/1").value(), std::string(1 << 20, 'x'));
  EXPECT_EQ(All("ckpt/a/"), (Entries{{"ckpt/a/1", std::string(1 << 20, 'x')}, {"ckpt/a/2", "y"}, {"ckpt/a/meta", "m"}}));
  EXPECT_EQ(store_->Get("run/b").status().code(), absl::StatusCode::kNotFound);
}

TEST_P(StoreTest, DeletePrefixTakesRecordsAndBlocksAndNothingElse) {
  AddBulk({{"ckpt/a/1", "x"}, {"ckpt/a/2", "y"}});
  AddBulk({{"ckpt/ab/1", "z"}});
  ASSERT_TRUE(store_->Put("ckpt/a/meta", "m").ok());
  ASSERT_TRUE(store_->DeletePrefix("ckpt/a/").ok());
  EXPECT_EQ(All("ckpt/"), (Entries{{"ckpt/ab/1", "z"}}));
  Open();
  EXPECT_EQ(All("ckpt/"), (Entries{{"ckpt/ab/1", "z"}}));
  ASSERT_TRUE(store_->Delete("ckpt/ab/1").ok());
  EXPECT_TRUE(All("").empty());
}

TEST_P(StoreTest, BlocksWrittenAgainReplaceTheOldOnes) {
  AddBulk({{"ckpt/a/1", "x"}});
  AddBulk({{"ckpt/a/1", "y"}});
  EXPECT_EQ(store_->Get("ckpt/a/1").value(), "y");
}

TEST_P(StoreTest, UnfinishedBulkLeavesNothing) {
  {
    auto bulk = store_->NewBulk();
    ASSERT_TRUE(bulk.ok());
    ASSERT_TRUE((*bulk)->Add("ckpt/a/1", "x").ok());
  }
  EXPECT_TRUE(All("").empty());
  Open();
  EXPECT_TRUE(All("").empty());
}

// Like a full disk: the file may not grow.
TEST(RocksStoreTest, FailedWriteIsToldAndNothingGoesOn) {
  const std::string dir = FreshDir() + "/store";
  std::vector<absl::Status> told;
  auto store = OpenRocksStore(dir, [&](const absl::Status& failed) { told.push_back(failed); });
  ASSERT_TRUE(store.ok()) << store.status();
  ASSERT_TRUE((*store)->Put("a", "1").ok());
  signal(SIGXFSZ, SIG_IGN);
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
  const rlimit small{64u << 10, limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status failed = (*store)->Put("b", std::string(1 << 20, 'x'));
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  EXPECT_FALSE(failed.ok());
  EXPECT_EQ(told, (std::vector<absl::Status>{failed}));
  EXPECT_FALSE((*store)->Put("c", "1").ok());  // there is room again, but what is on disk is not known
  store->reset();
  auto again = OpenRocksStore(dir);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ((*again)->Get("a").value(), "1");
}

// RocksDB alone opens with less than was synced, and says nothing, when ...
class DamagedStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = FreshDir() + "/store";
    auto store = *OpenRocksStore(dir_);
    ASSERT_TRUE(store->Put("run/a", "1").ok());
    ASSERT_TRUE(store->Put("run/b", "2").ok());
  }
  std::string Wal() const {
    for (const auto& entry : fs::directory_iterator(dir_ + "/db")) {
      if (entry.path().extension() == ".log") return entry.path();
    }
    return "";
  }
  void ExpectRefused() {
    const auto refused = OpenRocksStore(dir_);
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kDataLoss) << refused.status();
  }
  std::string dir_;
};

TEST_F(DamagedStoreTest, LengthInTheLogIsTooLarge) {
  std::fstream file(Wal(), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(5);  // checksum 4, length 2, type 1
  file.put('\x7f');
  file.close();
  ExpectRefused();
}

TEST_F(DamagedStoreTest, LogIsZeros) {
  const std::string wal = Wal();
  const uint64_t bytes = fs::file_size(wal);
  std::ofstream(wal, std::ios::binary) << std::string(bytes, '\0');
  ExpectRefused();
}

TEST_F(DamagedStoreTest, LogEndsEarly) {
  fs::resize_file(Wal(), fs::file_size(Wal()) / 2);
  ExpectRefused();
}

TEST_F(DamagedStoreTest, CurrentIsMissing) {
  fs::remove(dir_ + "/db/CURRENT");
  ExpectRefused();
}

TEST_F(DamagedStoreTest, EverythingIsMissing) {
  fs::remove_all(dir_);
  ExpectRefused();
}

INSTANTIATE_TEST_SUITE_P(Implementations, StoreTest, ::testing::Bool(), [](const auto& info) { return info.param ? "Rocks" : "Memory"; });

}  // namespace
}  // namespace ballast
