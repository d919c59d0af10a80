// A decision as bytes, and the chain that links decisions. The canonical bytes are protobuf's own for message ballast.v1.Decision
// (ascending fields, defaults left out): the same bytes are log record, ledger entry and message. The chain makes a lost, changed or
// foreign decision visible on every server. Used by the coordinator (SealDecision), the shards and log readers (VerifyChain). Safe from any
// thread.
#ifndef BALLAST_CORE_RECORD_DECISION_H_
#define BALLAST_CORE_RECORD_DECISION_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/types.h"

namespace ballast {

inline constexpr size_t kDecisionBytesMax = 16u << 20;  // body of a DECISION record

std::string EncodeDecision(const Decision& decision);

// Errors: DataLoss, naming the malformed field. Unknown fields are skipped (and then break the chain: VerifyChain).
[[nodiscard]] absl::StatusOr<Decision> ParseDecision(absl::string_view bytes);

// XXH3-64 over previous_chain (8 bytes, little-endian) and the canonical bytes of `decision` without field 4. The first decision's previous
// chain is 0.
uint64_t ChainOf(uint64_t previous_chain, const Decision& decision);

// Sets decision.chain.
void SealDecision(uint64_t previous_chain, Decision& decision);

// Errors: DataLoss naming run, index and both chains.
[[nodiscard]] absl::Status VerifyChain(uint64_t previous_chain, const Decision& decision);

}  // namespace ballast

#endif  // BALLAST_CORE_RECORD_DECISION_H_
