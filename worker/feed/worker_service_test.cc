// What the gRPC side of a worker holds for a task that does not read its answers.
#include "worker/feed/worker_service.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "version.h"

namespace ballast {
namespace {

constexpr uint64_t kBatches = kAnswersMax;  // with two answers each

// One run, whose batches are trained as soon as they are there.
class Runs : public WorkerRuns {
 public:
  Runs() {
    RunSpec spec;
    spec.schema = "x:int64";
    spec.step_rows = spec.batch_rows = 1;
    queue_->Serve(std::make_shared<const RunSpec>(std::move(spec)));
    queue_->Listen([this] {
      absl::MutexLock lock(&mu_);
      changed_ = true;
    });
  }
  ~Runs() override {
    {
      absl::MutexLock lock(&mu_);
      stopped_ = changed_ = true;
    }
    session_.join();
  }

  absl::StatusOr<std::shared_ptr<FeedQueue>> QueueOf(const std::string&) override { return queue_; }
  uint64_t trained() const { return trained_; }

  absl::StatusOr<std::unique_ptr<ResidualReader>> ResidualsOf(const std::string&) override { return absl::NotFoundError("none"); }

 private:
  bool AwaitChange() {
    absl::MutexLock lock(&mu_);
    mu_.Await(absl::Condition(&changed_));
    changed_ = false;
    return !stopped_;
  }
  void Train() {
    while (AwaitChange()) {
      for (const Batch& batch : queue_->TakeUnclaimed(1024)) {
        queue_->LeaveQueue(batch.id);
        queue_->Acknowledge(batch.id, Outcome::kTrained, 1, "");
        ++trained_;
      }
    }
  }

  const std::shared_ptr<FeedQueue> queue_ = std::make_shared<FeedQueue>("run", 1 << 20);
  std::atomic<uint64_t> trained_{0};
  absl::Mutex mu_;
  bool changed_ ABSL_GUARDED_BY(mu_) = false;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  std::thread session_{[this] { Train(); }};
};

TEST(WorkerServiceTest, ATaskThatReadsTooLateIsCutOffAndItsAnswersAreDropped) {
  Runs runs;
  WorkerMetrics metrics;
  const auto service = MakeWorkerService(&runs, &metrics);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(service.get());
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  ASSERT_NE(server, nullptr);

  grpc::ChannelArguments arguments;  // 64 KiB of answers may be under way, never more
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 1 << 16);
  const auto stub =
      v1::Worker::NewStub(grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials(), arguments));
  grpc::ClientContext context;
  const auto feed = stub->Feed(&context);
  v1::FeedUp up;
  up.mutable_open()->mutable_hello()->set_protocol(kProtocol);
  up.mutable_open()->set_run("run");
  up.mutable_open()->set_schema("x:int64");
  ASSERT_TRUE(feed->Write(up));
  v1::FeedDown down;
  ASSERT_TRUE(feed->Read(&down) && down.has_welcome());

  v1::FeedUp::Rows& rows = *up.mutable_rows();
  rows.set_rows(1);
  v1::Column& column = *rows.add_columns();
  column.set_name("x");
  column.set_data(std::string(8, '\0'));
  for (uint64_t seq = 0; seq < kBatches; ++seq) {  // within its credit, which it does not read
    rows.set_seq(seq);
    ASSERT_TRUE(feed->Write(up));
    while (runs.trained() <= seq) std::this_thread::yield();
  }

  uint64_t answers = 0;
  while (feed->Read(&down)) ++answers;
  EXPECT_LT(answers, kAnswersMax);  // what waited is gone
  const grpc::Status status = feed->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_NE(status.error_message().find(std::to_string(kAnswersMax) + " answers unread"), std::string::npos) << status.error_message();
  server->Shutdown();
}

}  // namespace
}  // namespace ballast
