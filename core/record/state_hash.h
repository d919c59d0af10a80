// The hash of a shard's state, equal on every machine that applied the same log: HASH_ROOT records, manifests, `--print-hash`.
// Free functions: safe from any thread.
#ifndef BALLAST_CORE_RECORD_STATE_HASH_H_
#define BALLAST_CORE_RECORD_STATE_HASH_H_

#include <cstdint>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace ballast {

// XXH3-64 over the bytes of the values, then of each slot in order (little-endian, as stored).
uint64_t BlockHash(absl::string_view values, absl::Span<const absl::string_view> slots);

// XXH3-64 over the block hashes, 8 bytes little-endian each, in layout order (this shard's blocks).
uint64_t RootHash(absl::Span<const uint64_t> block_hashes);

}  // namespace ballast

#endif  // BALLAST_CORE_RECORD_STATE_HASH_H_
