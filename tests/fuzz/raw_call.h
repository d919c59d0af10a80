// One call of any method over a real channel, its messages raw bytes: what a hostile peer can send. One thread, which also does the call's
// work: nothing moves but inside these functions. Waits end at their limit.
#ifndef BALLAST_TESTS_FUZZ_RAW_CALL_H_
#define BALLAST_TESTS_FUZZ_RAW_CALL_H_

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <string>

namespace ballast::fuzz {

using Milliseconds = std::chrono::milliseconds;
inline constexpr Milliseconds kPatience{30000};  // longer and the server hangs

class RawCall {
 public:
  RawCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method);
  ~RawCall();  // cancelled when it has not ended

  // False when the call has ended, or the message did not leave in time.
  bool Write(const std::string& message, Milliseconds limit = kPatience);
  void HalfClose();
  void Cancel() { context_.TryCancel(); }
  // The next message; nothing when the call has ended or none came in time.
  std::optional<std::string> Read(Milliseconds limit = kPatience);
  // True when the call has ended, with `status()`.
  bool End(Milliseconds limit = kPatience);
  bool ended() const { return ended_; }
  const grpc::Status& status() const { return status_; }
  static uint64_t made() { return made_; }  // by this process

 private:
  enum class Event : uintptr_t { kStart = 1, kRead, kWrite, kHalfClose, kFinish };
  using Clock = std::chrono::system_clock;

  static void* Tag(Event event) { return reinterpret_cast<void*>(event); }
  bool Next(Clock::time_point deadline);
  void OnRead(bool ok);

  inline static uint64_t made_ = 0;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  grpc::GenericStub stub_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  grpc::ByteBuffer incoming_;
  std::deque<std::string> received_;
  grpc::Status status_;
  int pending_ = 0;  // events that will come
  bool writing_ = false;
  bool half_closed_ = false;
  bool ended_ = false;
};

// A call with one request and at most one answer.
struct Answer {
  bool came = false;
  grpc::Status status;
  std::string message;
};
Answer Unary(const std::shared_ptr<grpc::Channel>& channel, const std::string& method, const std::string& request,
             Milliseconds limit = kPatience);

}  // namespace ballast::fuzz

#endif  // BALLAST_TESTS_FUZZ_RAW_CALL_H_
