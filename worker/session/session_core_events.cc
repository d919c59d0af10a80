// What reaches a session: the messages of its stream, results of the compute thread, answers of the shards. Each changes the state and lets
// Advance (session_core.cc) decide what comes next.
#include <algorithm>
#include <utility>
#include <variant>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "worker/log.h"
#include "worker/session/session_core.h"

namespace ballast {

void SessionCore::OnWelcome(uint64_t session, bool resumed, uint64_t run_version) {
  if (!resumed) DropAll();
  session_ = session;
  open_ = true;
  flushed_.clear();
  said_.reset();
  bool initial_held = false;
  for (auto& [uid, work] : works_) {
    work.submitted = false;
    work.done_in_part = false;
    initial_held |= work.initial;
    for (const Batch& batch : work.batches) {
      work.unanswered.insert(batch.id);
      ports_->Claim(batch, uid);
      ++claims_;
    }
  }
  if (run_version == 0 && !initial_held) {
    ports_->Claim(InitBatch(), std::nullopt);
    ++claims_;
  }
  Advance();
}

void SessionCore::OnMessage(const SessionMessage& message) {
  if (!open_) return;  // said to a session that is ending
  std::visit([this](const auto& m) { On(m); }, message);
  Advance();
}

void SessionCore::OnStreamLost() {
  if (!open_) return;
  open_ = false;
  lost_ = true;
  if (metrics_ != nullptr) metrics_->SessionLost();
  steps_.clear();
  initial_grant_.reset();
  skips_.clear();
  claims_ = 0;
  queue_->UnclaimAll(Held());
  Advance();
}

void SessionCore::Drain() {
  draining_ = true;
  Advance();
}

void SessionCore::OnModelUnusable(const std::string& reason) {
  unusable_ = reason;
  Advance();
}

void SessionCore::On(const Grant& grant) {
  if (claims_ > 0) --claims_;
  if (grant.uid.has_value()) {
    if (Work* work = Find(*grant.uid); work != nullptr && work->unanswered.erase(grant.batch.id) > 0) {
      work->step = grant.step;
      if (!work->unanswered.empty()) return;
      if (work->done_in_part) return Recompute(*work);
      return TrySubmit(*work);
    }
  }
  if (grant.batch.id == kInitBatch) {
    initial_grant_ = grant;
    return;
  }
  Step& step = steps_[grant.step];
  step.granted.push_back(grant.batch);
  step.base_version = std::max(step.base_version, grant.base_version);
}

void SessionCore::On(const Done& done) {
  if (claims_ > 0) --claims_;
  for (auto& [uid, work] : works_) {
    if (work.unanswered.erase(done.batch.id) == 0) continue;
    work.done_in_part = true;
    std::erase_if(work.batches, [&](const Batch& b) { return b.id == done.batch.id; });
    if (!work.unanswered.empty()) break;
    if (!work.batches.empty()) {
      Recompute(work);
      break;
    }
    residuals_->Settle(uid);  // decided before the coordinator restarted
    params_->Forget(uid);
    works_.erase(uid);
    break;
  }
  if (done.no_epoch) {
    queue_->FaultBatch(
        done.batch.id,
        {"EPOCH_UNDONE", absl::StrCat("epoch ", done.batch.id.epoch, " is not begun any more: the run was rolled back"), true, {}});
    return;
  }
  if (done.conflict) {
    const auto rows = queue_->Find(done.batch.id);
    LogError("a batch came with other rows than those that were trained",
             {{"run", config_.spec->name}, {"partition", absl::StrCat(done.batch.id.partition)}, {"seq", absl::StrCat(done.batch.id.seq)}});
    queue_->FaultBatch(done.batch.id,
                       {"FINGERPRINT_DIFFERS",
                        absl::StrCat("epoch ", done.batch.id.epoch, ", partition ", done.batch.id.partition, ", batch ", done.batch.id.seq,
                                     " was trained with other rows: fingerprint ", absl::Hex(done.trained_fingerprint, absl::kZeroPad16),
                                     ", now ", absl::Hex(done.batch.fingerprint, absl::kZeroPad16),
                                     ". The data of this run id changed, or its plan is not deterministic"),
                        false,
                        {{"partition", absl::StrCat(done.batch.id.partition)},
                         {"seq", absl::StrCat(done.batch.id.seq)},
                         {"first_row_id", rows == nullptr ? "" : rows->first_row_id},
                         {"trained_fingerprint", absl::StrCat(absl::Hex(done.trained_fingerprint, absl::kZeroPad16))},
                         {"fingerprint", absl::StrCat(absl::Hex(done.batch.fingerprint, absl::kZeroPad16))}}});
    return;
  }
  queue_->Acknowledge(done.batch.id, done.skipped ? Outcome::kSkipped : Outcome::kDuplicate, 0, done.skipped ? "skipped before" : "");
}

void SessionCore::On(const Flush& flush) {
  // For a contribution that is closed already it says nothing, and must not close the next one of the same step.
  const bool open = current_.has_value() && works_.at(*current_).step == flush.step;
  if (open || steps_.count(flush.step) > 0) flushed_.insert(flush.step);
}

void SessionCore::On(const Refuse& refuse) {
  Work* work = Find(refuse.uid);
  if (work == nullptr) return;
  switch (refuse.reason) {
    case Refuse::Reason::kReceipts:
      work->submitted = false;
      for (const uint32_t shard : refuse.shards) {
        if (shard >= work->receipts.size()) continue;
        work->receipts[shard].reset();
        params_->PushAgain(work->bytes, shard);
      }
      return TrySubmit(*work);
    case Refuse::Reason::kStale:
      return Recompute(*work);
    case Refuse::Reason::kFenced:
      return ClaimAgain(*work);
  }
}

void SessionCore::On(const Decided& decided) {
  for (const Batch& batch : decided.batches) queue_->Acknowledge(batch.id, Outcome::kTrained, decided.version, "");
  Work* work = Find(decided.uid);
  if (work == nullptr) return;
  if (metrics_ != nullptr) metrics_->Trained(work->rows);
  residuals_->Settle(decided.uid);
  params_->Forget(decided.uid);
  works_.erase(decided.uid);
}

void SessionCore::On(const SkipLogged& logged) {
  const auto reason = skips_.find(logged.batch.id);
  queue_->Acknowledge(logged.batch.id, Outcome::kSkipped, 0, reason == skips_.end() ? "" : reason->second);
  if (reason != skips_.end()) skips_.erase(reason);
}

void SessionCore::On(const CloseSession& close) {
  LogWarning("the coordinator closed the session",
             {{"run", config_.spec->name}, {"session", absl::StrCat(session_)}, {"reason", close.reason}});
  if (metrics_ != nullptr) metrics_->SessionLost();
  open_ = false;
  reset_ = true;
  if (close.final) ended_ = close.reason.empty() ? "the run stopped" : close.reason;
}

void SessionCore::OnPushReply(const PushReply& reply) {
  Work* work = Find({reply.session, reply.uid});
  if (work == nullptr || reply.shard >= work->receipts.size()) return;
  if (reply.error.empty()) {
    work->receipts[reply.shard] = Receipt{reply.shard, reply.incarnation, reply.checksum, reply.norm2, reply.proof};
    TrySubmit(*work);
  } else if (reply.error == "NONFINITE") {
    // The detail of a code that was checked begins with the reason already.
    const bool named = absl::StartsWith(reply.detail, reply.error);
    work->refused = absl::StrCat("server ", reply.shard, ": ", named ? "" : absl::StrCat(reply.error, ": "), reply.detail);
    if (work->closed) GiveUpRefused(*work);
  } else {
    Reset(absl::StrCat("server ", reply.shard, " refused a contribution: ", reply.error, " ", reply.detail));
  }
  Advance();
}

void SessionCore::OnPulled(uint32_t shard, uint64_t version) {
  asked_[shard] = 0;
  back_.versions[shard] = version;
  Advance();
}

void SessionCore::OnComputed(const ComputeResult& result) {
  computing_ = false;
  const std::optional<Batch> batch = std::exchange(job_batch_, std::nullopt);
  const bool finished = std::exchange(job_finishes_, false);
  if (reset_ || !current_.has_value()) return Advance();
  Work& work = works_.at(*current_);
  if (batch.has_value() && result.status.ok()) {
    work.batches.push_back(*batch);
    work.rows += batch->rows;
    work.loss_sum += result.loss_sum;
    rows_done_ += batch->rows;
  } else if (batch.has_value()) {
    SkipBatch(*batch, std::string(result.status.message()));
  }
  if (work.initial && absl::IsCancelled(result.status)) {
    Reset(std::string(result.status.message()));  // the worker stops: another one sets the initial values
  } else if (work.initial && !result.status.ok()) {
    SkipBatch(InitBatch(), std::string(result.status.message()));
    current_.reset();
    params_->Forget(work.uid);
    works_.erase(work.uid);
  } else if (!result.finish.ok()) {
    current_.reset();
    flushed_.erase(work.step);
    for (const Batch& b : work.batches) SkipBatch(b, std::string(result.finish.message()));
    params_->Forget(work.uid);
    works_.erase(work.uid);
  } else if (result.given_up) {  // what was encoded held the failed batch: the rest goes out under a new uid
    Work again = work;
    params_->Forget(work.uid);
    works_.erase(work.uid);
    Work& fresh = NewWork(again.step, again.base_version);
    fresh.batches = std::move(again.batches);
    fresh.rows = again.rows;
    fresh.loss_sum = again.loss_sum;
    fresh.finish_now = !fresh.batches.empty();
    current_ = fresh.uid;
  } else if (finished) {
    Close(work, result.residual_norm);
  }
  Advance();
}

}  // namespace ballast
