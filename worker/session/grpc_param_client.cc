#include "worker/session/grpc_param_client.h"

#include <grpcpp/completion_queue.h>
#include <grpcpp/support/slice.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "core/record/chunk.h"
#include "steady.h"
#include "worker/log.h"
#include "worker/session/chunk_values.h"
#include "worker/session/raw_stream.h"

namespace ballast {
namespace {

constexpr absl::Duration kPushAgainDelay = absl::Milliseconds(200);
constexpr int kPushTriesMax = 50;  // of one contribution at one server that keeps refusing it

using Payload = std::shared_ptr<const std::string>;

// The transport holds a reference until the bytes have left.
grpc::Slice SharedSlice(const Payload& payload) {
  return grpc::Slice(
      const_cast<char*>(payload->data()), payload->size(), [](void* p) { delete static_cast<Payload*>(p); }, new Payload(payload));
}

grpc::ByteBuffer Buffer(const Outgoing::Chunk& chunk) {
  const grpc::Slice slices[] = {grpc::Slice(chunk.head), SharedSlice(chunk.payload)};
  return grpc::ByteBuffer(slices, chunk.payload->empty() ? 1 : 2);
}

// A message as one range of bytes; `slice` owns them.
absl::string_view Flat(const grpc::ByteBuffer& message, grpc::Slice* slice) {
  if (!message.TrySingleSlice(slice).ok() && !message.DumpToSingleSlice(slice).ok()) *slice = grpc::Slice();
  return {reinterpret_cast<const char*>(slice->begin()), slice->size()};
}

class PushStream final : public RawStream {
 public:
  PushStream(Cluster* cluster, uint32_t shard, grpc::CompletionQueue* cq, ParamEvents* events, WorkerMetrics* metrics)
      : RawStream(cluster, shard, "/ballast.v1.Shard/Push", cq), events_(events), metrics_(metrics) {}

  void Push(const std::shared_ptr<Outgoing>& contribution, bool again) {
    const auto item = Find(contribution->uid());
    if (item == items_.end()) {
      items_.push_back({contribution});
    } else if (again) {
      item->next = 0;
    }
    Pump();
  }

  void Forget(const Uid& uid) {
    const auto item = Find(uid);
    if (item != items_.end()) items_.erase(item);
  }

 private:
  struct Item {
    std::shared_ptr<Outgoing> contribution;
    size_t next = 0;  // chunk
    int tries = 0;
    absl::Time not_before = absl::InfinitePast();
  };

  std::deque<Item>::iterator Find(const Uid& uid) {
    return std::find_if(items_.begin(), items_.end(), [&](const Item& item) { return item.contribution->uid() == uid; });
  }

  void OnOpen() override {
    for (Item& item : items_) item.next = 0;
  }

  std::optional<grpc::ByteBuffer> NextMessage() override {
    const absl::Time now = SteadyNow();
    for (Item& item : items_) {
      if (item.not_before > now) {
        PumpAfter(item.not_before - now);
        continue;
      }
      if (item.next >= item.contribution->size(shard_)) continue;
      const Outgoing::Chunk chunk = item.contribution->at(shard_, item.next++);
      if (metrics_ != nullptr) metrics_->Sent(WireMethod::kPush, chunk.head.size() + chunk.payload->size());
      return Buffer(chunk);
    }
    return std::nullopt;
  }

  void OnMessage(grpc::ByteBuffer message) override {
    grpc::Slice slice;
    const absl::string_view bytes = Flat(message, &slice);
    if (metrics_ != nullptr) metrics_->Received(WireMethod::kPush, bytes.size());
    const absl::StatusOr<PushReply> reply = ParsePushReply(bytes);
    if (!reply.ok()) {
      LogError("a push reply does not parse", {{"server", absl::StrCat(shard_)}, {"error", std::string(reply.status().message())}});
      return Restart();
    }
    const auto item = Find({reply->session, reply->uid});
    if (item == items_.end()) return;
    if (Passing(reply->error) && ++item->tries <= kPushTriesMax) {
      item->next = 0;
      item->not_before = SteadyNow() + kPushAgainDelay;
      return;
    }
    items_.erase(item);
    events_->OnPushReply(*reply);
  }

  // NONFINITE, TOO_LARGE, STALE_GENERATION, STOPPED: the same bytes would be refused again.
  static bool Passing(const std::string& error) {
    return error == "NO_RUN" || error == "OUT_OF_ORDER" || error == "BAD_CHECKSUM" || error == "UNAVAILABLE" ||
           error == "RESOURCE_EXHAUSTED";
  }

  ParamEvents* const events_;
  WorkerMetrics* const metrics_;
  std::deque<Item> items_;  // without a receipt, in the order of their encoding
};

class PullStream final : public RawStream {
 public:
  PullStream(Cluster* cluster, uint32_t shard, grpc::CompletionQueue* cq, const GrpcParamClientOptions* options, ParamEvents* events,
             WorkerMetrics* metrics)
      : RawStream(cluster, shard, "/ballast.v1.Shard/Pull", cq), options_(options), events_(events), metrics_(metrics) {
    for (const Block& block : options->layout) blocks_ += block.shard == shard ? 1 : 0;
  }

  void Pull(uint64_t min_version, std::shared_ptr<ParameterStore> into) {
    const bool outstanding = store_ != nullptr && sent_;
    number_++;
    min_version_ = min_version;
    store_ = std::move(into);
    sent_ = false;
    received_ = 0;
    if (outstanding) {
      Restart();  // wants are answered in order: the older one could park for ever
    } else {
      Pump();
    }
  }

 private:
  void OnOpen() override {
    sent_ = false;
    received_ = 0;
  }

  std::optional<grpc::ByteBuffer> NextMessage() override {
    if (store_ == nullptr || sent_) return std::nullopt;
    sent_ = true;
    Want want;
    want.run = options_->spec->name;
    want.generation = options_->generation;
    want.number = number_;
    want.min_version = min_version_;
    want.codec = options_->spec->pull_codec;
    const std::string bytes = EncodeWant(want);
    if (metrics_ != nullptr) metrics_->Sent(WireMethod::kPull, bytes.size());
    const grpc::Slice slice(bytes);
    return grpc::ByteBuffer(&slice, 1);
  }

  void OnMessage(grpc::ByteBuffer message) override {
    grpc::Slice slice;
    const absl::string_view bytes = Flat(message, &slice);
    if (metrics_ != nullptr) metrics_->Received(WireMethod::kPull, bytes.size());
    const absl::Status status = Take(bytes);
    if (status.ok()) return;
    LogError("values from a server are not usable; they are pulled again",
             {{"server", absl::StrCat(shard_)}, {"error", std::string(status.message())}});
    Restart();
  }

  absl::Status Take(absl::string_view bytes) {
    const absl::StatusOr<ChunkView> chunk = ParseChunk(bytes);
    if (!chunk.ok()) return chunk.status();
    if (store_ == nullptr || chunk->head.uid != number_) return absl::OkStatus();  // of a want that was replaced
    if (absl::Status status = ReadValues(*chunk, options_->spec->tensors, store_.get()); !status.ok()) return status;
    received_ += chunk->head.blocks.size();
    if (metrics_ != nullptr) {
      for (const BlockHead& block : chunk->head.blocks) metrics_->PullBytes(block.codec, block.bytes);
    }
    if (!chunk->head.last) return absl::OkStatus();
    if (received_ != blocks_ || chunk->head.version < min_version_) {
      return absl::DataLossError(
          absl::StrCat(received_, " of ", blocks_, " blocks of version ", chunk->head.version, ", asked for ", min_version_));
    }
    store_ = nullptr;  // before the event: the session may reuse the store as soon as nobody else holds it
    events_->OnPulled(shard_, chunk->head.version);
    return absl::OkStatus();
  }

  const GrpcParamClientOptions* const options_;
  ParamEvents* const events_;
  WorkerMetrics* const metrics_;
  size_t blocks_ = 0;  // that this shard owns
  uint64_t number_ = 0;
  uint64_t min_version_ = 0;
  std::shared_ptr<ParameterStore> store_;  // null: nothing is wanted
  bool sent_ = false;
  size_t received_ = 0;
};

class GrpcParamClient final : public ParamClient {
 public:
  GrpcParamClient(GrpcParamClientOptions options, Cluster* cluster, ParamEvents* events, WorkerMetrics* metrics)
      : options_(std::move(options)) {
    for (uint32_t shard = 0; shard < options_.shards; ++shard) {
      push_.push_back(std::make_unique<PushStream>(cluster, shard, &cq_, events, metrics));
      pull_.push_back(std::make_unique<PullStream>(cluster, shard, &cq_, &options_, events, metrics));
    }
    thread_ = std::thread([this] { Loop(); });
  }

  ~GrpcParamClient() override {
    {
      absl::MutexLock lock(&mu_);
      closing_ = true;
      for (const auto& stream : push_) stream->Close();
      for (const auto& stream : pull_) stream->Close();
      ShutdownIfIdle();
    }
    thread_.join();
  }

  void Push(const std::shared_ptr<Outgoing>& contribution, uint32_t shard) override {
    absl::MutexLock lock(&mu_);
    push_[shard]->Push(contribution, /*again=*/false);
  }

  void PushAgain(const std::shared_ptr<Outgoing>& contribution, uint32_t shard) override {
    absl::MutexLock lock(&mu_);
    push_[shard]->Push(contribution, /*again=*/true);
  }

  void Forget(const Uid& uid) override {
    absl::MutexLock lock(&mu_);
    for (const auto& stream : push_) stream->Forget(uid);
  }

  void Pull(uint32_t shard, uint64_t min_version, std::shared_ptr<ParameterStore> into) override {
    absl::MutexLock lock(&mu_);
    pull_[shard]->Pull(min_version, std::move(into));
  }

 private:
  void Loop() {
    void* tag = nullptr;
    bool ok = false;
    while (cq_.Next(&tag, &ok)) {
      const RawStream::Tag* event = static_cast<RawStream::Tag*>(tag);
      absl::MutexLock lock(&mu_);
      event->stream->OnEvent(event->op, ok);
      if (closing_) ShutdownIfIdle();
    }
  }

  void ShutdownIfIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const auto idle = [](const auto& stream) { return stream->idle(); };
    if (shut_down_ || !std::all_of(push_.begin(), push_.end(), idle) || !std::all_of(pull_.begin(), pull_.end(), idle)) return;
    shut_down_ = true;
    cq_.Shutdown();
  }

  const GrpcParamClientOptions options_;
  grpc::CompletionQueue cq_;

  absl::Mutex mu_;
  std::vector<std::unique_ptr<PushStream>> push_ ABSL_GUARDED_BY(mu_);  // by shard
  std::vector<std::unique_ptr<PullStream>> pull_ ABSL_GUARDED_BY(mu_);
  bool closing_ ABSL_GUARDED_BY(mu_) = false;
  bool shut_down_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<ParamClient> MakeGrpcParamClient(GrpcParamClientOptions options, Cluster* cluster, ParamEvents* events,
                                                 WorkerMetrics* metrics) {
  return std::make_unique<GrpcParamClient>(std::move(options), cluster, events, metrics);
}

}  // namespace ballast
