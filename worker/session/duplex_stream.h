// One Work stream to server 0, or any stream of its kind: writes one message at a time from a queue, tells what comes and how it ended.
// Attach (worker/attach.cc) uses the same class.
// Threads: Send and Close from any; the callbacks come from gRPC's threads, one at a time, and must only enqueue. The object lives until
// `on_done` has returned, whoever else holds it.
#ifndef BALLAST_WORKER_SESSION_DUPLEX_STREAM_H_
#define BALLAST_WORKER_SESSION_DUPLEX_STREAM_H_

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <deque>
#include <functional>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace ballast {

template <typename Up, typename Down>
class DuplexStream final : public grpc::ClientBidiReactor<Up, Down> {
 public:
  struct Callbacks {
    std::function<void(Down)> on_message;
    std::function<void(const grpc::Status&)> on_done;
  };
  // `open` calls the stub's async method with the context and the reactor.
  using Open = std::function<void(grpc::ClientContext*, grpc::ClientBidiReactor<Up, Down>*)>;

  static std::shared_ptr<DuplexStream> Start(const Open& open, Callbacks callbacks) {
    std::shared_ptr<DuplexStream> stream(new DuplexStream(std::move(callbacks)));
    stream->self_ = stream;
    open(&stream->context_, stream.get());
    stream->StartRead(&stream->down_);
    stream->AddHold();  // writes come from outside the reactions
    stream->StartCall();
    return stream;
  }

  void Send(Up message) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    if (closed_) return;
    out_.push_back(std::move(message));
    WriteNext();
  }

  // Sends what is queued, then half-closes. `now`: breaks the call instead.
  void Close(bool now) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    if (now) {
      context_.TryCancel();
      out_.clear();
    }
    closed_ = true;
    WriteNext();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return Close(/*now=*/true);  // the server ended it
    callbacks_.on_message(std::exchange(down_, Down()));
    this->StartRead(&down_);
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mu_);
    writing_ = false;
    if (!ok) {
      closed_ = true;
      out_.clear();
    }
    WriteNext();
  }

  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<DuplexStream> self = std::move(self_);
    callbacks_.on_done(status);
  }

 private:
  explicit DuplexStream(Callbacks callbacks) : callbacks_(std::move(callbacks)) {}

  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (writing_) return;
    if (!out_.empty()) {
      up_ = std::move(out_.front());
      out_.pop_front();
      writing_ = true;
      this->StartWrite(&up_);
    } else if (closed_ && !released_) {
      released_ = true;
      this->StartWritesDone();
      this->RemoveHold();
    }
  }

  const Callbacks callbacks_;
  grpc::ClientContext context_;
  Down down_;  // being read
  std::shared_ptr<DuplexStream> self_;

  absl::Mutex mu_;
  std::deque<Up> out_ ABSL_GUARDED_BY(mu_);
  Up up_ ABSL_GUARDED_BY(mu_);  // being written
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  bool released_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace ballast

#endif  // BALLAST_WORKER_SESSION_DUPLEX_STREAM_H_
