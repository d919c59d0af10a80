// Receipts of simulated shards. The key of a life is its incarnation.
#ifndef BALLAST_TESTS_SIM_RECEIPT_OF_H_
#define BALLAST_TESTS_SIM_RECEIPT_OF_H_

#include <cstdint>

#include "core/coordinator/receipt.h"
#include "core/types.h"

namespace ballast::sim {

inline Receipt ReceiptOf(uint32_t shard, uint64_t incarnation, const Uid& uid) {
  Receipt receipt{shard, incarnation, /*checksum=*/1, /*norm2=*/1.0};
  receipt.proof = ReceiptProof(/*key=*/incarnation, uid, receipt);
  return receipt;
}

}  // namespace ballast::sim

#endif  // BALLAST_TESTS_SIM_RECEIPT_OF_H_
