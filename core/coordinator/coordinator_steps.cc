// Steps: who is granted what, who is told to submit, what is decided.
#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/coordinator/coordinator_impl.h"
#include "core/optimizer/optimizer.h"

namespace ballast {

// ---- grant -------------------------------------------------------------------------------------------------------------------------

bool CoordinatorImpl::MayGrant() const {
  return health_ == Health::kRunning && !(rollback_ && config_.rules.rollback_is_covered) &&
         (shards_.LowDisk() == nullptr || !config_.rules.disk_parks);
}

bool CoordinatorImpl::IsFree(const BatchId& batch) const {
  return epochs_.Grantable(batch) && steps_.HolderOf(batch) == nullptr && !(config_.rules.ledger_check && ledger_.Find(batch).has_value());
}

// Sessions that held it have ended. It is tried alone once, so that only the batch that ends sessions is quarantined.
bool CoordinatorImpl::IsSuspect(const BatchId& batch) const {
  const auto it = deaths_.find(batch);
  return it != deaths_.end() && it->second >= kDeathsMax - 1;
}

std::optional<size_t> CoordinatorImpl::FirstFree(const Session& session) const {
  for (size_t i = 0; i < session.parked.size(); ++i) {
    if (IsFree(session.parked[i].batch.id)) return i;
  }
  return std::nullopt;
}

// Round-robin: after a grant the turn passes to the next session, so that a long queue cannot take the whole step.
void CoordinatorImpl::Admit(int64_t now_ms) {
  if (!MayGrant()) return;
  if (version_ == 0) AdmitInit(now_ms);
  if (durable_version_ == 0) return;
  if (Volatile() && checkpoints_.newest() == nullptr) return;  // there must be something to go back to
  bool granted = true;
  while (granted) {
    granted = false;
    auto& live = sessions_.live();
    auto it = config_.rules.round_robin ? live.upper_bound(last_granted_) : live.begin();
    for (size_t turns = live.size(); turns > 0 && !granted; --turns) {
      if (it == live.end()) it = live.begin();
      granted = AdmitOne(it->second, now_ms);
      ++it;
    }
  }
}

bool CoordinatorImpl::AdmitOne(Session& session, int64_t now_ms) {
  const std::optional<size_t> at = FirstFree(session);
  if (!at) return false;
  const Claim& claim = session.parked[*at];
  OpenStep* step = claim.uid ? steps_.StepOf(session.id, *claim.uid) : nullptr;
  if (step == nullptr) step = steps_.StepFor(session.id, IsSuspect(claim.batch.id), version_, durable_version_);
  if (step == nullptr) return false;
  const std::optional<Uid> uid = claim.uid;
  GrantParked(session, *at, *step, now_ms);
  for (size_t i = 0; uid.has_value() && i < session.parked.size();) {  // the rest of the same bytes
    if (session.parked[i].uid == uid && IsFree(session.parked[i].batch.id)) {
      GrantParked(session, i, *step, now_ms);
    } else {
      ++i;
    }
  }
  last_granted_ = session.id;
  return true;
}

void CoordinatorImpl::AdmitInit(int64_t now_ms) {
  if (config_.rules.init_once && (steps_.HolderOf(kInitBatch) != nullptr || ledger_.Find(kInitBatch))) return;
  for (SessionId id : sessions_.Waiting(kInitBatch)) {
    Session& session = *sessions_.Find(id);
    for (size_t i = 0; i < session.parked.size(); ++i) {
      if (session.parked[i].batch.id != kInitBatch) continue;
      GrantParked(session, i, steps_.OpenInit(), now_ms);
      return;
    }
  }
}

void CoordinatorImpl::GrantParked(Session& session, size_t at, OpenStep& step, int64_t now_ms) {
  if (!steps_.HoldsUnsubmitted(session.id)) session.progress_ms = now_ms;  // its lease begins
  const Claim claim = sessions_.Unpark(session, at);
  steps_.Grant(step, session.id, {claim.batch, claim.uid}, durable_version_, IsSuspect(claim.batch.id), now_ms);
  Send(session.id, Grant{claim.batch, step.label, durable_version_, claim.uid});
  FenceWaiters(claim.batch.id);
}

// Others who hold bytes with this batch wait in vain: the bytes cannot count any more.
void CoordinatorImpl::FenceWaiters(const BatchId& batch) {
  for (SessionId id : sessions_.Waiting(batch)) {
    if (id == steps_.HolderOf(batch)->session) continue;
    Session* session = sessions_.Find(id);
    const auto claim = std::find_if(session->parked.begin(), session->parked.end(),
                                    [&](const Claim& c) { return c.batch.id == batch && c.uid.has_value(); });
    if (claim != session->parked.end()) Fence(*session, Uid(*claim->uid));
  }
}

// ---- flush -------------------------------------------------------------------------------------------------------------------------

bool CoordinatorImpl::Lingered(const OpenStep& step, int64_t now_ms) const {
  return config_.rules.linger && step.first_submit_ms >= 0 && now_ms - step.first_submit_ms >= static_cast<int64_t>(spec_.linger_ms);
}

// With step_rows = 0: a part-full slot may hold up others, who wait for their decision or for a slot.
bool CoordinatorImpl::SomebodyWaits(SessionId but) const {
  for (const OpenStep& step : steps_.open()) {
    if (!step.candidates.empty()) return true;
  }
  return std::any_of(sessions_.live().begin(), sessions_.live().end(),
                     [&](const auto& s) { return s.first != but && FirstFree(s.second).has_value(); });
}

bool CoordinatorImpl::FlushDue(const OpenStep& step, const Slot& slot, const Session& session, int64_t now_ms) const {
  if (step.full || step.sealed || slot.alone || slot.rows >= std::max<uint64_t>(spec_.contribution_rows, 1)) return true;
  if (!config_.rules.flush_blocked) return false;
  // Admit ran before: whatever of its claims could be granted is granted.
  if (session.blocked || Lingered(step, now_ms)) return true;
  // A source that pauses must not look like a session that hangs: what it holds is submitted well before its lease ends.
  if (now_ms - slot.last_grant_ms >= static_cast<int64_t>(lease_ms_ / 2)) return true;
  return step.single && now_ms - slot.first_grant_ms >= static_cast<int64_t>(spec_.linger_ms) && SomebodyWaits(session.id);
}

void CoordinatorImpl::FlushSlots(int64_t now_ms) {
  for (OpenStep& step : steps_.open()) {
    for (auto& [id, slot] : step.slots) {
      const Session* session = sessions_.Find(id);
      if (slot.held.empty() || slot.flushed || session == nullptr || !FlushDue(step, slot, *session, now_ms)) continue;
      slot.flushed = true;
      Send(id, Flush{step.label});
    }
  }
}

// ---- decide ------------------------------------------------------------------------------------------------------------------------

// Admit ran before: nothing that waits can be granted now.
bool CoordinatorImpl::NobodyCanAdd() const {
  return std::all_of(sessions_.live().begin(), sessions_.live().end(),
                     [&](const auto& s) { return s.second.blocked || steps_.InFlight(s.first) >= kInFlightMax; });
}

bool CoordinatorImpl::Ready(const OpenStep& step, int64_t now_ms) const {
  if (step.candidates.empty() || step.HasHeld()) return false;
  if (!config_.rules.grant_is_membership) {
    for (const auto& [id, session] : sessions_.live()) {
      const bool submitted =
          std::any_of(step.candidates.begin(), step.candidates.end(), [&, id = id](const Candidate& c) { return c.session == id; });
      if (!submitted && !session.parked.empty()) return false;
    }
  }
  return step.full || step.sealed || NobodyCanAdd() || Lingered(step, now_ms) || !config_.rules.step_waits_until_full;
}

OpenStep* CoordinatorImpl::NextReady(int64_t now_ms) {
  if (steps_.open().empty()) return nullptr;
  OpenStep& front = steps_.open().front();
  if (front.single && front.kind == DecisionKind::kStep) return steps_.NextSingle(version_);
  return Ready(front, now_ms) ? &front : nullptr;
}

bool CoordinatorImpl::DecideSteps(int64_t now_ms) {
  // Before every shard has said where it stands, nobody knows whether this coordinator has the newest history.
  if (!shards_.AllSeen()) return false;
  bool decided = false;
  while (OpenStep* step = NextReady(now_ms)) {
    if (config_.rules.slowest_server && version_ >= shards_.SlowestVersion() + kVersionsAheadMax) break;
    if (WithdrawInvalid(*step, now_ms)) return true;
    float clip_scale = 1;
    if (spec_.clip_norm > 0 && step->kind == DecisionKind::kStep) {
      const std::optional<double> norm2 = Norm2(*step);
      if (!norm2) break;
      uint64_t rows = 0;
      for (const Candidate& c : step->candidates) rows += c.submission.rows;
      clip_scale = ClipScale(*norm2, spec_.reduction == Reduction::kMean ? static_cast<double>(rows) : 1, spec_.clip_norm);
    }
    Decide(*step, clip_scale);
    decided = true;
  }
  return decided;
}

// Receipts count at the moment of the decision, not only when they were submitted. True when something was withdrawn.
bool CoordinatorImpl::WithdrawInvalid(OpenStep& step, int64_t now_ms) {
  bool withdrawn = false;
  for (size_t i = step.candidates.size(); i-- > 0;) {
    const Candidate& c = step.candidates[i];
    std::vector<uint32_t> missing = shards_.MissingReceipts(c.submission);
    if (missing.empty()) continue;
    if (Session* session = sessions_.Find(c.session); session != nullptr) session->progress_ms = now_ms;
    Send(c.session, Refuse{c.submission.uid, Refuse::Reason::kReceipts, std::move(missing)});
    steps_.Withdraw(step, i, now_ms);
    withdrawn = true;
  }
  return withdrawn;
}

std::optional<double> CoordinatorImpl::Norm2(OpenStep& step) {
  std::vector<Uid> uids;
  for (const Candidate& c : step.candidates) uids.push_back(c.submission.uid);
  if (norm_.uids != uids) {
    if (!shards_.AllConnected()) return std::nullopt;
    norm_.uids = uids;
    norm_.answers.assign(shards_.size(), std::nullopt);
    ++norm_.query;
    step.sealed = true;
    for (uint32_t s = 0; s < shards_.size(); ++s) SendShard(s, NormQuery{norm_.query, uids});
  }
  double norm2 = 0;
  for (const std::optional<double>& answer : norm_.answers) {
    if (!answer && config_.rules.whole_norm) return std::nullopt;
    norm2 += answer.value_or(0);
  }
  return norm2;
}

Decision CoordinatorImpl::NewDecision(DecisionKind kind) {
  Decision d;
  d.run = spec_.name;
  d.generation = generation_;
  d.kind = kind;
  d.kernel_id = KernelIdOf(spec_.optimizer);
  d.version = version_;
  d.step = config_.rules.steps_count_steps ? step_ : step_ + 1;
  d.sessions_closed_below = config_.rules.session_garbage ? sessions_.ClosedBelow() : 0;
  return d;
}

void CoordinatorImpl::Decide(OpenStep& step, float clip_scale) {
  Decision d = NewDecision(step.kind);
  uint64_t rows = 0;
  for (Candidate& c : step.candidates) {
    const Submission& s = c.submission;
    d.parts.push_back({s.uid, s.rows, s.batches, s.base_version, s.loss_sum});
    rows += s.rows;
    if (step.kind == DecisionKind::kStep) max_lag_ = std::max(max_lag_, version_ - std::min(version_, s.base_version));
    shards_.Forget(s.uid);
  }
  if (!config_.rules.submit_order) std::sort(d.parts.begin(), d.parts.end(), [](const Part& a, const Part& b) { return a.uid < b.uid; });
  d.version = version_ + 1;
  if (step.kind == DecisionKind::kStep) {
    d.step = step_ + 1;
    d.divisor = spec_.reduction == Reduction::kMean ? static_cast<float>(config_.rules.divisor_of_rows ? rows : spec_.step_rows) : 1;
    d.clip_scale = clip_scale;
    d.hyper = HyperOf(spec_.optimizer, spec_.schedule, d.step);
  }
  steps_.Decided(step.label);
  norm_.uids.clear();
  Append(std::move(d));
}

void CoordinatorImpl::Append(Decision decision) {
  std::shared_ptr<const Decision> appended = history_.Append(std::move(decision));
  Apply(*appended);
  shards_.ForgetBelow(appended->sessions_closed_below);
  outputs_.push_back(AppendDecision{appended});
  if (Volatile() && appended->kind == DecisionKind::kInit) checkpoints_.Want();
  if (spec_.checkpoint_versions > 0 && version_ - checkpoint_version_ >= spec_.checkpoint_versions) checkpoints_.Want();
}

// A batch that cannot be trained is on the record at once, outside of any step.
void CoordinatorImpl::DecideSkips() {
  if (!shards_.AllSeen()) return;
  while (!pending_skips_.empty() && health_ == Health::kRunning) {
    const PendingSkip skip = std::move(pending_skips_.front());
    pending_skips_.pop_front();
    if (skip.batch.id == kInitBatch) return Fail(absl::StrCat("the initial weights could not be set: ", skip.reason));
    steps_.DecidedSkip(skip.batch.id);
    if (skip.session != 0) skipped_by_[skip.batch.id] = skip.session;
    Decision d = NewDecision(DecisionKind::kSkip);
    d.skipped.push_back({skip.batch, skip.reason});
    Append(std::move(d));
    if (config_.rules.skip_limit && skips_in_a_row_ >= spec_.skips_max) {
      Fail(absl::StrCat(skips_in_a_row_, " batches in a row could not be trained; the last one is epoch ", skip.batch.id.epoch,
                        ", partition ", skip.batch.id.partition, ", batch ", skip.batch.id.seq, ": ", skip.reason));
    }
  }
}

}  // namespace ballast
