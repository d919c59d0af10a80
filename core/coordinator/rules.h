// The rules of the protocol that a test build can take away, to prove that the tests would notice. In other builds every member is a
// constant `true` and the checks cost nothing.
//
// `--config=mutate` compiles the switches in; BALLAST_MUTATE=name in the environment of a server then removes one rule (server/config).
// Which test notices which: tests/sim/README.md.
#ifndef BALLAST_CORE_COORDINATOR_RULES_H_
#define BALLAST_CORE_COORDINATOR_RULES_H_

#include <array>
#include <string_view>

namespace ballast {

#ifdef BALLAST_MUTATIONS
#define BALLAST_RULE bool
#else
#define BALLAST_RULE static constexpr bool
#endif

struct Rules {
  // What may count.
  BALLAST_RULE fence_check = true;      // sessions and grants are checked again at Submit
  BALLAST_RULE withdraw = true;         // closing a session removes its submitted contributions from the candidates
  BALLAST_RULE whole_uid = true;        // a submission counts only if its session holds every batch of it
  BALLAST_RULE ledger_check = true;     // a batch that is decided is never granted again
  BALLAST_RULE own_uid = true;          // a contribution is named by the session that submits it
  BALLAST_RULE stale_check = true;      // lag = version made - 1 - base <= staleness_max
  BALLAST_RULE lag_delay = true;        // a decision waits while it would make an outstanding grant too old
  BALLAST_RULE all_receipts = true;     // of every server
  BALLAST_RULE live_receipts = true;    // given by the server in the life that it has now, or reported by it
  BALLAST_RULE kept_receipts = true;    // what a restarted server reports needs no second push
  BALLAST_RULE own_log_check = true;    // at decide, every uid is looked up in the live index of shard 0's log
  BALLAST_RULE synced_receipt = true;   // a shard other than 0 gives its receipt only after its fsync
  BALLAST_RULE resume_once = true;      // a session is resumed once, and only from an earlier life of the coordinator
  BALLAST_RULE init_once = true;        // the initial weights are set once
  BALLAST_RULE session_garbage = true;  // decisions say below which session nothing can be decided any more

  // Who is in a step, and when it closes.
  BALLAST_RULE grant_is_membership = true;    // only a granted, unsubmitted batch keeps a session in the open step
  BALLAST_RULE step_rows_limit = true;        // a step is full at step_rows rows
  BALLAST_RULE step_waits_until_full = true;  // it does not close at the first contribution
  BALLAST_RULE round_robin = true;            // a long queue cannot take the whole step
  BALLAST_RULE linger = true;                 // ends the wait for a slow source
  BALLAST_RULE flush_blocked = true;          // a session is told to submit a part-full contribution when nothing more can come
  BALLAST_RULE decided_answers = true;        // whoever else claimed a batch is answered when it is decided
  BALLAST_RULE progress_lease = true;         // a heartbeat without progress does not keep the lease
  BALLAST_RULE quarantine = true;             // a batch that ends session after session is given up
  BALLAST_RULE skip_limit = true;             // skips in a row stop the run
  BALLAST_RULE slowest_server = true;         // decisions wait for a server that is 8 versions behind
  BALLAST_RULE session_quota = true;          // a run has so many sessions, a session so many contributions under way
  BALLAST_RULE disk_parks = true;             // nothing is granted while a disk is nearly full

  // What a decision says.
  BALLAST_RULE submit_order = true;       // contributions are summed in the order of their Submit
  BALLAST_RULE divisor_of_rows = true;    // the divisor is the rows that came, not step_rows
  BALLAST_RULE steps_count_steps = true;  // only a STEP moves the optimizer's count
  BALLAST_RULE cut_ages_nothing = true;   // a CHECKPOINT makes no version
  BALLAST_RULE whole_norm = true;         // clipping uses the norm of all servers

  // Who is told what.
  BALLAST_RULE ack_after_accepted = true;  // only when every server has accepted the decision
  BALLAST_RULE ack_to_newest = true;       // accepted from another coordinator is not accepted from this one
  BALLAST_RULE all_heard_first = true;     // after a restart nothing is acknowledged before every server was heard
  BALLAST_RULE feed_settled = true;        // OpenFeed calls trained only what could be acknowledged
  BALLAST_RULE replay_missed = true;       // a server gets every decision after the one that it has
  BALLAST_RULE newest_history = true;      // a server that holds more than the coordinator stops the run
  BALLAST_RULE fingerprint_check = true;   // a duplicate with other content is a conflict
  BALLAST_RULE committed_marker = true;    // batches of a committed epoch are done, whoever asks

  // Checkpoints.
  BALLAST_RULE whole_manifest = true;      // a manifest needs the digest of every server
  BALLAST_RULE durable_cut = true;         // and its CHECKPOINT decision on disk
  BALLAST_RULE manifest_ledger = true;     // and the marks of all that it covers
  BALLAST_RULE replay_marks = true;        // decisions behind the manifest carry the rest of the marks
  BALLAST_RULE second_newest_cut = true;   // the log is cut only below the second-newest manifest
  BALLAST_RULE kept_after_restart = true;  // a manifest that servers may have dropped is none, though its record outlived a crash
  BALLAST_RULE keep_healthy = true;        // the newest manifest without NaN is never dropped
  BALLAST_RULE epoch_is_covered = true;    // an epoch is committed only by a manifest that holds all of it

  // Rollback.
  BALLAST_RULE marks_go_back = true;        // the ledger goes back with the weights
  BALLAST_RULE rollback_fences = true;      // nothing of a session from before it counts
  BALLAST_RULE rollback_is_covered = true;  // nothing is granted before a checkpoint of the new version is committed
  BALLAST_RULE crash_goes_back = true;      // durability "checkpoint": a server that lost decided steps takes the run back
};
#undef BALLAST_RULE

#ifdef BALLAST_MUTATIONS
struct Mutation {
  std::string_view name;
  bool Rules::*rule;
};
inline constexpr std::array kMutations = {
    Mutation{"no-fence-check", &Rules::fence_check},
    Mutation{"no-withdraw", &Rules::withdraw},
    Mutation{"part-of-a-uid", &Rules::whole_uid},
    Mutation{"no-ledger-check", &Rules::ledger_check},
    Mutation{"any-uid", &Rules::own_uid},
    Mutation{"no-stale-check", &Rules::stale_check},
    Mutation{"no-lag-delay", &Rules::lag_delay},
    Mutation{"some-receipts", &Rules::all_receipts},
    Mutation{"old-receipts", &Rules::live_receipts},
    Mutation{"no-kept-receipts", &Rules::kept_receipts},
    Mutation{"no-own-log-check", &Rules::own_log_check},
    Mutation{"early-receipt", &Rules::synced_receipt},
    Mutation{"resume-anything", &Rules::resume_once},
    Mutation{"init-again", &Rules::init_once},
    Mutation{"no-session-garbage", &Rules::session_garbage},
    Mutation{"holds-anything", &Rules::grant_is_membership},
    Mutation{"endless-step", &Rules::step_rows_limit},
    Mutation{"close-at-first-submit", &Rules::step_waits_until_full},
    Mutation{"no-round-robin", &Rules::round_robin},
    Mutation{"no-linger", &Rules::linger},
    Mutation{"never-flush", &Rules::flush_blocked},
    Mutation{"no-answer-at-decision", &Rules::decided_answers},
    Mutation{"heartbeat-is-progress", &Rules::progress_lease},
    Mutation{"no-quarantine", &Rules::quarantine},
    Mutation{"endless-skips", &Rules::skip_limit},
    Mutation{"decide-ahead", &Rules::slowest_server},
    Mutation{"no-quota", &Rules::session_quota},
    Mutation{"ignore-disk", &Rules::disk_parks},
    Mutation{"uid-order", &Rules::submit_order},
    Mutation{"fixed-divisor", &Rules::divisor_of_rows},
    Mutation{"every-decision-is-a-step", &Rules::steps_count_steps},
    Mutation{"checkpoint-ages", &Rules::cut_ages_nothing},
    Mutation{"part-of-the-norm", &Rules::whole_norm},
    Mutation{"ack-at-decision", &Rules::ack_after_accepted},
    Mutation{"ack-of-a-zombie", &Rules::ack_to_newest},
    Mutation{"ack-unheard", &Rules::all_heard_first},
    Mutation{"feed-trusts-marks", &Rules::feed_settled},
    Mutation{"no-replay", &Rules::replay_missed},
    Mutation{"older-history", &Rules::newest_history},
    Mutation{"no-fingerprint-check", &Rules::fingerprint_check},
    Mutation{"no-committed-marker", &Rules::committed_marker},
    Mutation{"part-of-a-manifest", &Rules::whole_manifest},
    Mutation{"manifest-before-its-cut", &Rules::durable_cut},
    Mutation{"manifest-without-ledger", &Rules::manifest_ledger},
    Mutation{"no-replayed-marks", &Rules::replay_marks},
    Mutation{"cut-below-newest", &Rules::second_newest_cut},
    Mutation{"restore-dropped", &Rules::kept_after_restart},
    Mutation{"drop-healthy", &Rules::keep_healthy},
    Mutation{"commit-uncovered", &Rules::epoch_is_covered},
    Mutation{"marks-stay", &Rules::marks_go_back},
    Mutation{"no-rollback-fence", &Rules::rollback_fences},
    Mutation{"grant-uncovered", &Rules::rollback_is_covered},
    Mutation{"crash-keeps-steps", &Rules::crash_goes_back},
};
static_assert(sizeof(Rules) == kMutations.size(), "every rule has a mutation");

// Takes one rule away. Returns false when there is no rule of that name.
inline bool Mutate(std::string_view name, Rules& rules) {
  for (const Mutation& mutation : kMutations) {
    if (mutation.name != name) continue;
    rules.*mutation.rule = false;
    if (!rules.fence_check) rules.withdraw = false;  // a closed session's contribution passes the same fence
    return true;
  }
  return false;
}
#endif

}  // namespace ballast

#endif  // BALLAST_CORE_COORDINATOR_RULES_H_
