#include "worker/session/session_core.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/log.h"

namespace ballast {
namespace {

constexpr size_t kClaimsMax = 4096;  // unanswered claims; the rest waits in the queue
constexpr uint64_t kNoBlocks = std::numeric_limits<uint64_t>::max();

}  // namespace

SessionCore::SessionCore(Config config, SessionPorts* ports, FeedQueue* queue, ParamClient* params, Residuals* residuals,
                         WorkerMetrics* metrics)
    : config_(std::move(config)),
      ports_(ports),
      queue_(queue),
      params_(params),
      residuals_(residuals),
      metrics_(metrics),
      owns_blocks_(config_.shards, false),
      asked_(config_.shards, 0),
      phase_since_(ports->Now()) {
  for (const Block& block : config_.layout) owns_blocks_[block.shard] = true;
}

const Batch& SessionCore::InitBatch() {
  static const Batch* const kBatch = new Batch{kInitBatch, 0, 0};
  return *kBatch;
}

uint64_t SessionCore::Values::Oldest() const {
  uint64_t oldest = kNoBlocks;
  for (const uint64_t version : versions) oldest = std::min(oldest, version);
  return store == nullptr ? 0 : oldest;
}

// ---- what next ---------------------------------------------------------------------------------------------------------------------

void SessionCore::Advance() {
  ClaimQueued();
  Schedule();
  UpdateStatus();
  UpdatePhase();
}

void SessionCore::ClaimQueued() {
  if (!open_ || draining_ || claims_ >= kClaimsMax) return;
  for (const Batch& batch : queue_->TakeUnclaimed(kClaimsMax - claims_)) {
    ports_->Claim(batch, std::nullopt);
    ++claims_;
  }
}

void SessionCore::Schedule() {
  wants_values_ = false;
  bool again = true;
  while (again && !computing_ && Settle()) {
    if (current_.has_value()) {
      again = ContinueContribution();
    } else if (initial_grant_.has_value()) {
      again = StartInitial();
    } else {
      again = OpenContribution();
    }
  }
}

// A job that runs uses the Model and the encoder: whatever ends a session waits for it.
bool SessionCore::Settle() {
  if (reset_) {
    reset_ = false;
    open_ = false;
    DropAll();
    if (!ended_.empty()) {
      ports_->Ended(ended_);
    } else {
      ports_->Reopen(0, leave_);
    }
    leave_ = false;
    return false;
  }
  if (lost_) {
    if (current_.has_value() && !FinishContribution(works_.at(*current_))) return false;  // its bytes outlive the stream
    lost_ = false;
    ports_->Reopen(session_, false);
    return false;
  }
  return open_;
}

bool SessionCore::Full(const Work& work, uint64_t rows) const {
  return config_.spec->contribution_rows > 0 && work.rows + rows >= config_.spec->contribution_rows;
}

// The coordinator grants nothing beyond kInFlightMax; one more may wait here for its acceptance by every shard. An open step waits for
// every batch that is granted, so this limit of bytes never holds back the step of a contribution that is undecided.
bool SessionCore::MayOpen(uint64_t step) const {
  if (works_.size() <= static_cast<size_t>(kInFlightMax)) return true;
  return std::any_of(works_.begin(), works_.end(), [step](const auto& entry) { return entry.second.step == step; });
}

bool SessionCore::OpenContribution() {
  if (steps_.empty()) return false;
  const auto next = steps_.begin();
  if (!unusable_.empty()) {
    const std::deque<Batch> granted = std::move(next->second.granted);
    steps_.erase(next);
    for (const Batch& batch : granted) SkipBatch(batch, unusable_);
    return true;
  }
  if (!MayOpen(next->first)) return false;
  if (!HaveValues(next->second.base_version)) {
    wants_values_ = true;
    RequestPull(next->second.base_version);
    return false;
  }
  current_ = NewWork(next->first, front_.Oldest()).uid;
  return true;
}

bool SessionCore::ContinueContribution() {
  Work& work = works_.at(*current_);
  const auto step = steps_.find(work.step);
  // Every batch so far was skipped: the coordinator has forgotten the step, and would never say Flush for it.
  if (step == steps_.end() && work.batches.empty()) return FinishContribution(work);
  if (work.finish_now || step == steps_.end() || Full(work, 0)) {
    if (!work.finish_now && flushed_.count(work.step) == 0 && !Full(work, 0)) return false;  // more may come
    return FinishContribution(work);
  }
  const Batch batch = step->second.granted.front();
  step->second.granted.pop_front();
  if (step->second.granted.empty()) steps_.erase(step);
  ComputeJob job;
  job.batch = queue_->Find(batch.id);
  if (job.batch == nullptr) {
    Reset("a batch was granted that is not here");
    return true;
  }
  if (work.batches.empty()) job.begin = front_.store;
  if ((steps_.count(work.step) == 0 && flushed_.count(work.step) > 0) || Full(work, batch.rows)) job.finish = work.bytes;
  queue_->LeaveQueue(batch.id);
  Start(std::move(job), batch);
  return false;
}

// Starts the job that encodes the rest; a contribution without a batch (all were skipped) just goes away.
bool SessionCore::FinishContribution(Work& work) {
  if (work.batches.empty()) {
    flushed_.erase(work.step);
    params_->Forget(work.uid);
    works_.erase(work.uid);
    current_.reset();
    return true;
  }
  ComputeJob job;
  job.finish = work.bytes;
  Start(std::move(job), std::nullopt);
  return false;
}

bool SessionCore::StartInitial() {
  const Grant grant = *std::exchange(initial_grant_, std::nullopt);
  if (!unusable_.empty()) {
    SkipBatch(grant.batch, unusable_);
    return true;
  }
  Work& work = NewWork(grant.step, 0);
  work.initial = true;
  work.batches = {InitBatch()};
  current_ = work.uid;
  ComputeJob job;
  job.initial = true;
  job.finish = work.bytes;
  Start(std::move(job), std::nullopt);
  return false;
}

void SessionCore::Start(ComputeJob job, std::optional<Batch> batch) {
  computing_ = true;
  job_batch_ = batch;
  job_finishes_ = job.finish != nullptr;
  ports_->Compute(std::move(job));
}

SessionCore::Work& SessionCore::NewWork(uint64_t step, uint64_t base_version) {
  Work work;
  work.uid = {session_, ++last_counter_};
  work.step = step;
  work.base_version = base_version;
  work.receipts.resize(config_.shards);
  work.bytes = std::make_shared<Outgoing>(work.uid, config_.shards);
  return works_.emplace(work.uid, std::move(work)).first->second;
}

void SessionCore::Close(Work& work, double residual_norm) {
  current_.reset();
  flushed_.erase(work.step);
  work.closed = true;
  work.residual_norm = residual_norm;
  if (!work.refused.empty()) return GiveUpRefused(work);
  RequestPull(work.base_version + 1);
  TrySubmit(work);
}

void SessionCore::TrySubmit(Work& work) {
  if (!open_ || !work.closed || work.submitted || !work.unanswered.empty()) return;
  Submission submission;
  for (const std::optional<Receipt>& receipt : work.receipts) {
    if (!receipt.has_value()) return;
    submission.receipts.push_back(*receipt);
  }
  UpdatePhase();
  submission.uid = work.uid;
  submission.batches = work.batches;
  submission.rows = work.rows;
  submission.base_version = work.base_version;
  submission.loss_sum = work.loss_sum;
  submission.residual_norm = work.residual_norm;
  for (size_t i = 0; i < kPhases; ++i) submission.timing.push_back({PhaseName(static_cast<Phase>(i)), std::exchange(seconds_[i], 0.0)});
  work.submitted = true;
  if (metrics_ != nullptr) {
    metrics_->Contribution(0);
    metrics_->SetResidualNorm(work.residual_norm);
  }
  ports_->Submit(submission);
}

void SessionCore::SkipBatch(const Batch& batch, const std::string& reason) {
  if (!open_) return queue_->Unclaim(batch.id);  // the next session will find it again
  LogWarning("batch skipped", {{"run", config_.spec->name},
                               {"epoch", absl::StrCat(batch.id.epoch)},
                               {"partition", absl::StrCat(batch.id.partition)},
                               {"seq", absl::StrCat(batch.id.seq)},
                               {"reason", reason}});
  queue_->LeaveQueue(batch.id);
  skips_[batch.id] = reason;
  ports_->Skip(batch, reason);
}

// A shard found a number in it that is not finite: which of its batches made it cannot be told, so all are skipped.
void SessionCore::GiveUpRefused(Work& work) {
  residuals_->Undo(work.uid);
  for (const Batch& batch : work.batches) SkipBatch(batch, work.refused);
  params_->Forget(work.uid);
  works_.erase(work.uid);
}

// The grants are still held: the same batches again, from newer values, under a new uid.
void SessionCore::Recompute(Work& work) {
  if (work.initial || !work.closed) return Reset("a contribution was refused before it was complete");
  residuals_->Undo(work.uid);
  Step& step = steps_[work.step];
  step.granted.insert(step.granted.begin(), work.batches.begin(), work.batches.end());
  step.base_version = std::max(step.base_version, work.base_version + 1);
  // A later step that waits for more rows could wait for this one.
  if (current_.has_value() && works_.at(*current_).step != work.step) works_.at(*current_).finish_now = true;
  if (metrics_ != nullptr) metrics_->Contribution(1);
  params_->Forget(work.uid);
  works_.erase(work.uid);
}

// The grants are gone: somebody else may have the batches, which the next claim of each will tell.
void SessionCore::ClaimAgain(Work& work) {
  if (work.initial || !work.closed) return Reset("the grants of a contribution are gone");
  residuals_->Undo(work.uid);
  claims_ -= std::min(claims_, work.unanswered.size());
  for (const Batch& batch : work.batches) queue_->Unclaim(batch.id);
  params_->Forget(work.uid);
  works_.erase(work.uid);
}

void SessionCore::Reset(const std::string& why) {
  LogWarning("the session ends and another one is opened",
             {{"run", config_.spec->name}, {"session", absl::StrCat(session_)}, {"reason", why}});
  reset_ = true;
  leave_ = open_;
  open_ = false;
}

void SessionCore::DropAll() {
  for (const auto& [uid, work] : works_) params_->Forget(uid);
  works_.clear();
  current_.reset();
  steps_.clear();
  flushed_.clear();
  initial_grant_.reset();
  skips_.clear();
  claims_ = 0;
  lost_ = false;
  residuals_->Reset();
  queue_->UnclaimAll({});
}

std::set<BatchId> SessionCore::Held() const {
  std::set<BatchId> held;
  for (const auto& [uid, work] : works_) {
    for (const Batch& batch : work.batches) held.insert(batch.id);
  }
  if (job_batch_.has_value()) held.insert(job_batch_->id);
  return held;
}

SessionCore::Work* SessionCore::Find(const Uid& uid) {
  const auto it = works_.find(uid);
  return it == works_.end() ? nullptr : &it->second;
}

void SessionCore::UpdateStatus() {
  if (!open_) return;
  const std::pair<bool, uint64_t> now(queue_->Blocked(), rows_done_);
  if (said_ == now) return;
  said_ = now;
  ports_->Status(now.first, now.second);
}

Phase SessionCore::CurrentPhase() const {
  if (computing_) return Phase::kCompute;
  if (wants_values_) return Phase::kPull;
  bool submitted = false;
  for (const auto& [uid, work] : works_) {
    if (work.closed && !work.submitted) return Phase::kPush;
    submitted |= work.submitted;
  }
  if (submitted) return Phase::kCommit;
  return claims_ > 0 ? Phase::kWaitGrant : Phase::kWaitRows;
}

void SessionCore::UpdatePhase() {
  const absl::Time now = ports_->Now();
  const Phase next = CurrentPhase();
  const double seconds = absl::ToDoubleSeconds(now - phase_since_);
  seconds_[static_cast<size_t>(phase_)] += seconds;
  if (metrics_ != nullptr && next != phase_) metrics_->PhaseDone(phase_, seconds);
  phase_since_ = now;
  phase_ = next;
}

// ---- values ------------------------------------------------------------------------------------------------------------------------

bool SessionCore::HaveValues(uint64_t version) {
  const bool arrived = back_.store != nullptr && std::all_of(asked_.begin(), asked_.end(), [](uint64_t asked) { return asked == 0; });
  if (arrived && back_.Oldest() >= version && back_.Oldest() > front_.Oldest()) std::swap(front_, back_);
  return front_.store != nullptr && front_.Oldest() >= version;
}

void SessionCore::RequestPull(uint64_t version) {
  const bool idle = std::all_of(asked_.begin(), asked_.end(), [](uint64_t asked) { return asked == 0; });
  if (back_.store == nullptr || (idle && back_.store.use_count() > 1)) {  // the Model may still read the old one
    back_.store = std::make_shared<ParameterStore>(config_.spec->tensors);
    back_.versions.assign(config_.shards, 0);
    for (uint32_t shard = 0; shard < config_.shards; ++shard) {
      if (!owns_blocks_[shard]) back_.versions[shard] = kNoBlocks;
    }
  }
  for (uint32_t shard = 0; shard < config_.shards; ++shard) {
    const bool enough = asked_[shard] != 0 ? asked_[shard] <= version : back_.versions[shard] >= version;
    if (enough) continue;
    asked_[shard] = version;
    params_->Pull(shard, version, back_.store);
  }
}

}  // namespace ballast
