#include "tests/fuzz/raw_call.h"

#include <vector>

#include "tests/fuzz/input.h"

namespace ballast::fuzz {
namespace {

std::string ToString(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  for (const grpc::Slice& s : slices) bytes.append(reinterpret_cast<const char*>(s.begin()), s.size());
  return bytes;
}

}  // namespace

RawCall::RawCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method) : stub_(channel) {
  call_ = stub_.PrepareCall(&context_, method, &queue_);
  ++made_;
  call_->StartCall(Tag(Event::kStart));
  ++pending_;
  FUZZ_CHECK(Next(Clock::now() + kPatience));
}

RawCall::~RawCall() {
  if (!ended_) {
    Cancel();
    FUZZ_CHECK(End());
  }
  while (pending_ > 0) FUZZ_CHECK(Next(Clock::now() + kPatience));
  queue_.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
  }
}

bool RawCall::Next(Clock::time_point deadline) {
  void* tag = nullptr;
  bool ok = false;
  if (pending_ == 0 || queue_.AsyncNext(&tag, &ok, deadline) != grpc::CompletionQueue::GOT_EVENT) return false;
  --pending_;
  switch (static_cast<Event>(reinterpret_cast<uintptr_t>(tag))) {
    case Event::kStart:
    case Event::kRead:
      OnRead(ok);
      break;
    case Event::kWrite:
      writing_ = false;
      break;
    case Event::kHalfClose:
      break;
    case Event::kFinish:
      ended_ = true;
  }
  return true;
}

// There is always one read under way, until none succeeds: then the status is asked for.
void RawCall::OnRead(bool ok) {
  if (incoming_.Valid()) received_.push_back(ToString(incoming_));
  incoming_.Clear();
  ++pending_;
  if (ok) {
    call_->Read(&incoming_, Tag(Event::kRead));
  } else {
    call_->Finish(&status_, Tag(Event::kFinish));
  }
}

bool RawCall::Write(const std::string& message, Milliseconds limit) {
  const auto deadline = Clock::now() + limit;
  while (writing_ && Next(deadline)) {
  }
  if (writing_ || ended_ || half_closed_) return false;
  const grpc::Slice slice(message);
  call_->Write(grpc::ByteBuffer(&slice, 1), Tag(Event::kWrite));
  writing_ = true;
  ++pending_;
  return true;
}

void RawCall::HalfClose() {
  const auto deadline = Clock::now() + kPatience;
  while (writing_ && Next(deadline)) {
  }
  if (writing_ || half_closed_) return;
  half_closed_ = true;
  call_->WritesDone(Tag(Event::kHalfClose));
  ++pending_;
}

std::optional<std::string> RawCall::Read(Milliseconds limit) {
  const auto deadline = Clock::now() + limit;
  while (received_.empty() && !ended_ && Next(deadline)) {
  }
  if (received_.empty()) return std::nullopt;
  std::string message = std::move(received_.front());
  received_.pop_front();
  return message;
}

bool RawCall::End(Milliseconds limit) {
  const auto deadline = Clock::now() + limit;
  while (!ended_ && Next(deadline)) {
  }
  return ended_;
}

Answer Unary(const std::shared_ptr<grpc::Channel>& channel, const std::string& method, const std::string& request, Milliseconds limit) {
  RawCall call(channel, method);
  Answer answer;
  call.Write(request);
  call.HalfClose();
  answer.came = call.End(limit);
  if (!answer.came) return answer;
  answer.status = call.status();
  answer.message = call.Read(Milliseconds(0)).value_or("");
  return answer;
}

}  // namespace ballast::fuzz
