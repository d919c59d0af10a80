#include "tools/ngram/train.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/ngram/estimate.h"
#include "tools/ngram/join.h"
#include "tools/ngram/merge.h"
#include "tools/ngram/parallel.h"
#include "tools/ngram/shard_files.h"

namespace ballast::ngram {
namespace {

constexpr size_t kThreads = 2;
constexpr uint64_t kTuplesForThreads = 1 << 18;

// So that the shards that are in memory at once fit: a tuple itself, and at most two n-grams of it with what belongs to them.
uint32_t ShardsFor(uint64_t tuples, int order, size_t memory_bytes_max) {
  const uint64_t bytes = kThreads * tuples * static_cast<uint64_t>(4 * order + 90);
  const uint64_t shards = bytes / memory_bytes_max + 1;
  return static_cast<uint32_t>(std::max<uint64_t>(shards, tuples < kTuplesForThreads ? 1 : kThreads));
}

}  // namespace

Training::Training(TrainOptions options) : options_(std::move(options)), totals_(options_.smoothing.order) {}

absl::Status Training::Run() {
  absl::StatusOr<std::unique_ptr<Scratch>> scratch = Scratch::Create(options_.counter.scratch);
  if (!scratch.ok()) return scratch.status();
  scratch_ = *std::move(scratch);
  options_.counter.scratch = scratch_->path();
  for (absl::Status (Training::*stage)() :
       {&Training::Count, &Training::Split, &Training::Adjust, &Training::EstimateZero, &Training::Estimate, &Training::Join}) {
    if (absl::Status done = (this->*stage)(); !done.ok()) return done;
  }
  return absl::OkStatus();
}

Header Training::ShardHeader(int level) const {
  Header header = options_.smoothing;
  header.level = level;
  header.discounts = discounts_;
  return header;
}

std::string Training::Path(const char* stage, const ShardId& shard) const { return ShardPath(scratch_->path(), shard) + stage; }

absl::Status Training::Count() {
  Counter counter(options_.counter);
  for (const std::string& text : options_.texts) {
    if (absl::Status added = counter.AddText(text); !added.ok()) return added;
  }
  absl::StatusOr<std::unique_ptr<RowWriter>> writer = RowWriter::Create(scratch_->path() + "/tuples", ShardHeader(0));
  if (!writer.ok()) return writer.status();
  const OnTuple write = [&](const WordId* row, uint64_t count) {
    ++tuples_;
    return (*writer)->AddCount(RowKind::kTuple, options_.smoothing.order, row, count);
  };
  if (absl::Status counted = counter.Finish(write); !counted.ok()) return counted;
  vocabulary_ = std::move(counter).TakeVocabulary();
  if (!options_.limit_vocab.empty()) {
    absl::StatusOr<AllowedWords> allowed = AllowedWords::FromList(options_.limit_vocab, vocabulary_);
    if (!allowed.ok()) return allowed.status();
    allowed_ = std::make_shared<const AllowedWords>(*std::move(allowed));
  }
  return (*writer)->Finish();
}

absl::Status Training::Split() {
  const std::string tuples = scratch_->path() + "/tuples";
  if (options_.plan.shards == 0) options_.plan.shards = ShardsFor(tuples_, options_.smoothing.order, options_.counter.memory_bytes_max);
  absl::StatusOr<Plan> plan = PlanTuples(tuples, options_.plan);
  if (!plan.ok()) return plan.status();
  plan_ = *std::move(plan);
  const Header head = ShardHeader(0);
  absl::StatusOr<std::vector<ShardId>> shards = SplitTuples(tuples, plan_, scratch_->path(), &head);
  if (!shards.ok()) return shards.status();
  shards_ = *std::move(shards);
  unlink(tuples.c_str());
  return absl::OkStatus();
}

absl::Status Training::AdjustOne(const ShardId& shard) const {
  absl::StatusOr<std::unique_ptr<RowReader>> reader = RowReader::Open(Path("", shard));
  if (!reader.ok()) return reader.status();
  absl::StatusOr<Shard> loaded = ReadShard(**reader);
  if (!loaded.ok()) return loaded.status();
  absl::StatusOr<std::unique_ptr<RowWriter>> writer = RowWriter::Create(Path(".adjusted", shard), ShardHeader(shard.level));
  if (!writer.ok()) return writer.status();
  if (absl::Status adjusted = AdjustShard(*std::move(loaded), AdjustOptions(), **writer); !adjusted.ok()) return adjusted;
  return (*writer)->Finish();
}

absl::Status Training::Adjust() {
  absl::Status done = ForEachInParallel(shards_.size(), kThreads, [this](size_t i) { return AdjustOne(shards_[i]); });
  if (!done.ok()) return done;
  for (const ShardId& shard : shards_) {
    absl::StatusOr<std::unique_ptr<RowReader>> reader = RowReader::Open(Path(".adjusted", shard));
    if (!reader.ok()) return reader.status();
    if (absl::Status added = totals_.Add(**reader); !added.ok()) return added;
    unlink(Path(".adjusted", shard).c_str());
  }
  totals_.Finish(options_.compat_lmplz);
  absl::StatusOr<std::vector<Discounts>> discounts = DiscountsOf(totals_.census(), options_.fallback);
  if (!discounts.ok()) return discounts.status();
  discounts_ = *std::move(discounts);
  return absl::OkStatus();
}

absl::Status Training::EstimateZero() {
  zeros_.resize(plan_.levels().size() + 1);
  for (int level = 1; level <= static_cast<int>(plan_.levels().size()); ++level) {
    const std::string path = absl::StrCat(scratch_->path(), "/zero.", level);
    const size_t n = static_cast<size_t>(level);
    Shard shard = EmptyShard(ShardHeader(level - 1));
    shard.counts[n - 1] = std::move(totals_.counts()[n - 1]);
    shard.zero = zeros_[n - 1];
    shard.allowed = allowed_;
    absl::StatusOr<std::unique_ptr<RowWriter>> writer = RowWriter::Create(path, shard.header);
    if (!writer.ok()) return writer.status();
    if (absl::Status estimated = EstimateShard(std::move(shard), **writer); !estimated.ok()) return estimated;
    if (absl::Status finished = (*writer)->Finish(); !finished.ok()) return finished;
    estimated_.push_back(path);
    absl::StatusOr<ValueRows<float>> zero = ReadZero(path, level);
    if (!zero.ok()) return zero.status();
    zeros_[n] = *std::move(zero);
  }
  return absl::OkStatus();
}

absl::Status Training::EstimateOne(const ShardId& shard) const {
  absl::StatusOr<std::unique_ptr<RowReader>> reader = RowReader::Open(Path("", shard));
  if (!reader.ok()) return reader.status();
  absl::StatusOr<Shard> loaded = ReadShard(**reader);
  if (!loaded.ok()) return loaded.status();
  reader->reset();
  unlink(Path("", shard).c_str());
  loaded->header = ShardHeader(shard.level);
  loaded->zero = zeros_[static_cast<size_t>(shard.level)];
  loaded->allowed = allowed_;
  absl::StatusOr<std::unique_ptr<RowWriter>> writer = RowWriter::Create(Path(".estimated", shard), loaded->header);
  if (!writer.ok()) return writer.status();
  if (absl::Status estimated = EstimateShard(*std::move(loaded), **writer); !estimated.ok()) return estimated;
  return (*writer)->Finish();
}

absl::Status Training::Estimate() {
  for (const ShardId& shard : shards_) estimated_.push_back(Path(".estimated", shard));
  return ForEachInParallel(shards_.size(), kThreads, [this](size_t i) { return EstimateOne(shards_[i]); });
}

absl::Status Training::Join() {
  absl::StatusOr<RowFiles> files = RowFiles::Open(estimated_);
  if (!files.ok()) return files.status();
  return JoinToArpa(*files, vocabulary_, options_.arpa);
}

}  // namespace ballast::ngram
