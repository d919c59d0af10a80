// The real client against a Shard service in this process that can refuse, break its streams and park pulls.
#include "worker/session/grpc_param_client.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "ballast/v1/shard.grpc.pb.h"
#include "core/codec/codec.h"
#include "core/layout/layout.h"
#include "core/record/hash.h"
#include "worker/session/encoder.h"

namespace ballast {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(30);  // only a failing test waits so long

class FakeShard final : public v1::Shard::Service {
 public:
  explicit FakeShard(const std::vector<float>* values) : values_(values) {}

  grpc::Status Push(grpc::ServerContext*, grpc::ServerReaderWriter<v1::PushReply, v1::Chunk>* stream) override {
    v1::Chunk chunk;
    while (stream->Read(&chunk)) {
      v1::PushReply reply;
      {
        absl::MutexLock lock(&mu_);
        if (break_pushes_ > 0) {
          --break_pushes_;
          return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server restarts");
        }
        chunks_[chunk.uid()].push_back(chunk);
        if (!chunk.last()) continue;
        reply.set_session(chunk.session());
        reply.set_uid(chunk.uid());
        reply.set_incarnation(3);
        if (!errors_.empty()) {
          reply.set_error(errors_.front());
          errors_.pop_front();
          chunks_.erase(chunk.uid());
        }
      }
      stream->Write(reply);
    }
    return grpc::Status::OK;
  }

  grpc::Status Pull(grpc::ServerContext* context, grpc::ServerReaderWriter<v1::Chunk, v1::Want>* stream) override {
    v1::Want want;
    while (stream->Read(&want)) {
      {
        absl::MutexLock lock(&mu_);
        while (version_ < want.min_version() && !context->IsCancelled()) changed_.WaitWithTimeout(&mu_, absl::Milliseconds(20));
        if (context->IsCancelled()) return grpc::Status::CANCELLED;
        if (break_pulls_ > 0) {
          --break_pulls_;
          return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server restarts");
        }
      }
      stream->Write(Answer(want));
    }
    return grpc::Status::OK;
  }

  v1::Chunk Answer(const v1::Want& want) {
    absl::MutexLock lock(&mu_);
    v1::Chunk chunk;
    chunk.set_run(want.run());
    chunk.set_uid(want.number());
    chunk.set_version(version_);
    chunk.set_last(true);
    const std::string bytes(reinterpret_cast<const char*>(values_->data()), values_->size() * sizeof(float));
    v1::BlockHead* block = chunk.add_blocks();
    block->set_count(static_cast<uint32_t>(values_->size()));
    block->set_codec(v1::CODEC_FP32);
    block->set_bytes(static_cast<uint32_t>(bytes.size()));
    block->set_checksum(Hash64(bytes) + (corrupt_pulls_ > 0 ? 1 : 0));
    corrupt_pulls_ -= corrupt_pulls_ > 0 ? 1 : 0;
    chunk.set_payload(bytes);
    return chunk;
  }

  void BreakPushes(int n) {
    absl::MutexLock lock(&mu_);
    break_pushes_ = n;
  }
  void BreakPulls(int cut_off, int damaged) {
    absl::MutexLock lock(&mu_);
    break_pulls_ = cut_off;
    corrupt_pulls_ = damaged;
  }
  void Refuse(std::deque<std::string> errors) {  // one push each
    absl::MutexLock lock(&mu_);
    errors_ = std::move(errors);
  }
  void Publish(uint64_t version) {
    absl::MutexLock lock(&mu_);
    version_ = version;
    changed_.SignalAll();
  }

  absl::Mutex mu_;
  absl::CondVar changed_;
  int break_pushes_ ABSL_GUARDED_BY(mu_) = 0, break_pulls_ ABSL_GUARDED_BY(mu_) = 0, corrupt_pulls_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<std::string> errors_ ABSL_GUARDED_BY(mu_);
  std::map<uint64_t, std::vector<v1::Chunk>> chunks_ ABSL_GUARDED_BY(mu_);  // by uid
  uint64_t version_ ABSL_GUARDED_BY(mu_) = 1;
  const std::vector<float>* const values_;
};

class GrpcParamClientTest : public testing::Test, public ParamEvents {
 protected:
  void SetUp() override {
    spec_ = std::make_shared<RunSpec>();
    spec_->name = "run";
    TensorSpec tensor;
    tensor.name = "w";
    tensor.shape = {1000};
    spec_->tensors = {tensor};
    for (size_t i = 0; i < values_.size(); ++i) values_[i] = static_cast<float>(i);
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&shard_);
    server_ = builder.BuildAndStart();
    cluster_ = std::make_unique<Cluster>(absl::StrCat("127.0.0.1:", port_));
    google::protobuf::RepeatedPtrField<v1::ServerInfo> servers;
    servers.Add()->set_address(cluster_->control_address());
    cluster_->Update(servers);
    client_ = MakeGrpcParamClient({spec_, 1, {{0, 0, 1000, 0}}, 1}, cluster_.get(), this, nullptr);
  }
  void TearDown() override {
    client_ = nullptr;
    server_->Shutdown(std::chrono::system_clock::now());
  }

  void OnPushReply(const PushReply& reply) override {
    absl::MutexLock lock(&mu_);
    replies_.push_back(reply);
  }
  void OnPulled(uint32_t, uint64_t version) override {
    absl::MutexLock lock(&mu_);
    pulled_.push_back(version);
  }
  // What has come, once it is `n`; less when patience ends.
  std::vector<PushReply> Replies(size_t n) {
    absl::MutexLock lock(&mu_);
    const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return replies_.size() >= n; };
    mu_.AwaitWithTimeout(absl::Condition(&there), kPatience);
    return replies_;
  }
  std::vector<uint64_t> Pulled(size_t n) {
    absl::MutexLock lock(&mu_);
    const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return pulled_.size() >= n; };
    mu_.AwaitWithTimeout(absl::Condition(&there), kPatience);
    return pulled_;
  }

  std::shared_ptr<Outgoing> Contribution(uint64_t counter) {
    Residuals residuals(*spec_, layout_);
    auto contribution = std::make_shared<Outgoing>(Uid{9, counter}, 1);
    ContributionEncoder encoder(spec_.get(), 1, layout_, 1, &residuals, nullptr,
                                [this](const std::shared_ptr<Outgoing>& c, uint32_t shard) { client_->Push(c, shard); });
    encoder.Begin(contribution, false);
    encoder.OnF32(0, values_);
    encoder.Finish();
    return contribution;
  }

  std::shared_ptr<RunSpec> spec_;
  const Layout layout_ = {{0, 0, 1000, 0}};
  std::vector<float> values_ = std::vector<float>(1000);
  FakeShard shard_{&values_};
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Cluster> cluster_;
  absl::Mutex mu_;
  std::vector<PushReply> replies_ ABSL_GUARDED_BY(mu_);
  std::vector<uint64_t> pulled_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<ParamClient> client_;
};

TEST_F(GrpcParamClientTest, APushGetsItsReceiptAndItsBytesArriveUnchanged) {
  Contribution(1);
  const std::vector<PushReply> replies = Replies(1);
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].incarnation, 3u);
  absl::MutexLock lock(&shard_.mu_);
  ASSERT_EQ(shard_.chunks_[1].size(), 1u);
  EXPECT_EQ(shard_.chunks_[1][0].payload(), std::string(reinterpret_cast<const char*>(values_.data()), 4000));
}

TEST_F(GrpcParamClientTest, ABrokenStreamIsOpenedAgainAndEverythingWithoutAReceiptIsPushedAgain) {
  shard_.BreakPushes(3);
  Contribution(1);
  Contribution(2);
  const std::vector<PushReply> replies = Replies(2);
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_EQ(replies[0].uid, 1u);
  EXPECT_EQ(replies[1].uid, 2u);
}

TEST_F(GrpcParamClientTest, ARunThatIsNotOpenYetIsWaitedFor) {
  shard_.Refuse({"NO_RUN", "NO_RUN"});
  Contribution(1);
  const std::vector<PushReply> replies = Replies(1);
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].error, "");
}

TEST_F(GrpcParamClientTest, AFinalRefusalIsReportedOnce) {
  shard_.Refuse({"NONFINITE"});
  Contribution(1);
  const std::vector<PushReply> replies = Replies(1);
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].error, "NONFINITE");
}

TEST_F(GrpcParamClientTest, APullFillsTheStoreOnceTheVersionIsThere) {
  auto store = std::make_shared<ParameterStore>(spec_->tensors);
  client_->Pull(0, 5, store);
  shard_.Publish(4);
  shard_.Publish(5);
  const std::vector<uint64_t> pulled = Pulled(1);
  ASSERT_EQ(pulled.size(), 1u);
  EXPECT_EQ(pulled[0], 5u);
  EXPECT_EQ(std::vector<float>(store->F32(0).begin(), store->F32(0).end()), values_);
  EXPECT_EQ(store.use_count(), 1) << "nobody else writes into it any more";
}

TEST_F(GrpcParamClientTest, APullThatIsCutOffOrDamagedIsAskedAgain) {
  shard_.BreakPulls(2, 1);
  auto store = std::make_shared<ParameterStore>(spec_->tensors);
  client_->Pull(0, 1, store);
  const std::vector<uint64_t> pulled = Pulled(1);
  ASSERT_EQ(pulled.size(), 1u);
  EXPECT_EQ(std::vector<float>(store->F32(0).begin(), store->F32(0).end()), values_);
}

TEST_F(GrpcParamClientTest, AWantTakesThePlaceOfAParkedOne) {
  auto store = std::make_shared<ParameterStore>(spec_->tensors);
  client_->Pull(0, 1000, store);
  client_->Pull(0, 1, store);
  const std::vector<uint64_t> pulled = Pulled(1);
  ASSERT_EQ(pulled.size(), 1u);
  EXPECT_EQ(pulled[0], 1u);
}

TEST_F(GrpcParamClientTest, ClosingWithAParkedPullAndAnUnansweredPushEnds) {
  client_->Pull(0, 1000, std::make_shared<ParameterStore>(spec_->tensors));
  shard_.Refuse(std::deque<std::string>(1000, "NO_RUN"));
  Contribution(1);
}

}  // namespace
}  // namespace ballast
