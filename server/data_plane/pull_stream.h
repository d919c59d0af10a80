// One Pull stream: wants in, their chunks out, in the order of the wants. A want parks in its shard until the version is there.
// A reader that takes nothing for the reader timeout is cut off: it keeps the encoding of an old version in memory.
// Threads: the polling thread only; encodings come back through the inbox. Payloads are sent from the shared encoding, not copied.
#ifndef BALLAST_SERVER_DATA_PLANE_PULL_STREAM_H_
#define BALLAST_SERVER_DATA_PLANE_PULL_STREAM_H_

#include <grpcpp/alarm.h>
#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "core/record/chunk.h"
#include "server/data_plane/cq_inbox.h"
#include "server/data_plane/data_plane.h"

namespace ballast {

class PullStream final : public StreamBase {
 public:
  // Waits for the next stream; each stream asks for its successor.
  static void Accept(DataPlaneContext* plane);
  explicit PullStream(DataPlaneContext* plane) : StreamBase(plane) {}
  ~PullStream() override;
  void CancelAlarms() override;

 private:
  static constexpr size_t kWantsMax = 64;  // taken and not answered; then the stream is not read

  void OnAccepted(bool ok);
  void OnRead(bool ok);
  void OnRetry(bool ok);
  void OnWritten(bool ok);
  void OnWatched(bool ok);
  void OnCallDone(bool ok);  // the call ended, in whatever way
  void OnFinished(bool ok);

  void ReadNext();
  void AnswerNext();
  void Answer();                       // the first want
  absl::Status Ask(const Want& want);  // the shard for values, or the checkpoint reader
  void OnEncoding(uint64_t serial, absl::StatusOr<std::shared_ptr<const Encoding>> encoding);
  void SendChunk();
  void Watch();
  void Finish(const absl::Status& status);
  void FinishWhenIdle();
  void CancelParked();

  grpc::ServerContext context_;
  grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer> stream_{&context_};
  MemberEvent<PullStream> accepted_{this, &PullStream::OnAccepted}, read_{this, &PullStream::OnRead}, retried_{this, &PullStream::OnRetry},
      written_{this, &PullStream::OnWritten}, watched_{this, &PullStream::OnWatched}, call_done_{this, &PullStream::OnCallDone},
      finished_{this, &PullStream::OnFinished};

  grpc::Alarm retry_;
  grpc::Alarm watch_;  // set while something is being written, and up to a timeout longer
  bool watching_ = false;
  uint64_t chunks_sent_ = 0;  // whole
  uint64_t chunks_seen_ = 0;  // of chunks_sent_, when the watch began
  grpc::ByteBuffer incoming_;
  std::deque<Want> wants_;  // the first is being answered when `answering_`
  bool answering_ = false;
  uint64_t serial_ = 0;  // of the answer in progress: a late callback of an older one is ignored
  std::weak_ptr<OpenRun> parked_in_;
  uint64_t parked_id_ = 0;
  absl::Time asked_, ready_;
  std::shared_ptr<const Encoding> encoding_;
  uint64_t generation_ = 0;
  std::vector<size_t> pieces_;  // of the encoding that the want asks for
  size_t next_piece_ = 0;
  bool counted_ = false;
  bool reading_ = false;
  bool writing_ = false;
  bool input_ended_ = false;
  bool finishing_ = false;
  std::optional<absl::Status> closing_;
};

}  // namespace ballast

#endif  // BALLAST_SERVER_DATA_PLANE_PULL_STREAM_H_
