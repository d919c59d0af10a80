// One bidirectional stream of raw messages to one server, on a completion queue: opened again whenever it breaks, with a back-off from
// 50 ms to 1 s. Base of the Push and the Pull stream of grpc_param_client.cc.
//
// Threads: every method with the client's lock held; the completion queue's thread takes it before OnEvent.
#ifndef BALLAST_WORKER_SESSION_RAW_STREAM_H_
#define BALLAST_WORKER_SESSION_RAW_STREAM_H_

#include <grpcpp/alarm.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "worker/session/cluster.h"

namespace ballast {

class RawStream {
 public:
  enum class Op : uint8_t { kStart, kRead, kWrite, kFinish, kAlarm };
  struct Tag {
    RawStream* stream;
    Op op;
  };

  RawStream(Cluster* cluster, uint32_t shard, std::string method, grpc::CompletionQueue* cq);
  virtual ~RawStream() = default;
  RawStream(const RawStream&) = delete;
  RawStream& operator=(const RawStream&) = delete;

  void Connect();  // no effect unless it is down and no alarm is set
  void Pump();     // there may be something to write
  void Restart();  // break it and open it again at once
  void Close();    // for good; idle() becomes true when the last operation came back
  bool idle() const { return pending_ == 0; }
  void OnEvent(Op op, bool ok);
  void PumpAfter(absl::Duration delay);  // once

 protected:
  virtual void OnOpen() = 0;  // nothing of what was written before counts
  virtual std::optional<grpc::ByteBuffer> NextMessage() = 0;
  virtual void OnMessage(grpc::ByteBuffer message) = 0;

  const uint32_t shard_;

 private:
  enum class State : uint8_t { kDown, kStarting, kUp, kBreaking, kClosed };

  Tag* Expect(Op op);
  void Break();
  void Finished();
  void Later(absl::Duration delay);

  Cluster* const cluster_;
  const std::string method_;
  grpc::CompletionQueue* const cq_;
  Tag tags_[5];

  State state_ = State::kDown;
  bool closing_ = false;
  bool at_once_ = false;  // Restart
  bool alarm_set_ = false;
  bool writing_ = false;
  int pending_ = 0;  // operations that will come back
  absl::Duration backoff_;
  absl::Time last_log_ = absl::InfinitePast();
  std::unique_ptr<grpc::GenericStub> stub_;
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  grpc::ByteBuffer read_;
  grpc::Status status_;
  grpc::Alarm alarm_;
};

}  // namespace ballast

#endif  // BALLAST_WORKER_SESSION_RAW_STREAM_H_
