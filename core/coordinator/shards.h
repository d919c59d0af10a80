// What the coordinator knows of the shards: who is connected, what each has accepted and applied, and which receipts still count.
// Used by the coordinator's owner thread.
#ifndef BALLAST_CORE_COORDINATOR_SHARDS_H_
#define BALLAST_CORE_COORDINATOR_SHARDS_H_

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "core/coordinator/coordinator.h"
#include "core/coordinator/rules.h"
#include "core/types.h"

namespace ballast {

class Shards {
 public:
  struct State {
    bool connected = false;    // sent a position since it was lost
    bool seen = false;         // sent one in this life of the coordinator
    uint64_t incarnation = 0;  // of its newest position
    uint64_t receipt_key = 0;  // of the same
    uint64_t accepted = 0;     // newest decision that it took under this life of the coordinator
    uint64_t version = 0;      // applied
    std::set<Uid> undecided;   // complete and durable there when it sent its position
    bool disk_low = false;
    std::string disk_reason;
  };

  explicit Shards(uint32_t count, Rules rules = {}) : rules_(rules), states_(count) {}

  uint32_t size() const { return static_cast<uint32_t>(states_.size()); }
  bool Has(uint32_t shard) const { return shard < states_.size(); }
  State& operator[](uint32_t shard) { return states_[shard]; }
  const State& operator[](uint32_t shard) const { return states_[shard]; }

  bool AllSeen() const;
  bool AllConnected() const;
  // Every shard has accepted the decisions up to here.
  uint64_t AcceptedIndex() const;
  uint64_t SlowestVersion() const;
  // Null when every disk has room.
  const State* LowDisk() const;

  // Shard 0 appended the whole contribution in this life of the coordinator, or found it durable at recovery.
  void OwnLogHas(const Uid& uid) { own_log_.insert(uid); }
  // Shards whose receipt for this submission is missing or does not count any more.
  std::vector<uint32_t> MissingReceipts(const Submission& submission) const;
  // The contribution is decided / sessions below are closed: nobody asks for their receipts again.
  void Forget(const Uid& uid);
  void ForgetBelow(uint64_t session);

 private:
  const Rules rules_;
  std::vector<State> states_;
  std::set<Uid> own_log_;
};

}  // namespace ballast

#endif  // BALLAST_CORE_COORDINATOR_SHARDS_H_
