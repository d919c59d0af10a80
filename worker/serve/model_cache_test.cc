#include "worker/serve/model_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "absl/synchronization/notification.h"
#include "core/status.h"
#include "worker/serve/fake_model_source.h"

namespace ballast {
namespace {

class ModelCacheTest : public ::testing::Test {
 protected:
  ModelCache Make(uint64_t bytes_max) {
    ModelCacheOptions options;
    options.bytes_max = bytes_max;
    options.recheck = absl::Seconds(3);
    options.now = [this] { return now_; };
    return ModelCache(options, source_);
  }
  std::shared_ptr<FakeModelSource> source_ = std::make_shared<FakeModelSource>();
  absl::Time now_ = absl::UnixEpoch();
};

TEST_F(ModelCacheTest, NewestIsAskedAgainAfterAWhile) {
  ModelCache cache = Make(1 << 30);
  source_->SetVersions("mlp", {4, 2});
  EXPECT_EQ((*cache.Get("mlp", 0))->version(), 4u);
  source_->SetVersions("mlp", {9, 4, 2});
  now_ += absl::Seconds(3);
  EXPECT_EQ((*cache.Get("mlp", 0))->version(), 4u);
  now_ += absl::Seconds(1);
  EXPECT_EQ((*cache.Get("mlp", 0))->version(), 9u);
  EXPECT_EQ((*cache.Get("mlp", 2))->version(), 2u);
  EXPECT_EQ(source_->fetched(), 3);
}

TEST_F(ModelCacheTest, ARunThatIsMadeAgainIsAnotherModel) {
  ModelCache cache = Make(1 << 30);
  source_->SetVersions("mlp", {4});
  const auto before = *cache.Get("mlp", 4);
  source_->SetVersions("mlp", {4}, /*identity=*/2);
  now_ += absl::Seconds(4);
  EXPECT_NE(*cache.Get("mlp", 4), before) << "the run was removed, and another of its name has a checkpoint of the same version";
  EXPECT_EQ(source_->fetched(), 2);
}

TEST_F(ModelCacheTest, WhatIsMissingHasItsReason) {
  ModelCache cache = Make(1 << 30);
  source_->SetVersions("mlp", {});
  const auto reason = [&](const std::string& run, uint64_t version) { return ReasonOf(cache.Get(run, version).status()); };
  EXPECT_EQ(cache.Get("mlp", 0).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(reason("mlp", 0), "MODEL_NOT_READY");
  EXPECT_EQ(cache.Get("other", 0).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(reason("other", 0), "MODEL_NOT_FOUND");
  source_->SetVersions("gru", {7});
  EXPECT_EQ(reason("gru", 6), "MODEL_NOT_FOUND");
}

TEST_F(ModelCacheTest, LeastRecentlyUsedLeavesFirst) {
  ModelCache one = Make(1 << 30);
  source_->SetVersions("mlp", {3, 2, 1});
  const uint64_t bytes = (*one.Get("mlp", 1))->bytes();
  ModelCache cache = Make(2 * bytes);
  for (uint64_t version : {1, 2, 1, 3}) ASSERT_TRUE(cache.Get("mlp", version).ok());
  EXPECT_EQ(cache.bytes(), 2 * bytes);
  EXPECT_EQ(source_->fetched(), 4);
  ASSERT_TRUE(cache.Get("mlp", 1).ok());
  EXPECT_EQ(source_->fetched(), 4) << "1 was used after 2";
  ASSERT_TRUE(cache.Get("mlp", 2).ok());
  EXPECT_EQ(source_->fetched(), 5);
}

TEST_F(ModelCacheTest, OneLoadsAndTheOthersWait) {
  ModelCache cache = Make(1 << 30);
  source_->SetVersions("mlp", {1});
  absl::Notification fetching, go;
  source_->SetOnFetch([&] {
    fetching.Notify();
    go.WaitForNotification();
  });
  std::vector<std::shared_ptr<const ServedModel>> models(3);
  std::vector<std::thread> threads;
  for (auto& model : models) threads.emplace_back([&] { model = *cache.Get("mlp", 0); });
  fetching.WaitForNotification();
  go.Notify();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(source_->fetched(), 1);
  EXPECT_EQ(models[0], models[2]);
}

TEST_F(ModelCacheTest, ScoringGoesOnWhileTheServerIsAway) {
  ModelCache cache = Make(1 << 30);
  source_->SetVersions("mlp", {1});
  ASSERT_TRUE(cache.Get("mlp", 0).ok());
  source_->SetDown(true);
  now_ += absl::Seconds(60);
  EXPECT_TRUE(cache.Get("mlp", 0).ok());
  EXPECT_EQ(cache.Get("gru", 0).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ModelCacheTest, FailureIsNotRemembered) {
  ModelCache cache = Make(1 << 30);
  source_->SetVersions("undescribed", {1});
  EXPECT_EQ(cache.Get("undescribed", 0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(cache.Get("undescribed", 0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(source_->fetched(), 2);
  EXPECT_EQ(cache.bytes(), 0u);
}

}  // namespace
}  // namespace ballast
