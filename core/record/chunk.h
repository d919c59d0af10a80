// The messages of the Shard service as bytes: Chunk, PushReply, Want (proto/ballast/v1/shard.proto), written and read without a protobuf
// object, because the payload of a chunk is the bulk of all traffic. A chunk is also, byte for byte, the body of a CONTRIBUTION log record.
// Used by workers, servers and log readers. Free functions: safe from any thread; views point into the caller's bytes.
// Errors of the parsers: InvalidArgument (the sender's fault: refuse and say why).
#ifndef BALLAST_CORE_RECORD_CHUNK_H_
#define BALLAST_CORE_RECORD_CHUNK_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "core/types.h"

namespace ballast {

inline constexpr size_t kRunNameBytesMax = 100;
inline constexpr size_t kChunkHeadBytesMax = 192u << 10;  // all fields before the payload: kChunkBlocksMax heads fit
inline constexpr size_t kChunkBytesMax = kChunkHeadBytesMax + kChunkPayloadMax;
inline constexpr size_t kErrorTextBytesMax = 4096;  // PushReply.error and .detail

struct BlockHead {
  uint32_t tensor = 0;  // pulls with slots: tensor + (slot + 1) * number of tensors
  uint64_t first = 0;
  uint32_t count = 0;
  Codec codec = Codec::kFp32;
  uint32_t bytes = 0;
  uint64_t checksum = 0;  // Hash64 of the block's bytes
  bool operator==(const BlockHead&) const = default;
};

// Every field of Chunk but the payload.
struct ChunkHead {
  std::string run;
  uint64_t generation = 0;
  uint64_t session = 0;
  uint64_t uid = 0;  // pull: number of the want
  uint64_t version = 0;
  uint32_t index = 0;
  bool last = false;
  std::vector<BlockHead> blocks;
  bool operator==(const ChunkHead&) const = default;
};

struct ChunkView {
  ChunkHead head;
  absl::string_view payload;  // the blocks one after another: block i has head.blocks[i].bytes
};

// Bytes of each block, in the order of head.blocks. REQUIRES a parsed head and its payload.
std::vector<absl::string_view> SplitPayload(const ChunkHead& head, absl::string_view payload);

// The message up to and including tag and length of the payload; the sender appends or sends the payload after it. (A payload of 0 bytes is
// written too: the head of a chunk without blocks is a whole message.)
std::string EncodeChunkHead(const ChunkHead& head, uint64_t payload_bytes);

// The same in two steps, for a server that sends one encoding to many readers: the BlockHead fields once, the other fields for each reader
// (head.blocks is not looked at).
std::string EncodeBlockHeads(absl::Span<const BlockHead> blocks);
std::string EncodeChunkHead(const ChunkHead& head, absl::string_view block_heads, uint64_t payload_bytes);

// Reads the head from the first bytes of a message of `message_bytes`: `prefix` holds min(message_bytes, kChunkHeadBytesMax) bytes or more.
// Checks what ParseChunk checks, so that the payload may be received into its final place before or after.
struct ParsedHead {
  ChunkHead head;
  size_t head_bytes = 0;  // the payload begins here
  uint64_t payload_bytes = 0;
};
[[nodiscard]] absl::StatusOr<ParsedHead> ParseChunkHead(absl::string_view prefix, uint64_t message_bytes);

// Checks structure and limits: at most kChunkBytesMax bytes, payload last, known codecs, 1 <= count <= kBlockElemsMax, bytes as the codec
// says, the sum of the bytes equals the payload. Does not check checksums or values, and knows no run.
[[nodiscard]] absl::StatusOr<ChunkView> ParseChunk(absl::string_view message);

// Compares each block's Hash64 with its head. Errors: InvalidArgument "BAD_CHECKSUM: ..." naming tensor and first.
[[nodiscard]] absl::Status VerifyChecksums(const ChunkHead& head, absl::string_view payload);

// Checksum of a contribution on one shard: fold over its blocks' checksums in the order of arrival, starting with 0.
uint64_t FoldChecksum(uint64_t so_far, uint64_t block_checksum);

struct PushReply {
  std::string run;
  uint64_t session = 0;
  uint64_t uid = 0;
  uint64_t incarnation = 0;
  uint64_t checksum = 0;
  double norm2 = 0;
  uint32_t shard = 0;
  std::string error;  // empty: a receipt
  std::string detail;
  uint64_t proof = 0;
  bool operator==(const PushReply&) const = default;
};
std::string EncodePushReply(const PushReply& reply);
[[nodiscard]] absl::StatusOr<PushReply> ParsePushReply(absl::string_view message);

struct Want {
  std::string run;
  uint64_t generation = 0;
  uint64_t number = 0;
  uint64_t min_version = 0;
  Codec codec = Codec::kFp32;
  uint64_t manifest = 0;
  std::vector<uint32_t> tensors;  // at most kTensorsMax
  bool slots = false;
  bool operator==(const Want&) const = default;
};
std::string EncodeWant(const Want& want);
[[nodiscard]] absl::StatusOr<Want> ParseWant(absl::string_view message);

}  // namespace ballast

#endif  // BALLAST_CORE_RECORD_CHUNK_H_
