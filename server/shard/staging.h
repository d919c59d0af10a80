// The contributions that this shard holds and that no decision has used: their bytes in memory, where they are in the log, and what a push
// may do. A chunk is offered, checked, logged, then added; recovery adds what it reads back from the log by the same call.
//
// Limits: bytes of all contributions (staged_bytes_max, a backstop above the quotas of the admitted sessions) and contributions of a
// session (kStagedPerSession). Nothing waits here: what is above a limit is refused. Threads: one owner. Errors: InvalidArgument "NAME:
// detail" with a name of PushReply.error.
#ifndef BALLAST_SERVER_SHARD_STAGING_H_
#define BALLAST_SERVER_SHARD_STAGING_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/kernels/kernels.h"
#include "core/record/chunk.h"
#include "core/types.h"
#include "server/shard/shard_blocks.h"
#include "server/storage/segment_reader.h"

namespace ballast {

// More than a session may have in flight: decisions may still be on their way.
inline constexpr size_t kStagedPerSession = kInFlightMax + 2;
// What a shard remembers of each session about contributions that it does not hold any more: receipts of decided ones (answered when they
// are pushed again), counters of refused ones (the rest of whose chunks is ignored).
inline constexpr size_t kRememberedPerSession = 16;

struct Contribution {
  struct Encoded {
    Codec codec = Codec::kFp32;
    absl::string_view bytes;  // into `payloads`; empty: this block is not in it
  };
  Uid uid;
  std::vector<Encoded> blocks;       // by local index
  std::deque<std::string> payloads;  // of the chunks
  uint64_t payload_bytes = 0;
  uint32_t next_index = 0;  // of the chunk to come
  bool complete = false;
  uint64_t checksum = 0;
  double norm2 = 0;  // of the OPT tensors
  LogPosition first;
  LogPosition last;
  double started = 0;  // seconds, for the metric
};

// Where a contribution stands that was decided here.
struct DecidedReceipt {
  Uid uid;
  uint64_t checksum = 0;
  double norm2 = 0;
};

struct CheckedChunk {
  ChunkHead head;
  std::vector<size_t> blocks;  // local index of each of head.blocks
  double norm2 = 0;
};

class Staging {
 public:
  Staging(const ShardBlocks* blocks, uint64_t staged_bytes_max) : blocks_(blocks), staged_bytes_max_(staged_bytes_max) {}

  enum class Verdict {
    kTake,    // check it, log it, add it
    kHeld,    // the contribution is complete here (or decided): drop the bytes, answer at the last chunk
    kIgnore,  // belongs to a contribution that was refused: drop it silently
  };
  // Cheap checks of order and, for what is new (`untrusted`), of limits, before the bytes are looked at. An index 0 begins the contribution
  // again. What comes from the log was within the limits when it was taken: refusals, which gave room again, are not in the log.
  absl::StatusOr<Verdict> Offer(Uid uid, uint32_t index, uint64_t bytes, bool untrusted);
  // Everything that can be said about the bytes: the run, the blocks, the codecs; with `untrusted` also checksums and finite values (the
  // log has its own checksum, and nothing else ever enters it).
  absl::StatusOr<CheckedChunk> Check(absl::string_view head, absl::string_view payload, bool untrusted) const;
  // The chunk is in the log at `at`; segment 0: it is not logged. Returns its contribution. REQUIRES kTake and OK of the two above.
  Contribution* Add(CheckedChunk chunk, std::string payload, const LogPosition& at);
  // Forgets it; its later chunks are ignored.
  void Refuse(Uid uid);

  const Contribution* Find(Uid uid) const;  // complete ones only
  std::optional<DecidedReceipt> FindDecided(Uid uid) const;
  std::vector<const Contribution*> Complete() const;  // by uid

  // Drops what a decision used. The log below the decision `index` is needed as long as that decision is.
  void OnDecided(const std::vector<Part>& parts, uint64_t index);
  void CloseBelow(uint64_t session);
  uint64_t closed_below() const { return closed_below_; }
  uint64_t bytes() const { return bytes_; }

  // Lowest segment that holds a contribution which is undecided or belongs to a decision >= `index`; UINT64_MAX: none.
  uint64_t FirstNeededSegment(uint64_t index) const;
  void ForgetSegmentsBelow(uint64_t segment) { used_by_.erase(used_by_.begin(), used_by_.lower_bound(segment)); }

  // From here on payloads that are dropped are kept for TakeSpare, up to so many bytes; 0: none.
  void KeepSpares(uint64_t bytes_max);
  std::string TakeSpare();  // contents of something else, or empty

  // After recovery: norms, which the log does not hold.
  void ComputeNorms();

 private:
  struct Session {
    std::map<uint64_t, std::unique_ptr<Contribution>> contributions;  // by counter
    std::deque<DecidedReceipt> decided;
    std::deque<uint64_t> refused;  // counters
  };
  Contribution* FindAny(Uid uid) const;
  void Drop(Session& session, std::map<uint64_t, std::unique_ptr<Contribution>>::iterator it);

  const ShardBlocks* const blocks_;
  const uint64_t staged_bytes_max_;
  std::map<uint64_t, Session> sessions_;
  uint64_t bytes_ = 0;
  uint64_t closed_below_ = 0;
  uint64_t spare_bytes_max_ = 0;
  uint64_t spare_bytes_ = 0;
  std::vector<std::string> spares_;
  std::map<uint64_t, uint64_t> used_by_;  // segment -> highest decision that used a contribution with bytes in it
};

}  // namespace ballast

#endif  // BALLAST_SERVER_SHARD_STAGING_H_
