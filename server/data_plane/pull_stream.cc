#include "server/data_plane/pull_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/codec/codec.h"
#include "core/record/wire.h"
#include "core/status.h"
#include "proto/status.h"
#include "server/data_plane/chunk_split.h"
#include "server/log.h"
#include "steady.h"

namespace ballast {
namespace {

constexpr int64_t kUnknownRetryMs = 10;

// Which pieces hold a block of a tensor that is asked for; all when none is named.
std::vector<size_t> Select(const Encoding& encoding, const std::vector<uint32_t>& tensors) {
  std::vector<size_t> pieces;
  for (size_t i = 0; i < encoding.pieces.size(); ++i) {
    const std::vector<uint32_t>& in_piece = encoding.pieces[i].tensors;
    const auto asked = [&](uint32_t tensor) { return std::find(in_piece.begin(), in_piece.end(), tensor) != in_piece.end(); };
    if (tensors.empty() || std::any_of(tensors.begin(), tensors.end(), asked)) pieces.push_back(i);
  }
  return pieces;
}

// A slice over the payload that keeps its encoding alive.
grpc::Slice PayloadSlice(const std::shared_ptr<const Encoding>& encoding, const std::string& payload) {
  auto* const keep = new std::shared_ptr<const Encoding>(encoding);
  return grpc::Slice(
      const_cast<char*>(payload.data()), payload.size(), [](void* kept) { delete static_cast<std::shared_ptr<const Encoding>*>(kept); },
      keep);
}

}  // namespace

void PullStream::Accept(DataPlaneContext* plane) {
  auto stream = std::make_shared<PullStream>(plane);
  plane->streams.insert(stream);
  stream->OperationStarted();
  stream->context_.AsyncNotifyWhenDone(&stream->call_done_);
  plane->service.RequestPull(&stream->context_, &stream->stream_, plane->cq, plane->cq, &stream->accepted_);
}

PullStream::~PullStream() {
  if (counted_) plane_->metrics->AddPullStreams(-1);
}

void PullStream::OnAccepted(bool ok) {
  if (ok) {
    OperationStarted();  // call_done_: comes only for calls that began
    counted_ = true;
    plane_->metrics->AddPullStreams(1);
    Accept(plane_);
    ReadNext();
  }
  OperationDone();
}

void PullStream::ReadNext() {
  if (reading_ || input_ended_ || closing_ || wants_.size() >= kWantsMax) return;
  reading_ = true;
  OperationStarted();
  stream_.Read(&incoming_, &read_);
}

void PullStream::OnRead(bool ok) {
  reading_ = false;
  if (!ok) {
    input_ended_ = true;
    FinishWhenIdle();
    return OperationDone();
  }
  plane_->metrics->PullMessage(incoming_.Length());
  auto want = ParseWant(Flatten(incoming_));
  incoming_.Clear();
  if (want.ok()) {
    wants_.push_back(*std::move(want));
    AnswerNext();
    ReadNext();
  } else {
    Finish(want.status());
  }
  OperationDone();
}

void PullStream::AnswerNext() {
  if (answering_ || closing_) return;
  if (wants_.empty()) return FinishWhenIdle();
  answering_ = true;
  ++serial_;
  asked_ = SteadyNow();
  Answer();
}

void PullStream::Answer() {
  if (plane_->runs->Find(wants_.front().run) == nullptr && SteadyNow() - asked_ < kUnknownRunWait) {
    OperationStarted();
    retry_.Set(plane_->cq, gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(kUnknownRetryMs, GPR_TIMESPAN)), &retried_);
    return;
  }
  if (absl::Status asked = Ask(wants_.front()); !asked.ok()) Finish(asked);
}

void PullStream::OnRetry(bool) {
  if (!closing_) Answer();
  OperationDone();
}

absl::Status PullStream::Ask(const Want& want) {
  const std::shared_ptr<OpenRun> run = plane_->runs->Find(want.run);
  if (run == nullptr) {
    return WithReason(absl::NotFoundError(absl::StrCat("server ", plane_->server, " holds no run \"", want.run, "\"")), "NO_RUN",
                      {{"run", want.run}});
  }
  // Readers may name the generation that a rollback began: the bytes are those of the run that was created in run->generation all the same.
  if (want.generation != 0 && want.generation < run->generation) {
    return WithReason(
        absl::FailedPreconditionError(absl::StrCat("run \"", want.run, "\" is in generation ", run->generation, ", not ", want.generation)),
        "STALE_GENERATION");
  }
  if (!IsFloatCodec(want.codec)) return absl::InvalidArgumentError("codec: not one for F32 values");
  generation_ = run->generation;
  auto answer = [inbox = plane_->inbox, self = weak_from_this(),
                 serial = serial_](absl::StatusOr<std::shared_ptr<const Encoding>> encoding) {
    inbox->Post([self, serial, encoding = std::move(encoding)] {
      if (const auto stream = self.lock()) static_cast<PullStream*>(stream.get())->OnEncoding(serial, encoding);
    });
  };
  if (want.manifest == 0) {
    parked_in_ = run;
    parked_id_ = run->shard->Pull(want.min_version, want.codec, answer);
    return absl::OkStatus();
  }
  plane_->checkpoint_reader->Post([runs = plane_->runs, want, answer] {
    const std::shared_ptr<OpenRun> found = runs->Find(want.run);
    answer(found == nullptr ? absl::NotFoundError("the run was removed")
                            : found->shard->ReadCheckpoint(want.manifest, want.slots, want.tensors));
  });
  return absl::OkStatus();
}

void PullStream::OnEncoding(uint64_t serial, absl::StatusOr<std::shared_ptr<const Encoding>> encoding) {
  if (serial != serial_ || !answering_ || encoding_ != nullptr || closing_) return;
  parked_id_ = 0;
  if (!encoding.ok()) return Finish(encoding.status());
  if (*encoding == nullptr) return Finish(absl::AbortedError("the shard closed"));
  ready_ = SteadyNow();
  plane_->metrics->PullWaited(absl::ToDoubleSeconds(ready_ - asked_));
  encoding_ = *std::move(encoding);
  pieces_ = Select(*encoding_, wants_.front().tensors);
  next_piece_ = 0;
  SendChunk();
}

void PullStream::SendChunk() {
  static const Encoding::Piece* const kNothing = new Encoding::Piece;  // no block of this server is asked for: one empty chunk says so
  const Encoding::Piece& piece = pieces_.empty() ? *kNothing : encoding_->pieces[pieces_[next_piece_]];
  const Want& want = wants_.front();
  std::string head;
  WireWriter out(&head);
  out.Bytes(1, want.run);
  out.Varint(2, generation_);
  out.Varint(4, want.number);
  out.Varint(5, encoding_->version);
  out.Varint(6, next_piece_);
  ++next_piece_;
  out.Bool(7, next_piece_ >= pieces_.size());
  head += piece.head_blocks;
  out.LengthPrefix(15, piece.payload.size());

  const auto codec_bytes = CodecBytes(piece.head_blocks);
  for (size_t codec = 1; codec < codec_bytes.size(); ++codec) {
    if (codec_bytes[codec] > 0) plane_->metrics->PullBytes(static_cast<Codec>(codec), codec_bytes[codec]);
  }
  plane_->metrics->PullSent(head.size() + piece.payload.size());
  const grpc::Slice slices[] = {grpc::Slice(head), PayloadSlice(encoding_, piece.payload)};
  writing_ = true;
  OperationStarted();
  stream_.Write(grpc::ByteBuffer(slices, 2), &written_);
  if (!watching_) Watch();
}

void PullStream::CancelAlarms() {
  if (watching_) watch_.Cancel();
}

void PullStream::Watch() {
  watching_ = true;
  chunks_seen_ = chunks_sent_;
  OperationStarted();
  const int64_t ms = absl::ToInt64Milliseconds(plane_->reader_timeout);
  watch_.Set(plane_->cq, gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(ms, GPR_TIMESPAN)), &watched_);
}

void PullStream::OnWatched(bool ok) {
  watching_ = false;
  if (ok && writing_ && !finishing_) {
    if (chunks_sent_ == chunks_seen_) {
      LogWarning(
          "a reader takes nothing; its Pull stream is closed",
          {{"run", wants_.empty() ? "" : wants_.front().run}, {"peer", context_.peer()}, {"version", absl::StrCat(encoding_->version)}});
      plane_->metrics->SlowReader();
      closing_ = WithReason(absl::ResourceExhaustedError("the stream is read too slowly"), "SLOW_READER");
      context_.TryCancel();  // brings the write back
    } else {
      Watch();
    }
  }
  OperationDone();
}

void PullStream::OnWritten(bool ok) {
  writing_ = false;
  ++chunks_sent_;
  if (!ok && !closing_) closing_ = absl::CancelledError("the stream broke");
  if (closing_) {
    FinishWhenIdle();
  } else if (next_piece_ < pieces_.size()) {
    SendChunk();
  } else {
    plane_->metrics->PullDone(absl::ToDoubleSeconds(SteadyNow() - ready_));
    encoding_ = nullptr;
    wants_.pop_front();
    answering_ = false;
    AnswerNext();
    ReadNext();
  }
  OperationDone();
}

void PullStream::OnCallDone(bool) {
  if (context_.IsCancelled()) Finish(absl::CancelledError("the caller went away"));
  OperationDone();
}

void PullStream::CancelParked() {
  if (parked_id_ == 0) return;
  if (const std::shared_ptr<OpenRun> run = parked_in_.lock()) run->shard->CancelPull(parked_id_);
  parked_id_ = 0;
}

void PullStream::Finish(const absl::Status& status) {
  if (!closing_) closing_ = status;
  CancelParked();
  FinishWhenIdle();
}

void PullStream::FinishWhenIdle() {
  if (finishing_ || writing_) return;
  if (!closing_ && !(input_ended_ && wants_.empty())) return;
  finishing_ = true;
  if (watching_) watch_.Cancel();
  OperationStarted();
  stream_.Finish(ToGrpc(closing_.value_or(absl::OkStatus())), &finished_);
}

void PullStream::OnFinished(bool) { OperationDone(); }

}  // namespace ballast
