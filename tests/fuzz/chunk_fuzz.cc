// core/record/chunk: Chunk, PushReply and Want from bytes of the network. What is taken can be written again and means the same.
#include "core/codec/codec.h"
#include "core/record/chunk.h"
#include "tests/fuzz/input.h"

namespace ballast {
namespace {

void Chunk(absl::string_view message) {
  const auto chunk = ParseChunk(message);
  if (!chunk.ok()) return fuzz::CheckRefusal(chunk.status());
  const ChunkHead& head = chunk->head;
  FUZZ_CHECK(head.run.size() <= kRunNameBytesMax);
  uint64_t bytes = 0;
  for (const BlockHead& b : head.blocks) {
    FUZZ_CHECK(b.count >= 1 && b.count <= kBlockElemsMax && b.bytes == EncodedBytes(b.codec, b.count));
    bytes += b.bytes;
  }
  FUZZ_CHECK(bytes == chunk->payload.size() && bytes <= kChunkPayloadMax);
  const auto pieces = SplitPayload(head, chunk->payload);
  for (size_t i = 0; i < pieces.size(); ++i) FUZZ_CHECK(pieces[i].size() == head.blocks[i].bytes);
  if (const absl::Status sums = VerifyChecksums(head, chunk->payload); !sums.ok()) fuzz::CheckRefusal(sums);

  const std::string again = EncodeChunkHead(head, chunk->payload.size()) + std::string(chunk->payload);
  const auto reread = ParseChunk(again);
  FUZZ_CHECK(reread.ok() && reread->head == head && reread->payload == chunk->payload);
}

// The head alone, cut anywhere: refused, or read without looking beyond the cut.
void CutHead(fuzz::Input& in) {
  const uint64_t message_bytes = in.U64();
  const auto parsed = ParseChunkHead(in.rest(), message_bytes);
  if (!parsed.ok()) return fuzz::CheckRefusal(parsed.status());
  FUZZ_CHECK(parsed->head_bytes <= in.rest().size() && parsed->head_bytes + parsed->payload_bytes == message_bytes);
  FUZZ_CHECK(message_bytes <= kChunkBytesMax);
}

void Reply(absl::string_view message) {
  const auto reply = ParsePushReply(message);
  if (!reply.ok()) return fuzz::CheckRefusal(reply.status());
  FUZZ_CHECK(reply->run.size() <= kRunNameBytesMax && reply->error.size() <= kErrorTextBytesMax);
  const std::string again = EncodePushReply(*reply);  // compared as bytes: a NaN does not equal itself
  FUZZ_CHECK(EncodePushReply(*ParsePushReply(again)) == again);
}

void Wanted(absl::string_view message) {
  const auto want = ParseWant(message);
  if (!want.ok()) return fuzz::CheckRefusal(want.status());
  FUZZ_CHECK(want->run.size() <= kRunNameBytesMax && want->tensors.size() <= kTensorsMax && IsFloatCodec(want->codec));
  const auto again = ParseWant(EncodeWant(*want));
  FUZZ_CHECK(again.ok() && *again == *want);
}

}  // namespace
}  // namespace ballast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ballast::fuzz::Input in(data, size);
  switch (in.Byte() % 4) {
    case 0:
      ballast::Chunk(in.rest());
      break;
    case 1:
      ballast::CutHead(in);
      break;
    case 2:
      ballast::Reply(in.rest());
      break;
    default:
      ballast::Wanted(in.rest());
  }
  return 0;
}
