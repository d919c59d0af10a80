// A Chunk message as it lies in gRPC's slices, cut into head and payload with one copy of the payload. Slices split anywhere.
// The head is what core/record/chunk.h calls it: every field before the payload, with the payload's tag and length.
// Pure functions: safe from any thread.
#ifndef BALLAST_SERVER_DATA_PLANE_CHUNK_SPLIT_H_
#define BALLAST_SERVER_DATA_PLANE_CHUNK_SPLIT_H_

#include <grpcpp/support/byte_buffer.h>

#include <array>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/types.h"
#include "server/shard/run_shard.h"

namespace ballast {

// What the data plane reads of a pushed chunk; blocks and payload are the shard's to check.
struct SplitChunk {
  std::string run;
  uint64_t generation = 0;
  PushedChunk chunk;
  std::array<uint64_t, 5> codec_bytes{};  // payload by codec number, as the block heads say; zeros when they claim more than there is
};

// Errors: InvalidArgument when the bytes are no Chunk, have no payload field at the end, or are longer than a chunk or its run's name may
// be.
absl::StatusOr<SplitChunk> Split(const grpc::ByteBuffer& message);

// Sum of the bytes of `head_blocks` (BlockHead fields of a Chunk, canonical) by codec number.
std::array<uint64_t, 5> CodecBytes(absl::string_view head_blocks);

// All bytes of a small message.
std::string Flatten(const grpc::ByteBuffer& message);

}  // namespace ballast

#endif  // BALLAST_SERVER_DATA_PLANE_CHUNK_SPLIT_H_
