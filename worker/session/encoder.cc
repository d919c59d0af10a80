#include "worker/session/encoder.h"

#include <cstring>
#include <utility>

#include "core/codec/codec.h"
#include "core/layout/layout.h"
#include "core/record/hash.h"

namespace ballast {

ContributionEncoder::ContributionEncoder(const RunSpec* spec, uint64_t generation, Layout layout, uint32_t shards, Residuals* residuals,
                                         WorkerMetrics* metrics, Ready ready)
    : spec_(spec),
      generation_(generation),
      layout_(std::move(layout)),
      first_block_(spec->tensors.size() + 1, layout_.size()),
      residuals_(residuals),
      metrics_(metrics),
      ready_(std::move(ready)),
      open_(shards) {
  for (size_t i = layout_.size(); i-- > 0;) first_block_[layout_[i].tensor] = i;
  thread_ = std::thread([this] { Run(); });
}

ContributionEncoder::~ContributionEncoder() {
  {
    absl::MutexLock lock(&mu_);
    stop_ = true;
  }
  thread_.join();
}

void ContributionEncoder::Begin(std::shared_ptr<Outgoing> contribution, bool exact) {
  Drain();
  contribution_ = std::move(contribution);
  exact_ = exact;
  for (Open& open : open_) open = Open();
  if (!exact) residuals_->Begin(contribution_->uid());
}

void ContributionEncoder::OnF32(uint32_t tensor, absl::Span<const float> values) { Enqueue({tensor, values}); }
void ContributionEncoder::OnI64(uint32_t tensor, absl::Span<const int64_t> values) { Enqueue({tensor, values}); }

void ContributionEncoder::Finish() {
  Drain();
  for (uint32_t shard = 0; shard < open_.size(); ++shard) Seal(shard, /*last=*/true);
}

void ContributionEncoder::Abandon() {
  Drain();
  if (!exact_) residuals_->Undo(contribution_->uid());
  contribution_ = nullptr;
}

void ContributionEncoder::Enqueue(Task task) {
  absl::MutexLock lock(&mu_);
  tasks_.push_back(std::move(task));
}

void ContributionEncoder::Drain() {
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(
      +[](ContributionEncoder* self) ABSL_NO_THREAD_SAFETY_ANALYSIS { return self->tasks_.empty() && !self->busy_; }, this));
}

void ContributionEncoder::Run() {
  const auto due = +[](ContributionEncoder* self) ABSL_NO_THREAD_SAFETY_ANALYSIS { return self->stop_ || !self->tasks_.empty(); };
  absl::MutexLock lock(&mu_);
  while (true) {
    mu_.Await(absl::Condition(due, this));
    if (tasks_.empty()) return;  // stop_
    const Task task = tasks_.front();
    tasks_.pop_front();
    busy_ = true;
    mu_.Unlock();
    EncodeTensor(task);
    mu_.Lock();
    busy_ = false;
  }
}

void ContributionEncoder::EncodeTensor(const Task& task) {
  const TensorSpec& tensor = spec_->tensors[task.tensor];
  const Codec codec = exact_ ? PullCodecOf(tensor, Codec::kFp32) : PushCodecOf(*spec_, tensor);
  for (size_t i = first_block_[task.tensor]; i < layout_.size() && layout_[i].tensor == task.tensor; ++i) {
    const Block& block = layout_[i];
    const size_t bytes = EncodedBytes(codec, block.count);
    Open& open = open_[block.shard];
    if (open.payload.size() + bytes > kChunkPayloadMax || open.blocks.size() >= kChunkBlocksMax) Seal(block.shard, /*last=*/false);
    const size_t at = open.payload.size();
    open.payload.resize(at + bytes);
    EncodeBlock(i, codec, task.values, open.payload.data() + at, bytes);
    open.blocks.push_back({block.tensor, block.first, static_cast<uint32_t>(block.count), codec, static_cast<uint32_t>(bytes),
                           Hash64(absl::string_view(open.payload.data() + at, bytes))});
    if (metrics_ != nullptr) metrics_->PushBytes(codec, bytes, block.count * ElementBytes(tensor.dtype));
  }
}

void ContributionEncoder::EncodeBlock(size_t index, Codec codec, const Values& values, char* out, size_t bytes) {
  const Block& block = layout_[index];
  if (codec == Codec::kI64) {
    const absl::Span<const int64_t> all = std::get<absl::Span<const int64_t>>(values);
    std::memcpy(out, all.data() + block.first, bytes);
    return;
  }
  const absl::Span<const float> part = std::get<absl::Span<const float>>(values).subspan(block.first, block.count);
  if (exact_ || spec_->tensors[block.tensor].rule != UpdateRule::kOpt) {
    Encode(codec, part, absl::MakeSpan(out, bytes));
  } else {
    residuals_->Encode(index, part, absl::MakeSpan(out, bytes));
  }
}

void ContributionEncoder::Seal(uint32_t shard, bool last) {
  Open& open = open_[shard];
  ChunkHead head;
  head.run = spec_->name;
  head.generation = generation_;
  head.session = contribution_->uid().session;
  head.uid = contribution_->uid().counter;
  head.index = open.index++;
  head.last = last;
  head.blocks = std::move(open.blocks);
  Outgoing::Chunk chunk;
  chunk.head = EncodeChunkHead(head, open.payload.size());
  chunk.payload = std::make_shared<const std::string>(std::move(open.payload));
  contribution_->Append(shard, std::move(chunk));
  open.blocks.clear();
  open.payload.clear();
  ready_(contribution_, shard);
}

}  // namespace ballast
