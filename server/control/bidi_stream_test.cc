// What a stream of the Control service holds for a peer that does not read, and takes from one that does not stop.
#include "server/control/bidi_stream.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "ballast/v1/control.grpc.pb.h"

namespace ballast {
namespace {

constexpr size_t kAnswerBytes = 1 << 20;

// Work as a stream that answers each message with a mebibyte, or never finishes one.
class Service : public v1::Control::CallbackService {
 public:
  explicit Service(bool answers) : answers_(answers) {}

  grpc::ServerBidiReactor<v1::WorkUp, v1::WorkDown>* Work(grpc::CallbackServerContext*) override {
    auto stream = std::make_shared<Stream>(this);
    stream->Start(stream);
    return stream.get();
  }

  int taken() {
    absl::MutexLock lock(&mu_);
    return taken_;
  }
  void Await(int taken) {
    absl::MutexLock lock(&mu_);
    const auto there = [&] {
      mu_.AssertHeld();
      return taken_ >= taken;
    };
    mu_.Await(absl::Condition(&there));
  }
  void AwaitClosed() {
    absl::MutexLock lock(&mu_);
    mu_.Await(absl::Condition(&closed_));
  }

 private:
  class Stream : public BidiStream<v1::WorkUp, v1::WorkDown> {
   public:
    explicit Stream(Service* service) : service_(service) {}

   private:
    void OnMessage(std::shared_ptr<BidiStream> self, std::shared_ptr<const v1::WorkUp>) override {
      {
        absl::MutexLock lock(&service_->mu_);
        ++service_->taken_;
      }
      if (!service_->answers_) return;
      v1::WorkDown answer;
      answer.mutable_close()->set_reason(std::string(kAnswerBytes, 'x'));
      self->Send(std::move(answer));
      self->Handled();
    }
    void OnClosed() override {
      absl::MutexLock lock(&service_->mu_);
      service_->closed_ = true;
    }
    Service* const service_;
  };

  const bool answers_;
  absl::Mutex mu_;
  int taken_ ABSL_GUARDED_BY(mu_) = 0;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
};

class BidiStreamTest : public testing::Test {
 protected:
  void Serve(bool answers) {
    service_ = std::make_unique<Service>(answers);
    server_ = grpc::ServerBuilder().RegisterService(service_.get()).BuildAndStart();
    stub_ = v1::Control::NewStub(server_->InProcessChannel({}));
    stream_ = stub_->Work(&context_);
  }

  std::unique_ptr<Service> service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::Control::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::WorkUp, v1::WorkDown>> stream_;
};

TEST_F(BidiStreamTest, APeerThatReadsNothingIsClosedAndItsQueueDropped) {
  Serve(/*answers=*/true);
  std::thread writer([&] {
    v1::WorkUp up;
    up.mutable_leave();
    while (stream_->Write(up)) {  // until the stream is closed
    }
  });
  service_->Await(static_cast<int>(kStreamQueueBytesMax / kAnswerBytes) + 2);  // one answer more is being written
  v1::WorkDown down;
  size_t read = 0;
  while (stream_->Read(&down)) ++read;
  writer.join();
  const grpc::Status status = stream_->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  EXPECT_NE(status.error_message().find("read too slowly"), std::string::npos) << status.error_message();
  EXPECT_LT(read, kStreamQueueBytesMax / kAnswerBytes);
}

TEST_F(BidiStreamTest, MessagesThatAreNotHandledStopTheReading) {
  Serve(/*answers=*/false);
  std::thread writer([&] {
    v1::WorkUp up;
    up.mutable_skip()->set_reason(std::string(1024, 'x'));
    while (stream_->Write(up)) {  // until the call is cancelled
    }
  });
  service_->Await(kStreamMessagesMax);
  context_.TryCancel();
  writer.join();
  stream_->Finish();
  service_->AwaitClosed();
  EXPECT_EQ(service_->taken(), kStreamMessagesMax);
}

}  // namespace
}  // namespace ballast
