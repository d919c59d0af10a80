// server/data_plane: a Chunk over slices that end anywhere. It is cut as if it lay in one piece, and core reads the same from it.
#include "server/data_plane/chunk_split.h"

#include <vector>

#include "core/record/chunk.h"
#include "tests/fuzz/input.h"

namespace ballast {
namespace {

void Compare(const SplitChunk& a, const SplitChunk& b) {
  FUZZ_CHECK(a.run == b.run && a.generation == b.generation && a.chunk.uid == b.chunk.uid && a.chunk.index == b.chunk.index);
  FUZZ_CHECK(a.chunk.last == b.chunk.last && a.chunk.head == b.chunk.head && a.chunk.payload == b.chunk.payload);
  FUZZ_CHECK(a.codec_bytes == b.codec_bytes);
}

grpc::ByteBuffer Whole(const std::string& message) {
  const grpc::Slice slice(message);
  return grpc::ByteBuffer(&slice, 1);
}

// What core reads of the same bytes. Only a message without a payload field may be a chunk for core alone.
void CompareWithCore(const std::string& message, const absl::StatusOr<SplitChunk>& split) {
  const auto parsed = ParseChunk(message);
  if (!parsed.ok()) return;
  if (!split.ok()) {
    FUZZ_CHECK(parsed->payload.empty());
    return;
  }
  const ChunkHead& head = parsed->head;
  FUZZ_CHECK(split->run == head.run && split->generation == head.generation && split->chunk.uid == (Uid{head.session, head.uid}));
  FUZZ_CHECK(split->chunk.index == head.index && split->chunk.last == head.last && split->chunk.payload == parsed->payload);
  std::array<uint64_t, 5> bytes{};
  for (const BlockHead& b : head.blocks) bytes[static_cast<size_t>(b.codec)] += b.bytes;
  FUZZ_CHECK(split->codec_bytes == bytes);
}

void Run(fuzz::Input& in) {
  std::vector<size_t> lengths(in.Below(8));
  for (size_t& n : lengths) n = in.Byte();
  const std::string message(in.rest());
  std::vector<grpc::Slice> slices;
  size_t at = 0;
  for (size_t n : lengths) {
    const size_t part = std::min(n, message.size() - at);
    slices.emplace_back(message.substr(at, part));
    at += part;
  }
  slices.emplace_back(message.substr(at));

  const auto split = Split(grpc::ByteBuffer(slices.data(), slices.size()));
  const auto whole = Split(Whole(message));
  FUZZ_CHECK(split.ok() == whole.ok());
  CompareWithCore(message, split);
  if (!split.ok()) return fuzz::CheckRefusal(split.status());
  Compare(*split, *whole);
  FUZZ_CHECK(split->chunk.head + split->chunk.payload == message);
  FUZZ_CHECK(split->run.size() <= kRunNameBytesMax);
  uint64_t counted = 0;
  for (uint64_t bytes : split->codec_bytes) {
    FUZZ_CHECK(bytes <= message.size());
    counted += bytes;
  }
  FUZZ_CHECK(counted <= split->chunk.payload.size());
}

}  // namespace
}  // namespace ballast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ballast::fuzz::Input in(data, size);
  ballast::Run(in);
  return 0;
}
