#include "server/shard/checkpointer.h"

#include <utility>

#include "core/codec/codec.h"
#include "core/record/state_hash.h"
#include "server/failpoint.h"

namespace ballast {

Checkpointer::Checkpointer(CheckpointerOptions options, Store* store, const ShardBlocks* blocks, const ShardValues* values)
    : options_(std::move(options)), store_(store), blocks_(blocks), values_(values), thread_([this] { Run(); }) {}

Checkpointer::~Checkpointer() {
  {
    absl::MutexLock lock(&mu_);
    stop_ = true;
  }
  thread_.join();
}

void Checkpointer::Begin(const ReplicaPosition& position, std::function<absl::Status()> log_synced) {
  if (job_ != nullptr) BeforeChange(blocks_->size() - 1);
  job_ = std::make_shared<Job>();
  job_->position = position;
  job_->log_synced = std::move(log_synced);
  job_->started = std::chrono::steady_clock::now();
  next_owed_ = 0;
  absl::MutexLock lock(&mu_);
  owed_ = true;
  if (blocks_->size() == 0) {  // a shard without blocks still has to say so
    job_->hashes.clear();
    ring_.push_back(PaidBlock{std::move(job_), 0, {}, 0});
    job_ = nullptr;
    owed_ = false;
  }
}

void Checkpointer::BeforeChange(size_t block) {
  while (job_ != nullptr && next_owed_ <= block) Pay();
}

bool Checkpointer::PayOne() {
  if (job_ == nullptr) return false;
  {
    absl::MutexLock lock(&mu_);
    if (ring_bytes_ >= options_.ring_bytes_max) return false;
  }
  Pay();
  return job_ != nullptr;
}

void Checkpointer::Pay() {
  BALLAST_FAILPOINT("block-copy");
  PaidBlock paid;
  paid.job = job_;
  paid.block = next_owed_;
  for (int slot = -1; slot < blocks_->slots(paid.block); ++slot) {
    std::string& array = paid.arrays.emplace_back();
    const uint64_t bytes = values_->Bytes(paid.block, slot);
    array.reserve(bytes + sizeof(uint64_t));
    array.resize(bytes);
    values_->CopyOut(paid.block, slot, absl::MakeSpan(array));
    paid.bytes += bytes;
  }
  BALLAST_FAILPOINT("block-copied");
  const uint64_t bytes = paid.bytes;
  if (++next_owed_ == blocks_->size()) {
    job_ = nullptr;
    absl::MutexLock lock(&mu_);
    owed_ = false;
  }
  Push(std::move(paid), bytes);
}

void Checkpointer::Push(Item item, uint64_t bytes) {
  absl::MutexLock lock(&mu_);
  const auto room = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return stop_ || ring_bytes_ == 0 || ring_bytes_ + bytes <= options_.ring_bytes_max;
  };
  if (bytes != 0) mu_.Await(absl::Condition(&room));
  ring_.push_back(std::move(item));
  ring_bytes_ += bytes;
}

void Checkpointer::Drop(uint64_t version) { Push(DropVersion{version}, 0); }

void Checkpointer::Run() {
  bool failed = false;
  while (true) {
    Item item;
    {
      absl::MutexLock lock(&mu_);
      const auto work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return stop_ || !ring_.empty(); };
      mu_.Await(absl::Condition(&work));
      if (stop_) return;
      item = std::move(ring_.front());
      ring_.pop_front();
    }
    absl::Status s;
    uint64_t bytes = 0;
    if (PaidBlock* paid = std::get_if<PaidBlock>(&item)) {
      bytes = paid->bytes;
      if (!failed) s = Write(*paid);
    } else if (!failed) {
      BALLAST_FAILPOINT("checkpoint-drop");
      s = DeleteCheckpoint(*store_, blocks_->spec().name, std::get<DropVersion>(item).version);
      BALLAST_FAILPOINT("checkpoint-dropped");
    }
    if (!s.ok()) {
      failed = true;  // the process stops; until it does, nobody may wait for the ring
      if (options_.on_failed) options_.on_failed(s);
    }
    bool wanted;
    {
      absl::MutexLock lock(&mu_);
      ring_bytes_ -= bytes;
      wanted = owed_;
    }
    if (wanted && options_.on_room) options_.on_room();
  }
}

absl::Status Checkpointer::Write(PaidBlock& paid) {
  Job& job = *paid.job;
  if (job.bulk == nullptr) {
    absl::StatusOr<std::unique_ptr<Store::Bulk>> bulk = store_->NewBulk();
    if (!bulk.ok()) return bulk.status();
    job.bulk = *std::move(bulk);
  }
  if (!paid.arrays.empty()) {
    const TensorSpec& tensor = blocks_->tensor(paid.block);
    if (tensor.dtype == DType::kF32) {
      const ValueKind kind = tensor.rule == UpdateRule::kOpt ? ValueKind::kGradient : ValueKind::kBuffer;
      for (const std::string& array : paid.arrays) {
        job.nonfinite +=
            CountNonfinite(absl::MakeConstSpan(reinterpret_cast<const float*>(array.data()), array.size() / sizeof(float)), kind);
      }
    }
    job.hashes.push_back(BlockHash(paid.arrays[0], std::vector<absl::string_view>(paid.arrays.begin() + 1, paid.arrays.end())));
    job.bytes += paid.bytes;
  }
  for (size_t i = 0; i < paid.arrays.size(); ++i) {
    SealValue(&paid.arrays[i]);
    const std::string key = BlockKey(blocks_->spec().name, job.position.version, paid.block, static_cast<int>(i) - 1);
    if (absl::Status s = job.bulk->Add(key, paid.arrays[i]); !s.ok()) return s;
  }
  return paid.block + 1 >= blocks_->size() ? Finish(job) : absl::OkStatus();
}

absl::Status Checkpointer::Finish(Job& job) {
  if (absl::Status s = job.bulk->Finish(); !s.ok()) return s;
  BALLAST_FAILPOINT_STATUS("checkpoint-seal");
  if (absl::Status s = job.log_synced(); !s.ok()) return s;
  BALLAST_FAILPOINT_STATUS("checkpoint-sealed");
  CheckpointMeta meta;
  meta.position = job.position;
  meta.blocks = blocks_->size();
  meta.digest = {blocks_->shard(), RootHash(job.hashes), job.bytes, job.nonfinite};
  if (absl::Status s = PutCheckpointMeta(*store_, blocks_->spec().name, meta); !s.ok()) return s;
  BALLAST_FAILPOINT("checkpoint-done");
  if (options_.on_done) options_.on_done(meta, std::chrono::duration<double>(std::chrono::steady_clock::now() - job.started).count());
  return absl::OkStatus();
}

}  // namespace ballast
