#include "tests/sim/parts.h"

#include <algorithm>

namespace ballast::sim {

std::vector<Uid> SimShard::Undecided() const {
  const uint64_t closed_below = decisions.empty() ? 0 : decisions.back()->sessions_closed_below;
  std::set<Uid> decided;
  for (const DecisionPtr& d : decisions) {
    for (const Part& part : d->parts) decided.insert(part.uid);
  }
  std::vector<Uid> undecided;
  for (const auto& [uid, synced] : contributions) {
    if ((synced || in_memory.contains(uid)) && uid.session >= closed_below && !decided.contains(uid)) undecided.push_back(uid);
  }
  return undecided;
}

void SimShard::Sync() {
  for (auto& [uid, synced] : contributions) synced = !in_memory.contains(uid);
  synced_decisions = decisions.size();
}

void SimShard::LoseTail() {
  std::erase_if(contributions, [](const auto& c) { return !c.second; });
  decisions.resize(synced_decisions);
  applied = 0;
  in_memory.clear();
  lost = false;
  rows_applied = 0;
  std::erase_if(rows_at, [&](const auto& r) { return !checkpoints.contains(r.first); });
  receipts_due.clear();
  checkpoints_due.clear();
}

SimContribution* SimWorker::Find(const Uid& uid) {
  const auto it = std::find_if(contributions.begin(), contributions.end(), [&](const SimContribution& c) { return c.uid == uid; });
  return it == contributions.end() ? nullptr : &*it;
}

}  // namespace ballast::sim
