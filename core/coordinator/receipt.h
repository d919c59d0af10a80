// Receipts: when a shard may give one, and how the coordinator knows that a shard did. Used by shards and the coordinator alike, so that
// both follow one text. Free functions: safe from any thread.
#ifndef BALLAST_CORE_COORDINATOR_RECEIPT_H_
#define BALLAST_CORE_COORDINATOR_RECEIPT_H_

#include <bit>
#include <cstdint>

#include "core/coordinator/rules.h"
#include "core/record/hash.h"
#include "core/types.h"

namespace ballast {

// Shard 0's log also takes the decision, whose fsync covers the bytes, so there appended is enough; everywhere else the bytes must be
// durable first.
inline bool ReceiptDue(const Rules& rules, bool coordinator_log, bool synced) { return coordinator_log || synced || !rules.synced_receipt; }

// Receipt.proof of what the receipt says otherwise, and of the contribution that it is for. `key`: chosen by the shard at random for each
// of its lives and told to the coordinator alone, so a receipt of an earlier life, of other bytes, or of nobody is not one. It keeps out
// mistakes; it is no signature against who can search for the key.
inline uint64_t ReceiptProof(uint64_t key, const Uid& uid, const Receipt& receipt) {
  return Hasher()
      .AddU64(key)
      .AddU64(uid.session)
      .AddU64(uid.counter)
      .AddU64(receipt.shard)
      .AddU64(receipt.incarnation)
      .AddU64(receipt.checksum)
      .AddU64(std::bit_cast<uint64_t>(receipt.norm2))
      .Value();
}

}  // namespace ballast

#endif  // BALLAST_CORE_COORDINATOR_RECEIPT_H_
