#include "core/coordinator/shards.h"

#include <algorithm>

#include "core/coordinator/receipt.h"

namespace ballast {

bool Shards::AllSeen() const {
  return std::all_of(states_.begin(), states_.end(), [](const State& s) { return s.seen; });
}

bool Shards::AllConnected() const {
  return std::all_of(states_.begin(), states_.end(), [](const State& s) { return s.connected; });
}

uint64_t Shards::AcceptedIndex() const {
  uint64_t index = ~uint64_t{0};
  for (const State& s : states_) index = std::min(index, s.seen ? s.accepted : 0);
  return index;
}

uint64_t Shards::SlowestVersion() const {
  uint64_t version = ~uint64_t{0};
  for (const State& s : states_) version = std::min(version, s.version);
  return version;
}

const Shards::State* Shards::LowDisk() const {
  const auto it = std::find_if(states_.begin(), states_.end(), [](const State& s) { return s.disk_low; });
  return it == states_.end() ? nullptr : &*it;
}

std::vector<uint32_t> Shards::MissingReceipts(const Submission& submission) const {
  std::vector<uint32_t> missing;
  for (uint32_t shard = 0; shard < size(); ++shard) {
    const State& state = states_[shard];
    // A receipt of a life whose position is still on the way counts when it is pushed for and submitted again.
    const bool current = std::any_of(submission.receipts.begin(), submission.receipts.end(), [&](const Receipt& r) {
      return r.shard == shard && (shard == 0 || !rules_.live_receipts || r.proof == ReceiptProof(state.receipt_key, submission.uid, r) ||
                                  (rules_.kept_receipts && state.undecided.contains(submission.uid)));
    });
    // The receipt of shard 0 means "appended": after a crash of server 0 it is a lie unless the log has the bytes.
    const bool logged = shard != 0 || !rules_.own_log_check || own_log_.contains(submission.uid);
    if (!logged || !(current || (!rules_.all_receipts && shard != 0))) missing.push_back(shard);
  }
  return missing;
}

void Shards::Forget(const Uid& uid) {
  own_log_.erase(uid);
  for (State& s : states_) s.undecided.erase(uid);
}

void Shards::ForgetBelow(uint64_t session) {
  const Uid below{session, 0};
  own_log_.erase(own_log_.begin(), own_log_.lower_bound(below));
  for (State& s : states_) s.undecided.erase(s.undecided.begin(), s.undecided.lower_bound(below));
}

}  // namespace ballast
