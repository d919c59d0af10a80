// One Push stream: chunks in, one PushReply for each contribution out, in the order in which they are ready.
// Threads: the polling thread only; results of a shard come back through the inbox.
#ifndef BALLAST_SERVER_DATA_PLANE_PUSH_STREAM_H_
#define BALLAST_SERVER_DATA_PLANE_PUSH_STREAM_H_

#include <grpcpp/alarm.h>
#include <grpcpp/grpcpp.h>

#include <deque>
#include <optional>
#include <set>
#include <string>

#include "absl/time/time.h"
#include "core/record/chunk.h"
#include "server/data_plane/chunk_split.h"
#include "server/data_plane/cq_inbox.h"
#include "server/data_plane/data_plane.h"

namespace ballast {

class PushStream final : public StreamBase {
 public:
  // Waits for the next stream; each stream asks for its successor.
  static void Accept(DataPlaneContext* plane);
  explicit PushStream(DataPlaneContext* plane) : StreamBase(plane) {}
  ~PushStream() override;

 private:
  static constexpr size_t kRepliesMax = 1024;  // not written yet; then the stream is not read

  void OnAccepted(bool ok);
  void OnRead(bool ok);
  void OnRetry(bool ok);
  void OnWritten(bool ok);
  void OnCallDone(bool ok);  // the call ended, in whatever way
  void OnFinished(bool ok);

  void ReadNext();
  void Offer();  // hands `offered_` to its shard, or holds it until the queue has room or the run is open
  void OfferAgain(int64_t after_ms);
  void OnResult(const std::string& run, const PushResult& result);
  void Refuse(const SplitChunk& chunk, absl::string_view error, std::string detail);
  void Reply(const PushReply& reply);
  void WriteNext();
  void Finish(const absl::Status& status);
  void FinishWhenAnswered();

  grpc::ServerContext context_;
  grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer> stream_{&context_};
  grpc::Alarm retry_;
  MemberEvent<PushStream> accepted_{this, &PushStream::OnAccepted}, read_{this, &PushStream::OnRead}, retried_{this, &PushStream::OnRetry},
      written_{this, &PushStream::OnWritten}, call_done_{this, &PushStream::OnCallDone}, finished_{this, &PushStream::OnFinished};

  grpc::ByteBuffer incoming_;
  std::optional<SplitChunk> offered_;
  absl::Time offered_at_;
  std::set<Uid> awaited_;       // handed over as a whole, result not there yet
  std::optional<Uid> refused_;  // newest one that was refused: its other chunks get no second result
  std::deque<std::string> replies_;
  bool counted_ = false;
  bool reading_ = false;
  bool writing_ = false;
  bool input_ended_ = false;
  bool finishing_ = false;
  std::optional<absl::Status> closing_;  // finish with this once nothing is being written
};

}  // namespace ballast

#endif  // BALLAST_SERVER_DATA_PLANE_PUSH_STREAM_H_
