// Sessions: claims, submissions, skips, leases. A claim is parked first and answered when it can be: with a grant by the admission to a
// step, or with Done when the decision of its batch is accepted by every shard.
#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/coordinator/coordinator_impl.h"
#include "core/status.h"

namespace ballast {
namespace {

// Cut between two characters: it travels as a protobuf string, which must stay UTF-8.
std::string Shortened(std::string reason) {
  if (reason.size() <= kReasonBytesMax) return reason;
  size_t end = kReasonBytesMax;
  while (end > 0 && (static_cast<unsigned char>(reason[end]) & 0xc0) == 0x80) --end;
  reason.resize(end);
  return reason;
}

}  // namespace

absl::StatusOr<Coordinator::Opened> CoordinatorImpl::OpenSession(const std::string& worker, SessionId resume, int64_t now_ms) {
  if (health_ != Health::kRunning) return StoppedError();
  if (RollbackPending()) return RollingBackError();  // the decision closes every session that was open before it
  if (sessions_.live().size() >= kSessionsMax && config_.rules.session_quota) {
    return WithReason(absl::ResourceExhaustedError(absl::StrCat("run ", spec_.name, " has ", kSessionsMax, " sessions already")),
                      "TOO_MANY_SESSIONS");
  }
  const Sessions::Opened opened = sessions_.Open(worker, resume, now_ms);
  return Opened{opened.session->id, opened.resumed};
}

void CoordinatorImpl::OnSessionLost(SessionId session, int64_t now_ms) {
  if (sessions_.Find(session) == nullptr) return;
  EndSession(session, /*blame=*/true);
  Advance(now_ms);
}

void CoordinatorImpl::OnSessionLeft(SessionId session, int64_t now_ms) {
  if (sessions_.Find(session) == nullptr) return;
  EndSession(session, /*blame=*/false);
  Advance(now_ms);
}

// The first held batch that the rows it reports do not cover: if a batch ended the session, it was this one.
std::optional<Batch> CoordinatorImpl::BeingComputed(const Session& session) const {
  uint64_t computed = session.rows_done - std::min(session.rows_done, session.rows_submitted);
  for (const OpenStep& step : steps_.open()) {
    const auto slot = step.slots.find(session.id);
    if (slot == step.slots.end()) continue;
    for (const HeldBatch& h : slot->second.held) {
      if (h.uid.has_value()) continue;  // computed before
      if (computed < h.batch.rows) return h.batch;
      computed -= h.batch.rows;
    }
  }
  return std::nullopt;
}

// Its grants go back to whoever claims their batches, its submitted contributions leave the candidates. `blame`: it did not leave
// in order; a batch that ends session after session is quarantined. The initial weights are not: without them there is no run.
void CoordinatorImpl::EndSession(SessionId id, bool blame) {
  const std::optional<Batch> suspect = blame ? BeingComputed(*sessions_.Find(id)) : std::nullopt;
  steps_.ReleaseSession(id, config_.rules.withdraw);
  sessions_.Close(id);
  if (!suspect || suspect->id == kInitBatch || ++deaths_[suspect->id] < kDeathsMax || !config_.rules.quarantine) return;
  steps_.Quarantine(suspect->id);
  pending_skips_.push_back({*suspect, absl::StrCat("quarantined: ", kDeathsMax, " sessions ended while they computed it"), 0});
}

void CoordinatorImpl::ExpireLeases(int64_t now_ms) {
  std::vector<SessionId> expired;
  for (auto& [id, session] : sessions_.live()) {
    // Nobody can push to a server that is down: that is not the session's fault.
    if (!shards_.AllConnected()) session.progress_ms = now_ms;
    if (steps_.HoldsUnsubmitted(id) && now_ms - session.progress_ms >= static_cast<int64_t>(lease_ms_)) expired.push_back(id);
  }
  if (expired.empty()) return;
  const uint64_t outlasted = lease_ms_;
  lease_ms_ = std::min<uint64_t>(2 * lease_ms_, uint64_t{kLeaseGrowthMax} * spec_.lease_ms);
  for (SessionId id : expired) {
    Send(id, CloseSession{absl::StrCat("no progress for ", outlasted, " ms while it held batches; the lease is ", lease_ms_,
                                       " ms from now on (lease_s= of train: longer than one batch takes)"),
                          false});
    EndSession(id, /*blame=*/true);
  }
}

bool CoordinatorImpl::IsSettled(const BatchId& batch) const {
  const auto it = unsettled_.find(batch);
  return settled_ >= (it != unsettled_.end() ? it->second : config_.rules.all_heard_first ? covered_ : 0);
}

bool CoordinatorImpl::AnswerDone(SessionId session, const Claim& claim) {
  const Batch& b = claim.batch;
  Done done;
  done.batch = b;
  const EpochState* epoch = epochs_.Find(b.id.epoch);
  if (epoch == nullptr && b.id != kInitBatch) {
    done.no_epoch = true;
    Send(session, done);
    return true;
  }
  if (epoch == nullptr || epoch->phase != EpochState::Phase::kCommitted || !config_.rules.committed_marker) {
    const std::optional<Ledger::Mark> mark = ledger_.Find(b.id);
    if (!mark || !IsSettled(b.id)) return false;
    done.skipped = mark->skipped;
    done.trained_fingerprint = mark->fingerprint;
    done.conflict = config_.rules.fingerprint_check && b.id != kInitBatch && mark->fingerprint != b.fingerprint;
  }
  ledger_.CountDuplicate(b.id.epoch);
  Send(session, done);
  return true;
}

void CoordinatorImpl::AnswerSettled(const BatchId& batch) {
  if (!config_.rules.decided_answers) return;
  for (const auto& [session, claim] : sessions_.UnparkAll(batch)) AnswerDone(session, claim);
}

// The bytes of `uid` cannot count any more: the session holds none of their batches and waits for none of them. It claims them again.
void CoordinatorImpl::Fence(Session& session, const Uid& uid) {
  for (size_t i = session.parked.size(); i-- > 0;) {
    if (session.parked[i].uid == uid) sessions_.Unpark(session, i);
  }
  std::vector<BatchId> held;
  if (OpenStep* step = steps_.StepOf(session.id, uid); step != nullptr) {
    for (const HeldBatch& h : step->slots[session.id].held) {
      if (h.uid == uid) held.push_back(h.batch.id);
    }
  }
  for (const BatchId& b : held) steps_.Release(b);
  if (session.fenced.size() < kFencedMax) session.fenced.insert(uid);
  Send(session.id, Refuse{uid, Refuse::Reason::kFenced, {}});
}

// Claims that could never be answered, or would make a step of nothing: its divisor is the sum of the rows.
std::string CoordinatorImpl::WrongClaim(const Session& session, const Batch& batch) const {
  if (session.parked.size() >= kParkedMax) return absl::StrCat("more than ", kParkedMax, " claims wait");
  if (batch.id == kInitBatch) return "";
  const auto name = [&] { return absl::StrCat("epoch ", batch.id.epoch, ", partition ", batch.id.partition, ", batch ", batch.id.seq); };
  if (batch.rows == 0 || batch.rows > spec_.batch_rows)
    return absl::StrCat("it claims ", name(), " with ", batch.rows, " rows; allowed: 1 to ", spec_.batch_rows);
  const EpochState* epoch = epochs_.Find(batch.id.epoch);
  if (epoch != nullptr && batch.id.partition >= epoch->record.partitions)
    return absl::StrCat("it claims ", name(), "; the epoch has partitions 0 to ", epoch->record.partitions - 1);
  return "";
}

// Final: another session of this worker would claim the same again.
void CoordinatorImpl::Expel(SessionId id, const std::string& reason, int64_t now_ms) {
  Send(id, CloseSession{absl::StrCat("the session was closed: ", reason), true});
  EndSession(id, /*blame=*/false);
  Advance(now_ms);
}

void CoordinatorImpl::OnClaim(SessionId id, const Batch& batch, std::optional<Uid> uid, int64_t now_ms) {
  Session* session = sessions_.Find(id);
  if (session == nullptr) return;
  session->progress_ms = now_ms;
  if (!session->said_status && batch.id != kInitBatch) session->blocked = false;
  if (uid.has_value() && session->fenced.contains(*uid)) return;
  if (uid.has_value() && uid->session == id) session->last_counter = std::max(session->last_counter, uid->counter);
  Claim claim{batch, uid};
  if (AnswerDone(id, claim)) return;
  if (sessions_.Waits(id, batch.id)) return;  // one answer is enough, however often it asks
  if (const std::string wrong = WrongClaim(*session, batch); !wrong.empty()) return Expel(id, wrong, now_ms);
  const Steps::Holder* holder = steps_.HolderOf(batch.id);
  const bool busy = holder != nullptr && holder->session != id;
  sessions_.Park(*session, std::move(claim));
  if (uid.has_value() && (busy || uid->session != id)) {
    Fence(*session, *uid);
  } else if (uid.has_value() && IsFree(batch.id)) {
    // All batches of one contribution belong to one step, however full it is: they live and die together.
    if (OpenStep* step = steps_.StepOf(id, *uid); step != nullptr) GrantParked(*session, session->parked.size() - 1, *step, now_ms);
  }
  Advance(now_ms);
}

bool CoordinatorImpl::Known(const Uid& uid) const {
  for (const OpenStep& step : steps_.open()) {
    for (const Candidate& c : step.candidates) {
      if (c.submission.uid == uid) return true;
    }
  }
  for (uint64_t index = std::max(settled_ + 1, history_.first()); index <= history_.last(); ++index) {
    for (const Part& part : history_.at(index)->parts) {
      if (part.uid == uid) return true;
    }
  }
  return false;
}

// The step in which the session holds every batch of the submission, exactly as it was claimed; null when there is none.
OpenStep* CoordinatorImpl::StepOfSubmission(const Submission& submission, SessionId session) {
  for (OpenStep& step : steps_.open()) {
    const auto slot = step.slots.find(session);
    if (slot == step.slots.end()) continue;
    absl::flat_hash_map<BatchId, Batch> held;
    for (const HeldBatch& h : slot->second.held) held.emplace(h.batch.id, h.batch);
    // Each is taken out, so that none counts twice.
    const bool all = std::all_of(submission.batches.begin(), submission.batches.end(), [&](const Batch& b) {
      const auto it = held.find(b.id);
      if (!config_.rules.whole_uid && !held.empty()) return true;
      if (it == held.end() || it->second != b) return false;
      held.erase(it);
      return true;
    });
    if (all) return &step;
  }
  return nullptr;
}

// The one place that says whether a contribution may count. Everything else only moves work.
CoordinatorImpl::Submitted CoordinatorImpl::Check(const Submission& submission, SessionId session, OpenStep*& step,
                                                  std::vector<uint32_t>& shards) {
  if (Known(submission.uid)) return Submitted::kKnown;
  uint64_t rows = 0;
  for (const Batch& b : submission.batches) rows += b.rows;
  step = submission.batches.empty() ? nullptr : StepOfSubmission(submission, session);
  if (step == nullptr && !config_.rules.fence_check) {
    for (const Batch& b : submission.batches) {
      if (ledger_.Find(b.id)) return Submitted::kFenced;
    }
    step = steps_.open().empty() ? steps_.StepFor(session, false, version_, durable_version_) : &steps_.open().front();
  }
  if (step == nullptr || rows != submission.rows || (config_.rules.own_uid && submission.uid.session != session)) return Submitted::kFenced;
  const bool fresh = submission.base_version <= durable_version_ && steps_.Fresh(*step, submission.base_version, version_);
  if (config_.rules.stale_check && !fresh) return Submitted::kStale;
  shards = shards_.MissingReceipts(submission);
  return shards.empty() ? Submitted::kOk : Submitted::kReceipts;
}

void CoordinatorImpl::CountTiming(const std::vector<StepTiming>& timing) {
  for (const StepTiming& t : timing) {
    const bool known = timing_.contains(t.phase) || (timing_.size() < kPhasesMax && t.phase.size() <= 64);
    if (known && std::isfinite(t.seconds) && t.seconds >= 0) timing_[t.phase] += t.seconds;
  }
}

void CoordinatorImpl::OnSubmit(SessionId id, Submission submission, int64_t now_ms) {
  Session* session = sessions_.Find(id);
  if (session == nullptr && config_.rules.fence_check) return;
  if (health_ != Health::kRunning) return;
  if (session != nullptr) {
    // The same bytes refused once more are no progress: a worker that is wrong about its pushes must not keep the batches.
    if (submission.uid != session->lacks_receipts || !config_.rules.progress_lease) session->progress_ms = now_ms;
    session->residual_norm = submission.residual_norm;
    if (submission.uid.counter > session->last_counter) session->rows_submitted += submission.rows;
    session->last_counter = std::max(session->last_counter, submission.uid.counter);
    CountTiming(submission.timing);
  }
  OpenStep* step = nullptr;
  std::vector<uint32_t> shards;
  const Uid uid = submission.uid;
  switch (Check(submission, id, step, shards)) {
    case Submitted::kKnown:
      return;
    case Submitted::kOk:
      steps_.Submit(*step, Candidate{id, std::move(submission)}, now_ms);
      break;
    case Submitted::kFenced: {
      for (const Batch& b : submission.batches) {
        const Steps::Holder* holder = steps_.HolderOf(b.id);
        if (holder != nullptr && holder->session == id && id != 0 && !holder->submitted) steps_.Release(b.id);
      }
      if (session != nullptr) Fence(*session, uid);
      break;
    }
    case Submitted::kStale:
    case Submitted::kReceipts:
      // The grants stay: the session submits again, after a newer pull or another push. Flush is repeated so that it does so at once.
      Send(id, Refuse{uid, shards.empty() ? Refuse::Reason::kStale : Refuse::Reason::kReceipts, shards});
      if (session != nullptr && !shards.empty()) session->lacks_receipts = uid;
      if (const auto slot = step->slots.find(id); slot != step->slots.end()) slot->second.flushed = false;
      break;
  }
  Advance(now_ms);
}

void CoordinatorImpl::OnSkip(SessionId id, const Batch& batch, std::string reason, int64_t now_ms) {
  Session* session = sessions_.Find(id);
  if (session == nullptr) return;
  session->progress_ms = now_ms;
  const Steps::Holder* holder = steps_.HolderOf(batch.id);
  if (holder != nullptr && holder->session == id && !holder->submitted) {
    // As it was granted: what the message says of rows and fingerprint is not believed.
    const std::vector<HeldBatch>& held = steps_.Find(holder->label)->slots.at(id).held;
    const Batch granted = std::find_if(held.begin(), held.end(), [&](const HeldBatch& h) { return h.batch.id == batch.id; })->batch;
    steps_.Release(batch.id);
    steps_.Quarantine(batch.id);
    pending_skips_.push_back({granted, Shortened(std::move(reason)), id});
  } else if (Claim claim{batch, std::nullopt}; !AnswerDone(id, claim)) {
    if (const std::string wrong = WrongClaim(*session, batch); !wrong.empty()) return Expel(id, wrong, now_ms);
    sessions_.Park(*session, std::move(claim));  // somebody else has it: the session learns what becomes of it
  }
  Advance(now_ms);
}

void CoordinatorImpl::OnStatus(SessionId id, bool blocked, uint64_t rows_done, int64_t now_ms) {
  Session* session = sessions_.Find(id);
  if (session == nullptr) return;
  if (!session->said_status) session->rows_before = rows_done;
  const uint64_t rows = rows_done - std::min(rows_done, session->rows_before);
  if (rows > session->rows_done || !config_.rules.progress_lease) session->progress_ms = now_ms;
  session->rows_done = std::max(session->rows_done, rows);
  session->blocked = blocked;
  session->said_status = true;
  Advance(now_ms);
}

}  // namespace ballast
