#include "core/coordinator/step.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"

namespace ballast {
namespace {

Slot NewSlot(uint64_t base, int64_t now_ms) {
  Slot slot;
  slot.base = base;
  slot.first_grant_ms = slot.last_grant_ms = now_ms;
  return slot;
}

}  // namespace

bool OpenStep::HasHeld() const {
  return std::any_of(slots.begin(), slots.end(), [](const auto& slot) { return !slot.second.held.empty(); });
}

uint64_t OpenStep::Base() const {
  uint64_t base = ~uint64_t{0};
  for (const auto& [session, slot] : slots) {
    if (!slot.held.empty()) base = std::min(base, slot.base);
  }
  for (const Candidate& c : candidates) base = std::min(base, c.submission.base_version);
  return base;
}

OpenStep* Steps::Find(uint64_t label) {
  const auto it = std::find_if(open_.begin(), open_.end(), [&](const OpenStep& s) { return s.label == label; });
  return it == open_.end() ? nullptr : &*it;
}

const Steps::Holder* Steps::HolderOf(const BatchId& batch) const {
  const auto it = holders_.find(batch);
  return it == holders_.end() ? nullptr : &it->second;
}

int Steps::InFlight(SessionId session) const {
  int count = 0;
  for (const OpenStep& step : open_) {
    const auto slot = step.slots.find(session);
    if (slot != step.slots.end() && !slot->second.held.empty()) ++count;
    for (const Candidate& c : step.candidates) count += c.session == session;
  }
  return count;
}

bool Steps::HoldsUnsubmitted(SessionId session) const {
  return std::any_of(open_.begin(), open_.end(), [&](const OpenStep& step) {
    const auto slot = step.slots.find(session);
    return slot != step.slots.end() && !slot->second.held.empty();
  });
}

bool Steps::HoldsAlone(SessionId session) const {
  return std::any_of(open_.begin(), open_.end(), [&](const OpenStep& step) {
    const auto slot = step.slots.find(session);
    return slot != step.slots.end() && !slot->second.held.empty() && slot->second.alone;
  });
}

OpenStep& Steps::Append(DecisionKind kind) {
  OpenStep& step = open_.emplace_back();
  step.label = next_label_++;
  step.kind = kind;
  step.single = rules_.step_rows == 0;
  return step;
}

OpenStep& Steps::OpenInit() { return Append(DecisionKind::kInit); }

OpenStep* Steps::StepFor(SessionId session, bool alone, uint64_t appended_version, uint64_t durable_version) {
  if (HoldsAlone(session)) return nullptr;
  OpenStep* lowest = nullptr;
  for (OpenStep& step : open_) {
    const bool mine = !step.single || (step.candidates.empty() && step.slots.contains(session));
    if (!step.full && !step.sealed && mine && step.kind == DecisionKind::kStep) {
      const auto slot = step.slots.find(session);
      const bool holds = slot != step.slots.end() && !slot->second.held.empty();
      if (holds && (slot->second.flushed || alone)) {
        if (!step.single) return nullptr;  // it can take more after it has submitted
        continue;
      }
      lowest = &step;
      if (holds) return lowest;
      break;
    }
  }
  if (rules_.on.session_quota && InFlight(session) >= (alone ? 1 : kInFlightMax)) return nullptr;
  if (lowest != nullptr) return lowest;
  // A new step would be the last of the open ones: it must still be fresh when all before it are decided.
  if (!Unbounded() && rules_.on.lag_delay && appended_version + open_.size() - durable_version > rules_.staleness_max) return nullptr;
  return &Append(DecisionKind::kStep);
}

OpenStep* Steps::StepOf(SessionId session, const Uid& uid) {
  for (OpenStep& step : open_) {
    const auto slot = step.slots.find(session);
    if (slot == step.slots.end()) continue;
    for (const HeldBatch& h : slot->second.held) {
      if (h.uid == uid) return &step;
    }
  }
  return nullptr;
}

void Steps::Refill(OpenStep& step) {
  step.full = step.kind == DecisionKind::kInit || step.batches >= kStepBatchesMax ||
              (!step.single && step.rows >= rules_.step_rows && rules_.on.step_rows_limit);
}

void Steps::Grant(OpenStep& step, SessionId session, HeldBatch batch, uint64_t base, bool alone, int64_t now_ms) {
  Slot& slot = step.slots[session];
  if (slot.held.empty()) slot = NewSlot(base, now_ms);
  slot.alone |= alone;
  slot.last_grant_ms = now_ms;
  slot.rows += batch.batch.rows;
  step.rows += batch.batch.rows;
  ++step.batches;
  holders_[batch.batch.id] = {session, step.label, false};
  slot.held.push_back(std::move(batch));
  Refill(step);
}

void Steps::Submit(OpenStep& step, Candidate candidate, int64_t now_ms) {
  Slot& slot = step.slots[candidate.session];
  absl::flat_hash_set<BatchId> submitted;
  for (const Batch& b : candidate.submission.batches) {
    submitted.insert(b.id);
    slot.rows -= std::min<uint64_t>(slot.rows, b.rows);
    holders_[b.id] = {candidate.session, step.label, true};
  }
  std::erase_if(slot.held, [&](const HeldBatch& h) { return submitted.contains(h.batch.id); });
  slot.flushed = false;  // what is left needs a Flush of its own
  slot.alone = false;
  if (step.first_submit_ms < 0) step.first_submit_ms = now_ms;
  step.candidates.push_back(std::move(candidate));
}

void Steps::Withdraw(OpenStep& step, size_t candidate, int64_t now_ms) {
  Candidate c = std::move(step.candidates[candidate]);
  step.candidates.erase(step.candidates.begin() + static_cast<std::ptrdiff_t>(candidate));
  step.sealed = false;
  if (step.candidates.empty()) step.first_submit_ms = -1;
  Slot& slot = step.slots[c.session];
  if (slot.held.empty()) slot = NewSlot(c.submission.base_version, now_ms);
  slot.flushed = false;  // it is told to submit again
  for (const Batch& b : c.submission.batches) {
    slot.held.push_back({b, c.submission.uid});
    slot.rows += b.rows;
    holders_[b.id] = {c.session, step.label, false};
  }
}

void Steps::Release(const BatchId& batch) {
  const auto holder = holders_.find(batch);
  if (holder == holders_.end()) return;
  if (OpenStep* step = Find(holder->second.label); step != nullptr) {
    Slot& slot = step->slots[holder->second.session];
    for (const HeldBatch& h : slot.held) {
      if (h.batch.id != batch) continue;
      slot.rows -= h.batch.rows;
      step->rows -= h.batch.rows;
      --step->batches;
    }
    std::erase_if(slot.held, [&](const HeldBatch& h) { return h.batch.id == batch; });
    Refill(*step);
  }
  holders_.erase(holder);
  DropEmpty();
}

void Steps::ReleaseSession(SessionId session, bool withdraw) {
  for (OpenStep& step : open_) {
    if (const auto slot = step.slots.find(session); slot != step.slots.end()) {
      for (const HeldBatch& h : slot->second.held) {
        step.rows -= h.batch.rows;
        --step.batches;
        holders_.erase(h.batch.id);
      }
      step.slots.erase(slot);
    }
    for (size_t i = step.candidates.size(); i-- > 0;) {
      if (step.candidates[i].session != session) continue;
      for (const Batch& b : step.candidates[i].submission.batches) holders_.erase(b.id);
      if (!withdraw) continue;
      step.rows -= step.candidates[i].submission.rows;
      step.batches -= step.candidates[i].submission.batches.size();
      step.candidates.erase(step.candidates.begin() + static_cast<std::ptrdiff_t>(i));
      step.sealed = false;
    }
    if (step.candidates.empty()) step.first_submit_ms = -1;
    Refill(step);
  }
  DropEmpty();
}

void Steps::Decided(uint64_t label) {
  const auto step = std::find_if(open_.begin(), open_.end(), [&](const OpenStep& s) { return s.label == label; });
  for (const Candidate& c : step->candidates) {
    for (const Batch& b : c.submission.batches) {
      const auto holder = holders_.find(b.id);
      if (holder != holders_.end() && holder->second.session == c.session) holders_.erase(holder);
    }
  }
  open_.erase(step);
}

void Steps::Clear() {
  open_.clear();
  holders_.clear();
}

void Steps::DropEmpty() {
  open_.remove_if([](const OpenStep& step) { return step.Empty(); });
}

bool Steps::Feasible(std::vector<uint64_t> bases, uint64_t appended_version) const {
  if (Unbounded() || !rules_.on.lag_delay) return true;
  std::sort(bases.begin(), bases.end());
  for (size_t i = 0; i < bases.size(); ++i) {
    if (appended_version + i > bases[i] + rules_.staleness_max) return false;
  }
  return true;
}

std::vector<uint64_t> Steps::Bases(const OpenStep* except) const {
  std::vector<uint64_t> bases;
  for (const OpenStep& step : open_) {
    if (&step != except) bases.push_back(step.Base());
  }
  return bases;
}

bool Steps::Fresh(const OpenStep& step, uint64_t base, uint64_t appended_version) const {
  if (Unbounded() || step.kind == DecisionKind::kInit) return true;
  if (step.single) {
    std::vector<uint64_t> bases = Bases(&step);
    bases.push_back(base);
    return Feasible(std::move(bases), appended_version);
  }
  uint64_t before = 0;
  for (const OpenStep& s : open_) {
    if (&s == &step) break;
    ++before;
  }
  return appended_version + before <= base + rules_.staleness_max;
}

OpenStep* Steps::NextSingle(uint64_t appended_version) {
  OpenStep* next = nullptr;
  for (OpenStep& step : open_) {
    if (step.candidates.empty() || step.HasHeld()) continue;
    if (next == nullptr || step.Base() < next->Base()) next = &step;
  }
  if (next != nullptr && !Feasible(Bases(next), appended_version + 1)) return nullptr;
  return next;
}

std::vector<BatchId> Steps::HeldOf(uint32_t epoch) const {
  std::vector<BatchId> batches;
  for (const auto& [batch, holder] : holders_) {
    if (batch.epoch == epoch) batches.push_back(batch);
  }
  std::sort(batches.begin(), batches.end());
  return batches;
}

}  // namespace ballast
