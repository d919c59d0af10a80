#include "core/coordinator/sessions.h"

#include <algorithm>
#include <utility>

namespace ballast {

bool Sessions::MayResume(SessionId id) const {
  if (!rules_.resume_once) return id != 0;
  return id != 0 && (id >> 32) < incarnation_ && id >= closed_below_ && !resumed_.contains(id);
}

Sessions::Opened Sessions::Open(const std::string& worker, SessionId resume, int64_t now_ms) {
  const bool resumed = MayResume(resume);
  const SessionId id = resumed ? resume : (incarnation_ << 32 | next_++);
  if (resumed) resumed_.insert(id);
  Session& session = live_[id];
  session.id = id;
  session.worker = worker;
  session.progress_ms = now_ms;
  return {&session, resumed};
}

void Sessions::Close(SessionId id) {
  Session* session = Find(id);
  if (session == nullptr) return;
  while (!session->parked.empty()) Unpark(*session, session->parked.size() - 1);
  live_.erase(id);
}

Session* Sessions::Find(SessionId id) {
  const auto it = live_.find(id);
  return it == live_.end() ? nullptr : &it->second;
}

uint64_t Sessions::ClosedBelow() {
  if (!live_.empty()) closed_below_ = std::max(closed_below_, live_.begin()->first);
  return closed_below_;
}

void Sessions::Park(Session& session, Claim claim) {
  waiting_[claim.batch.id].push_back(session.id);
  session.parked.push_back(std::move(claim));
}

bool Sessions::Waits(SessionId session, const BatchId& batch) const {
  const auto it = waiting_.find(batch);
  return it != waiting_.end() && std::find(it->second.begin(), it->second.end(), session) != it->second.end();
}

Claim Sessions::Unpark(Session& session, size_t at) {
  Claim claim = std::move(session.parked[at]);
  session.parked.erase(session.parked.begin() + static_cast<std::ptrdiff_t>(at));
  const auto it = waiting_.find(claim.batch.id);
  it->second.erase(std::find(it->second.begin(), it->second.end(), session.id));
  if (it->second.empty()) waiting_.erase(it);
  return claim;
}

std::vector<std::pair<SessionId, Claim>> Sessions::UnparkAll(const BatchId& batch) {
  std::vector<std::pair<SessionId, Claim>> claims;
  for (auto it = waiting_.find(batch); it != waiting_.end(); it = waiting_.find(batch)) {
    Session& session = live_.at(it->second.front());
    const auto at = std::find_if(session.parked.begin(), session.parked.end(), [&](const Claim& c) { return c.batch.id == batch; });
    claims.emplace_back(session.id, Unpark(session, static_cast<size_t>(at - session.parked.begin())));
  }
  return claims;
}

std::vector<SessionId> Sessions::Waiting(const BatchId& batch) const {
  const auto it = waiting_.find(batch);
  return it == waiting_.end() ? std::vector<SessionId>() : it->second;
}

std::vector<BatchId> Sessions::ParkedOf(uint32_t epoch) const {
  std::vector<BatchId> batches;
  for (const auto& [batch, sessions] : waiting_) {
    if (batch.epoch == epoch) batches.push_back(batch);
  }
  std::sort(batches.begin(), batches.end());  // the hash map's order differs between processes
  return batches;
}

}  // namespace ballast
