// The open steps: which session holds which batch, what is submitted, when a step is ready to be decided. A step is open from its first
// grant until its decision is appended.
//
// With step_rows > 0 a step is the next step_rows rows, wherever they are computed; steps are decided in the order in which they opened.
// With step_rows = 0 every step belongs to one session and holds one contribution; the one with the oldest base is decided first.
// Membership is derived: a session is in a step iff it holds a granted batch there that it has not submitted.
//
// Used by the coordinator's owner thread. Times: milliseconds of the coordinator's clock.
#ifndef BALLAST_CORE_COORDINATOR_STEP_H_
#define BALLAST_CORE_COORDINATOR_STEP_H_

#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "core/coordinator/coordinator.h"
#include "core/coordinator/rules.h"
#include "core/types.h"

namespace ballast {

struct HeldBatch {
  Batch batch;
  std::optional<Uid> uid;  // claimed with bytes that stand
};

// One session's granted, unsubmitted batches of one step.
struct Slot {
  std::vector<HeldBatch> held;
  uint64_t rows = 0;
  uint64_t base = 0;     // version of its oldest grant
  bool flushed = false;  // told to submit: takes no more batches
  bool alone = false;    // holds a batch that may kill sessions: flushed at once
  int64_t first_grant_ms = 0;
  int64_t last_grant_ms = 0;
};

struct Candidate {  // a submitted contribution that passed every check
  SessionId session = 0;
  Submission submission;
};

struct OpenStep {
  uint64_t label = 0;  // Grant.step: groups batches, is not the number of the decision
  DecisionKind kind = DecisionKind::kStep;
  bool single = false;  // step_rows == 0
  uint64_t rows = 0;    // granted and submitted
  uint64_t batches = 0;
  std::map<SessionId, Slot> slots;
  std::vector<Candidate> candidates;  // in the order of Submit
  int64_t first_submit_ms = -1;
  bool full = false;
  bool sealed = false;  // its norm is being asked for: takes no more batches

  bool HasHeld() const;
  bool Empty() const { return candidates.empty() && !HasHeld(); }
  // Oldest version that anything in it was or will be computed from.
  uint64_t Base() const;
};

struct StepRules {
  uint64_t step_rows = 0;
  uint64_t contribution_rows = 0;
  uint32_t staleness_max = 0;
  Rules on = {};
};

class Steps {
 public:
  struct Holder {
    SessionId session = 0;  // 0: nobody trains it; it waits for its SKIP decision
    uint64_t label = 0;
    bool submitted = false;
  };

  Steps(StepRules rules, uint64_t first_label) : rules_(rules), next_label_(first_label) {}

  std::list<OpenStep>& open() { return open_; }
  const std::list<OpenStep>& open() const { return open_; }
  OpenStep* Find(uint64_t label);
  const Holder* HolderOf(const BatchId& batch) const;
  // Contributions of a session that are not decided: submitted ones and slots with batches.
  int InFlight(SessionId session) const;
  bool HoldsUnsubmitted(SessionId session) const;

  // The step that may take one more batch of a session, null when none may now.
  // `alone`: the session must hold nothing else until it has submitted this batch.
  OpenStep* StepFor(SessionId session, bool alone, uint64_t appended_version, uint64_t durable_version);
  OpenStep& OpenInit();
  // The step in which the session holds another batch of these bytes.
  OpenStep* StepOf(SessionId session, const Uid& uid);

  void Grant(OpenStep& step, SessionId session, HeldBatch batch, uint64_t base, bool alone, int64_t now_ms);
  // Moves the batches of a checked submission from the slot to the candidates.
  void Submit(OpenStep& step, Candidate candidate, int64_t now_ms);
  // A candidate that must be submitted again: its batches are held again.
  void Withdraw(OpenStep& step, size_t candidate, int64_t now_ms);
  // Gives up one held, unsubmitted batch; drops the step when nothing is left in it.
  void Release(const BatchId& batch);
  // Nobody gets the batch until DecidedSkip.
  void Quarantine(const BatchId& batch) { holders_[batch] = Holder{}; }
  // Everything of a session. `withdraw`: its candidates go too.
  void ReleaseSession(SessionId session, bool withdraw);
  // The decision of `step` is appended: its batches have no holder any more, the step is gone.
  void Decided(uint64_t label);
  void DecidedSkip(const BatchId& batch) { holders_.erase(batch); }
  void Clear();

  // lag = version_made - 1 - base of a contribution with this base in this step, if steps are decided in their order.
  bool Fresh(const OpenStep& step, uint64_t base, uint64_t appended_version) const;
  // The step to be decided next if it is ready, for step_rows = 0: oldest base first, null while that would make another step too stale.
  OpenStep* NextSingle(uint64_t appended_version);
  // Batches that are held or submitted, of one epoch.
  std::vector<BatchId> HeldOf(uint32_t epoch) const;

 private:
  OpenStep& Append(DecisionKind kind);
  bool HoldsAlone(SessionId session) const;
  bool Unbounded() const { return rules_.staleness_max == kStalenessUnbounded; }
  // Whether steps with these bases can all be decided, oldest first, the first one as version appended + 1.
  bool Feasible(std::vector<uint64_t> bases, uint64_t appended_version) const;
  std::vector<uint64_t> Bases(const OpenStep* except) const;
  void Refill(OpenStep& step);
  void DropEmpty();

  const StepRules rules_;
  uint64_t next_label_;
  std::list<OpenStep> open_;  // in order; nodes: an OpenStep* stays until it is decided or dropped
  absl::flat_hash_map<BatchId, Holder> holders_;
};

}  // namespace ballast

#endif  // BALLAST_CORE_COORDINATOR_STEP_H_
