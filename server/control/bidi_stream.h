// A bidirectional stream of the Control service as a Peer: messages out are queued and written one at a time, messages in are handed on in
// order. What both directions may hold is bounded here.
//
//   OnMessage  -> one message, on a gRPC thread; the receiver calls Handled() when it has dealt with it
//   OnClosed   -> once, when the stream has ended, whoever ended it; no OnMessage follows
//
// Lifetime: Start() makes the stream keep itself alive until gRPC is done with it; others hold it as std::shared_ptr<Peer>.
// Threads: any.
#ifndef BALLAST_SERVER_CONTROL_BIDI_STREAM_H_
#define BALLAST_SERVER_CONTROL_BIDI_STREAM_H_

#include <grpcpp/grpcpp.h>

#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "core/status.h"
#include "proto/status.h"
#include "server/coordinator/peer.h"

namespace ballast {

inline constexpr int kStreamMessagesMax = 64;              // of one stream, taken and not handled yet; then it is not read
inline constexpr size_t kStreamQueueBytesMax = 64u << 20;  // of one stream, queued and not written; then it is closed

template <typename Up, typename Down>
class BidiStream : public grpc::ServerBidiReactor<Up, Down>, public Peer<Down> {
 public:
  // Call once, after the object is owned by a shared_ptr.
  void Start(std::shared_ptr<BidiStream> self) {
    absl::MutexLock lock(&mu_);
    self_ = std::move(self);
    ReadNext();
  }

  // ---- Peer ----
  void Send(Down message) override {
    absl::MutexLock lock(&mu_);
    if (closing_) return;
    const size_t bytes = message.ByteSizeLong();
    if (queue_bytes_ + bytes > kStreamQueueBytesMax) {
      DropQueue();
      closing_ = WithReason(absl::ResourceExhaustedError("the stream is read too slowly"), "SLOW_READER");
      return FinishWhenIdle();
    }
    queue_bytes_ += bytes;
    queue_.emplace_back(bytes, std::move(message));
    WriteNext();
  }

  void Close(const absl::Status& status) override {
    absl::MutexLock lock(&mu_);
    if (!closing_) closing_ = status;
    FinishWhenIdle();
  }

  void Handled() override {
    absl::MutexLock lock(&mu_);
    --unhandled_;
    ReadNext();
    EndWhenHandled();
  }

  // ---- reactor ----
  void OnReadDone(bool ok) final {
    std::shared_ptr<BidiStream> self;
    std::shared_ptr<const Up> message;
    {
      absl::MutexLock lock(&mu_);
      reading_ = false;
      if (!ok) {  // the far end is done, or gone
        end_of_input_ = true;
        return EndWhenHandled();
      }
      self = self_;
      message = std::exchange(incoming_, nullptr);
      ++unhandled_;
      ReadNext();
    }
    OnMessage(std::move(self), std::move(message));
  }

  void OnWriteDone(bool ok) final {
    absl::MutexLock lock(&mu_);
    writing_ = false;
    queue_bytes_ -= queue_.front().first;
    queue_.pop_front();
    if (!ok) {
      if (!closing_) closing_ = absl::CancelledError("the stream broke");
      DropQueue();
    }
    WriteNext();
    FinishWhenIdle();
  }

  void OnCancel() final {
    absl::MutexLock lock(&mu_);
    if (!closing_) closing_ = absl::CancelledError("the caller went away");
    DropQueue();
    FinishWhenIdle();
  }

  void OnDone() final {
    OnClosed();
    std::shared_ptr<BidiStream> self;  // before the lock: the last reference may go only after the lock is released
    absl::MutexLock lock(&mu_);
    self = std::exchange(self_, nullptr);
  }

 protected:
  virtual void OnMessage(std::shared_ptr<BidiStream> self, std::shared_ptr<const Up> message) = 0;
  virtual void OnClosed() = 0;

 private:
  void ReadNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (reading_ || end_of_input_ || closing_ || unhandled_ >= kStreamMessagesMax) return;
    reading_ = true;
    incoming_ = std::make_shared<Up>();
    this->StartRead(incoming_.get());
  }

  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (writing_ || queue_.empty()) return;
    writing_ = true;
    this->StartWrite(&queue_.front().second);
  }

  // All but the message that is being written.
  void DropQueue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    while (queue_.size() > (writing_ ? 1u : 0u)) {
      queue_bytes_ -= queue_.back().first;
      queue_.pop_back();
    }
  }

  // What the last messages are answered with, an error above all, goes out before the end.
  void EndWhenHandled() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (!end_of_input_ || unhandled_ > 0) return;
    if (!closing_) closing_ = absl::OkStatus();
    FinishWhenIdle();
  }

  void FinishWhenIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (!closing_ || finished_ || writing_ || !queue_.empty()) return;
    finished_ = true;
    this->Finish(ToGrpc(*closing_));
  }

  absl::Mutex mu_;  // gRPC never runs a reaction inside of a call, so its methods may be called with it held
  std::shared_ptr<BidiStream> self_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<Up> incoming_ ABSL_GUARDED_BY(mu_);
  std::deque<std::pair<size_t, Down>> queue_ ABSL_GUARDED_BY(mu_);  // with the bytes of each
  size_t queue_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  int unhandled_ ABSL_GUARDED_BY(mu_) = 0;
  bool reading_ ABSL_GUARDED_BY(mu_) = false;
  bool end_of_input_ ABSL_GUARDED_BY(mu_) = false;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<absl::Status> closing_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ballast

#endif  // BALLAST_SERVER_CONTROL_BIDI_STREAM_H_
