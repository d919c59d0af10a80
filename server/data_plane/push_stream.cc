#include "server/data_plane/push_stream.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/status.h"
#include "proto/status.h"
#include "steady.h"

namespace ballast {
namespace {

constexpr int64_t kRetryMs = 2;  // the owner thread takes about this long for a chunk of 1 MiB
constexpr int64_t kUnknownRetryMs = 10;

}  // namespace

void PushStream::Accept(DataPlaneContext* plane) {
  auto stream = std::make_shared<PushStream>(plane);
  plane->streams.insert(stream);
  stream->OperationStarted();
  stream->context_.AsyncNotifyWhenDone(&stream->call_done_);
  plane->service.RequestPush(&stream->context_, &stream->stream_, plane->cq, plane->cq, &stream->accepted_);
}

PushStream::~PushStream() {
  if (counted_) plane_->metrics->AddPushStreams(-1);
}

void PushStream::OnAccepted(bool ok) {
  if (ok) {
    OperationStarted();  // call_done_: comes only for calls that began
    counted_ = true;
    plane_->metrics->AddPushStreams(1);
    Accept(plane_);
    ReadNext();
  }
  OperationDone();
}

void PushStream::ReadNext() {
  if (reading_ || input_ended_ || closing_ || offered_ || replies_.size() >= kRepliesMax) return;
  reading_ = true;
  OperationStarted();
  stream_.Read(&incoming_, &read_);
}

void PushStream::OnRead(bool ok) {
  reading_ = false;
  if (!ok) {
    input_ended_ = true;
    FinishWhenAnswered();
    return OperationDone();
  }
  plane_->metrics->PushMessage(incoming_.Length());
  auto split = Split(incoming_);
  incoming_.Clear();
  if (!split.ok()) {
    Finish(split.status());
    return OperationDone();
  }
  for (size_t codec = 1; codec < split->codec_bytes.size(); ++codec) {
    if (split->codec_bytes[codec] > 0) plane_->metrics->PushBytes(static_cast<Codec>(codec), split->codec_bytes[codec]);
  }
  offered_ = *std::move(split);
  offered_at_ = SteadyNow();
  Offer();
  ReadNext();
  OperationDone();
}

void PushStream::Offer() {
  SplitChunk& chunk = *offered_;
  const std::shared_ptr<OpenRun> run = plane_->runs->Find(chunk.run);
  if (run == nullptr) {
    if (SteadyNow() - offered_at_ < kUnknownRunWait) return OfferAgain(kUnknownRetryMs);
    Refuse(chunk, "NO_RUN", absl::StrCat("server ", plane_->server, " holds no run \"", chunk.run, "\""));
    return offered_.reset();
  }
  if (chunk.generation != run->generation) {
    Refuse(chunk, "STALE_GENERATION", absl::StrCat("the run is in generation ", run->generation, ", the chunk says ", chunk.generation));
    return offered_.reset();
  }
  const Uid uid = chunk.chunk.uid;
  const bool last = chunk.chunk.last;
  const absl::Status taken = run->shard->Push(std::move(chunk.chunk),
                                              [inbox = plane_->inbox, self = weak_from_this(), name = chunk.run](const PushResult& result) {
                                                inbox->Post([self, name, result] {
                                                  if (const auto stream = self.lock())
                                                    static_cast<PushStream*>(stream.get())->OnResult(name, result);
                                                });
                                              });
  if (absl::IsResourceExhausted(taken)) {  // `chunk` is as it was
    plane_->metrics->PushHeldBack();
    return OfferAgain(kRetryMs);
  }
  if (!taken.ok()) {
    Refuse(chunk, "STOPPED", std::string(taken.message()));
  } else if (last && refused_ != uid) {
    awaited_.insert(uid);
  }
  offered_.reset();
}

void PushStream::OfferAgain(int64_t after_ms) {
  OperationStarted();
  retry_.Set(plane_->cq, gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(after_ms, GPR_TIMESPAN)), &retried_);
}

void PushStream::OnRetry(bool) {
  if (!closing_) {
    Offer();
    ReadNext();
    FinishWhenAnswered();
  }
  OperationDone();
}

void PushStream::OnResult(const std::string& run, const PushResult& result) {
  awaited_.erase(result.uid);
  if (!result.error.empty()) refused_ = result.uid;
  PushReply reply;
  reply.run = run;
  reply.session = result.uid.session;
  reply.uid = result.uid.counter;
  reply.incarnation = result.receipt.incarnation;
  reply.checksum = result.receipt.checksum;
  reply.norm2 = result.receipt.norm2;
  reply.shard = result.receipt.shard;
  reply.proof = result.receipt.proof;
  reply.error = result.error;
  reply.detail = result.detail;
  Reply(reply);
}

// One reply for the contribution, when its last chunk came: the sender hears of it once.
void PushStream::Refuse(const SplitChunk& chunk, absl::string_view error, std::string detail) {
  if (!chunk.chunk.last) return;
  PushReply reply;
  reply.run = chunk.run;
  reply.session = chunk.chunk.uid.session;
  reply.uid = chunk.chunk.uid.counter;
  reply.shard = plane_->server;
  reply.error = std::string(error);
  reply.detail = std::move(detail);
  Reply(reply);
}

void PushStream::Reply(const PushReply& reply) {
  if (closing_) return;
  replies_.push_back(EncodePushReply(reply));
  WriteNext();
}

void PushStream::WriteNext() {
  if (writing_ || replies_.empty() || finishing_) return;
  writing_ = true;
  OperationStarted();
  plane_->metrics->PushReplySent(replies_.front().size());
  const grpc::Slice slice(replies_.front());
  replies_.pop_front();
  stream_.Write(grpc::ByteBuffer(&slice, 1), &written_);
}

void PushStream::OnWritten(bool ok) {
  writing_ = false;
  if (!ok && !closing_) closing_ = absl::CancelledError("the stream broke");
  if (closing_) replies_.clear();
  WriteNext();
  ReadNext();
  FinishWhenAnswered();
  OperationDone();
}

void PushStream::OnCallDone(bool) {
  if (context_.IsCancelled()) Finish(absl::CancelledError("the caller went away"));
  OperationDone();
}

void PushStream::Finish(const absl::Status& status) {
  if (!closing_) closing_ = status;
  replies_.clear();
  FinishWhenAnswered();
}

// In order: the sender has half-closed and every contribution has its reply. Otherwise: as soon as nothing is being written.
void PushStream::FinishWhenAnswered() {
  if (finishing_ || writing_) return;
  const bool answered = input_ended_ && awaited_.empty() && replies_.empty() && !offered_;
  if (!closing_ && !answered) return;
  finishing_ = true;
  OperationStarted();
  stream_.Finish(ToGrpc(closing_.value_or(absl::OkStatus())), &finished_);
}

void PushStream::OnFinished(bool) { OperationDone(); }

}  // namespace ballast
