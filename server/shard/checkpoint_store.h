// Checkpoints of a shard in the store: keys, values with their checksums, and the small record that is written last and makes one count.
//
//   ckpt/<run>/<version, 20 digits>/<block, 8 digits>/<array: 0 values, 1.. slots>   bytes, then their XXH3-64, little-endian
//   ckpt/<run>/meta/<version, 20 digits>                                             CheckpointMeta (docs/wire_format.md), then its XXH3-64
//
// Free functions, any thread. Errors: those of the store; DataLoss naming the key when something does not match its checksum.
#ifndef BALLAST_SERVER_SHARD_CHECKPOINT_STORE_H_
#define BALLAST_SERVER_SHARD_CHECKPOINT_STORE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "core/types.h"
#include "server/shard/recovery_progress.h"
#include "server/shard/replica.h"
#include "server/shard/run_shard.h"
#include "server/storage/store.h"

namespace ballast {

struct CheckpointMeta {
  ReplicaPosition position;  // after the CHECKPOINT decision
  uint64_t blocks = 0;
  ShardDigest digest;
};

std::string BlockKey(const std::string& run, uint64_t version, size_t block, int slot);
// Puts the checksum behind `bytes`; takes it off again after comparing.
void SealValue(std::string* bytes);
absl::StatusOr<absl::string_view> OpenValue(absl::string_view key, absl::string_view sealed);

absl::Status PutCheckpointMeta(Store& store, const std::string& run, const CheckpointMeta& meta);
// By version. One that is damaged is left out, with a warning in the log.
absl::StatusOr<std::map<uint64_t, CheckpointMeta>> ListCheckpoints(Store& store, const std::string& run);
// The record first, then the blocks.
absl::Status DeleteCheckpoint(Store& store, const std::string& run, uint64_t version);

// One array, checked. Errors: DataLoss when it is missing, damaged or of another size.
absl::StatusOr<std::string> ReadCheckpointArray(Store& store, const std::string& key, uint64_t bytes);
// Loads the values into `replica` and compares the digest. On an error the values are unspecified.
absl::Status LoadValues(Store& store, const CheckpointMeta& meta, Replica& replica, RecoveryProgress* progress = nullptr);
// The same; then StartAt.
absl::Status LoadCheckpoint(Store& store, const CheckpointMeta& meta, Replica& replica, RecoveryProgress* progress = nullptr);
// What a ROLLBACK asks for. Errors: DataLoss when the checkpoint is damaged or not among `checkpoints`.
absl::Status RestoreValues(Store& store, const std::map<uint64_t, CheckpointMeta>& checkpoints, const Decision& rollback, Replica& replica);
// Blocks of some tensors (all, when empty) as an Encoding, fp32 and i64; with `slots` also the slots, as tensor + (slot + 1) * number of
// tensors.
absl::StatusOr<std::shared_ptr<const Encoding>> EncodeCheckpoint(Store& store, const CheckpointMeta& meta, const ShardBlocks& blocks,
                                                                 bool slots, absl::Span<const uint32_t> tensors);

// The log of the run was begun on this server: an empty directory is then a loss, not a beginning.
absl::Status PutLogBegun(Store& store, const std::string& run, uint64_t generation);

}  // namespace ballast

#endif  // BALLAST_SERVER_SHARD_CHECKPOINT_STORE_H_
