// The rules of the protocol that a test build can take away, to prove that the tests would notice. In other builds every member is a
// constant `true` and the checks cost nothing.
//
// `--config=mutate` compiles the switches in; BALLAST_MUTATE=name in the environment of a server then removes one rule (server/config).
#ifndef BALLAST_CORE_COORDINATOR_RULES_H_
#define BALLAST_CORE_COORDINATOR_RULES_H_

#include <string_view>

namespace ballast {

#ifdef BALLAST_MUTATIONS
#define BALLAST_RULE bool
#else
#define BALLAST_RULE static constexpr bool
#endif

struct Rules {
  BALLAST_RULE fence_check = true;          // no-fence-check: sessions and grants are checked again at Submit
  BALLAST_RULE withdraw = true;             // no-withdraw: closing a session removes its submitted contributions from the candidates
  BALLAST_RULE own_log_check = true;        // no-own-log-check: at decide, every uid is looked up in the live index of shard 0's log
  BALLAST_RULE synced_receipt = true;       // early-receipt: a shard other than 0 gives its receipt only after its fsync
  BALLAST_RULE grant_is_membership = true;  // holds-anything: only a granted, unsubmitted batch keeps a session in the open step
  BALLAST_RULE flush_blocked = true;        // never-flush: a session is told to submit a part-full contribution when nothing more can come
};
#undef BALLAST_RULE

#ifdef BALLAST_MUTATIONS
// Takes one rule away. Returns false when there is no rule of that name.
inline bool Mutate(std::string_view name, Rules& rules) {
  if (name == "no-fence-check") return rules.fence_check = rules.withdraw = false, true;
  if (name == "no-withdraw") return rules.withdraw = false, true;
  if (name == "no-own-log-check") return rules.own_log_check = false, true;
  if (name == "early-receipt") return rules.synced_receipt = false, true;
  if (name == "holds-anything") return rules.grant_is_membership = false, true;
  if (name == "never-flush") return rules.flush_blocked = false, true;
  return false;
}
#endif

// When a shard may give the receipt of a contribution. Shard 0's log also takes the decision, whose fsync covers the bytes, so there
// appended is enough; everywhere else the bytes must be durable first.
inline bool ReceiptDue(const Rules& rules, bool coordinator_log, bool synced) { return coordinator_log || synced || !rules.synced_receipt; }

}  // namespace ballast

#endif  // BALLAST_CORE_COORDINATOR_RULES_H_
