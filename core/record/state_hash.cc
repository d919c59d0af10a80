#include "core/record/state_hash.h"

#include "core/record/hash.h"

namespace ballast {

uint64_t BlockHash(absl::string_view values, absl::Span<const absl::string_view> slots) {
  Hasher hasher;
  hasher.Add(values);
  for (absl::string_view slot : slots) hasher.Add(slot);
  return hasher.Value();
}

uint64_t RootHash(absl::Span<const uint64_t> block_hashes) {
  Hasher hasher;
  for (uint64_t hash : block_hashes) hasher.AddU64(hash);
  return hasher.Value();
}

}  // namespace ballast
