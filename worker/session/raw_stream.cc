#include "worker/session/raw_stream.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "steady.h"
#include "worker/log.h"

namespace ballast {
namespace {

constexpr absl::Duration kBackoffMin = absl::Milliseconds(50);
constexpr absl::Duration kBackoffMax = absl::Seconds(1);
constexpr absl::Duration kLogEvery = absl::Seconds(5);

}  // namespace

RawStream::RawStream(Cluster* cluster, uint32_t shard, std::string method, grpc::CompletionQueue* cq)
    : shard_(shard),
      cluster_(cluster),
      method_(std::move(method)),
      cq_(cq),
      tags_{{this, Op::kStart}, {this, Op::kRead}, {this, Op::kWrite}, {this, Op::kFinish}, {this, Op::kAlarm}},
      backoff_(kBackoffMin) {}

RawStream::Tag* RawStream::Expect(Op op) {
  ++pending_;
  return &tags_[static_cast<size_t>(op)];
}

void RawStream::Connect() {
  if (state_ != State::kDown || alarm_set_ || closing_) return;
  auto channel = cluster_->Shard(shard_);
  if (!channel.ok()) return Later(kBackoffMax);
  stub_ = std::make_unique<grpc::GenericStub>(*channel);
  context_ = std::make_unique<grpc::ClientContext>();
  call_ = stub_->PrepareCall(context_.get(), method_, cq_);
  state_ = State::kStarting;
  call_->StartCall(Expect(Op::kStart));
}

void RawStream::Pump() {
  Connect();
  if (state_ != State::kUp || writing_) return;
  std::optional<grpc::ByteBuffer> message = NextMessage();
  if (!message.has_value()) return;
  writing_ = true;
  call_->Write(*message, Expect(Op::kWrite));
}

void RawStream::PumpAfter(absl::Duration delay) {
  if (!alarm_set_ && !closing_) Later(delay);
}

void RawStream::Later(absl::Duration delay) {
  alarm_set_ = true;
  alarm_.Set(cq_, std::chrono::system_clock::now() + absl::ToChronoNanoseconds(delay), Expect(Op::kAlarm));
}

void RawStream::Restart() {
  at_once_ = true;
  if (state_ == State::kStarting || state_ == State::kUp) {
    context_->TryCancel();
  } else {
    Connect();
  }
}

void RawStream::Close() {
  closing_ = true;
  if (context_ != nullptr) context_->TryCancel();
  if (alarm_set_) alarm_.Cancel();
  if (state_ == State::kDown) state_ = State::kClosed;
}

void RawStream::OnEvent(Op op, bool ok) {
  --pending_;
  switch (op) {
    case Op::kAlarm:
      alarm_set_ = false;
      return Pump();
    case Op::kFinish:
      return Finished();
    case Op::kStart:
      if (!ok) return Break();
      state_ = State::kUp;
      OnOpen();
      call_->Read(&read_, Expect(Op::kRead));
      return Pump();
    case Op::kRead:
      if (!ok || state_ != State::kUp) return Break();
      backoff_ = kBackoffMin;
      OnMessage(std::exchange(read_, grpc::ByteBuffer()));
      call_->Read(&read_, Expect(Op::kRead));
      return Pump();
    case Op::kWrite:
      writing_ = false;
      if (!ok || state_ != State::kUp) return Break();
      return Pump();
  }
}

// The call can be finished only when its other operations have come back; cancelling brings them.
void RawStream::Break() {
  if (state_ != State::kBreaking) {
    state_ = State::kBreaking;
    context_->TryCancel();
  }
  if (pending_ - (alarm_set_ ? 1 : 0) > 0) return;
  call_->Finish(&status_, Expect(Op::kFinish));
}

void RawStream::Finished() {
  call_.reset();
  context_.reset();
  writing_ = false;
  state_ = closing_ ? State::kClosed : State::kDown;
  if (closing_) return;
  if (std::exchange(at_once_, false)) return Pump();
  const absl::Time now = SteadyNow();
  if (now - last_log_ >= kLogEvery) {
    last_log_ = now;
    LogWarning("a stream to a server broke; it is opened again", {{"server", absl::StrCat(shard_)},
                                                                  {"address", cluster_->AddressOf(shard_)},
                                                                  {"method", method_},
                                                                  {"error", status_.error_message()}});
  }
  if (!alarm_set_) Later(backoff_);
  backoff_ = std::min(2 * backoff_, kBackoffMax);
}

}  // namespace ballast
