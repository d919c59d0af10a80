#include "server/data_plane/data_plane.h"

#include <pthread.h>

#include "server/data_plane/pull_stream.h"
#include "server/data_plane/push_stream.h"

namespace ballast {

DataPlane::DataPlane(RunTable* runs, DataPlaneMetrics* metrics, uint32_t server, absl::Duration reader_timeout)
    : checkpoint_reader_("ckpt-reader") {
  context_.runs = runs;
  context_.metrics = metrics;
  context_.checkpoint_reader = &checkpoint_reader_;
  context_.server = server;
  context_.reader_timeout = reader_timeout;
}

DataPlane::~DataPlane() { Stop(); }

void DataPlane::Register(grpc::ServerBuilder& builder) {
  builder.RegisterService(&context_.service);
  cq_ = builder.AddCompletionQueue();
  inbox_ = std::make_unique<CqInbox>(cq_.get());
  context_.cq = cq_.get();
  context_.inbox = inbox_.get();
}

void DataPlane::Start() {
  thread_ = std::thread([this] { Poll(); });
}

void DataPlane::Poll() {
  pthread_setname_np(pthread_self(), "data-plane");
  inbox_->SetPollingThread(std::this_thread::get_id());
  PushStream::Accept(&context_);
  PullStream::Accept(&context_);
  void* tag = nullptr;
  bool ok = false;
  while (!stopping_ && cq_->Next(&tag, &ok)) {
    static_cast<CqEvent*>(tag)->Done(ok);
    inbox_->Run();
  }
  // No stream hears of the events that are left: it would start another operation, which a queue that is shut down does not survive.
  for (const auto& stream : context_.streams) stream->CancelAlarms();
  inbox_->Close();
  cq_->Shutdown();
  while (cq_->Next(&tag, &ok)) continue;
}

void DataPlane::Stop() {
  checkpoint_reader_.Stop();
  if (cq_ == nullptr || stopped_) return;
  stopped_ = true;
  if (thread_.joinable()) {
    inbox_->Post([this] { stopping_ = true; });
    thread_.join();
  } else {  // the gRPC server did not start
    inbox_->Close();
    cq_->Shutdown();
    void* tag = nullptr;
    for (bool ok = false; cq_->Next(&tag, &ok);) continue;
  }
  context_.streams.clear();
}

}  // namespace ballast
