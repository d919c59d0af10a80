#include "core/record/chunk.h"

#include <random>
#include <string>

#include "core/codec/codec.h"
#include "core/layout/layout.h"
#include "core/record/hash.h"
#include "core/record/wire.h"
#include "gtest/gtest.h"

namespace ballast {
namespace {

// A chunk of two blocks: 3 elements fp32, 300 elements int8.
struct Example {
  ChunkHead head;
  std::string payload;
  std::string Message() const { return EncodeChunkHead(head, payload.size()) + payload; }
};
Example MakeExample() {
  Example out;
  out.payload = std::string(12, 'a') + std::string(308, 'b');
  out.head = {"demo", 1, 5, 9, 3, 2, true, {}};
  out.head.blocks = {{0, 0, 3, Codec::kFp32, 12, Hash64(out.payload.substr(0, 12))},
                     {7, 1u << 20, 300, Codec::kInt8, 308, Hash64(out.payload.substr(12))}};
  return out;
}

TEST(Chunk, ReadsWhatItWrote) {
  const Example e = MakeExample();
  const std::string message = e.Message();
  const absl::StatusOr<ChunkView> view = ParseChunk(message);
  ASSERT_TRUE(view.ok()) << view.status();
  EXPECT_EQ(view->head, e.head);
  EXPECT_EQ(view->payload, e.payload);
  EXPECT_TRUE(VerifyChecksums(view->head, view->payload).ok());
  const auto blocks = SplitPayload(view->head, view->payload);
  ASSERT_EQ(blocks.size(), 2u);
  EXPECT_EQ(blocks[1], std::string(308, 'b'));
}

// docs/wire_format.md sections 1 and 2.
TEST(Chunk, BytesOfTheDocumentsExample) {
  const std::vector<float> values = {127, -64, 0.5f, 1.5f, 0};
  std::string payload(9, '\0');
  Encode(Codec::kInt8, values, absl::MakeSpan(payload.data(), payload.size()));
  const ChunkHead head{"r", 1, 2, 1, 0, 0, true, {{0, 0, 5, Codec::kInt8, 9, Hash64(payload)}}};
  const std::string expected(
      "\x0a\x01r\x10\x01\x18\x02\x20\x01\x38\x01\x42\x0f\x18\x05\x20\x03\x28\x09\x31\x39\x02\x5c\x00\xf9\x7a\x1d\xd4"
      "\x7a\x09\x00\x00\x80\x3f\x7f\xc0\x00\x02\x00",
      39);
  EXPECT_EQ(EncodeChunkHead(head, payload.size()) + payload, expected);
}

TEST(Chunk, HeadIsReadBeforeThePayloadIsThere) {
  const Example e = MakeExample();
  const std::string head = EncodeChunkHead(e.head, e.payload.size());
  const auto parsed = ParseChunkHead(head, head.size() + e.payload.size());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->head_bytes, head.size());
  EXPECT_EQ(parsed->payload_bytes, e.payload.size());
  EXPECT_FALSE(ParseChunkHead(head, head.size() + e.payload.size() + 1).ok());
}

TEST(Chunk, BlockHeadsCanBeEncodedOnce) {
  const Example e = MakeExample();
  EXPECT_EQ(EncodeChunkHead(e.head, EncodeBlockHeads(e.head.blocks), 320), EncodeChunkHead(e.head, 320));
}

TEST(Chunk, WithoutBlocksIsAWholeMessage) {
  ChunkHead head;
  head.run = "r";
  head.last = true;
  const auto view = ParseChunk(EncodeChunkHead(head, 0));
  ASSERT_TRUE(view.ok()) << view.status();
  EXPECT_TRUE(view->payload.empty());
  EXPECT_TRUE(ParseChunk("").ok());  // protobuf's empty message
}

TEST(Chunk, UnknownFieldsAreSkipped) {
  const Example e = MakeExample();
  std::string extra;
  WireWriter(&extra).Varint(12, 99);
  const std::string message = e.Message();
  EXPECT_TRUE(ParseChunk(extra + message).ok());
}

TEST(Chunk, ChecksumMismatch) {
  Example e = MakeExample();
  e.payload[20] ^= 1;
  const std::string message = e.Message();
  const auto view = ParseChunk(message);
  ASSERT_TRUE(view.ok());
  const absl::Status s = VerifyChecksums(view->head, view->payload);
  EXPECT_EQ(s.message(), "BAD_CHECKSUM: block of tensor 7 at element 1048576");
}

void ExpectRefused(const Example& e, absl::string_view reason) {
  const std::string message = e.Message();
  const auto view = ParseChunk(message);
  ASSERT_FALSE(view.ok());
  EXPECT_EQ(view.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(view.status().message().substr(0, reason.size()), reason) << view.status();
}

TEST(Chunk, BadLength) {
  Example e = MakeExample();
  e.head.blocks[0].bytes = 13;
  ExpectRefused(e, "BAD_BLOCK");
  e = MakeExample();
  e.payload += "x";
  ExpectRefused(e, "BAD_BLOCK");
  e = MakeExample();
  e.head.blocks.pop_back();
  ExpectRefused(e, "BAD_BLOCK");
}

TEST(Chunk, BadCountOrCodec) {
  Example e = MakeExample();
  e.head.blocks[0].count = 0;
  ExpectRefused(e, "BAD_BLOCK");
  e.head.blocks[0].count = kBlockElemsMax + 1;
  ExpectRefused(e, "BAD_BLOCK");
  e = MakeExample();
  e.head.blocks[0].codec = static_cast<Codec>(77);
  ExpectRefused(e, "BAD_BLOCK");
}

TEST(Chunk, TooLarge) {
  Example e;
  e.head.run = "r";
  e.payload.resize(kChunkPayloadMax + 1);
  ExpectRefused(e, "TOO_LARGE");
  EXPECT_FALSE(ParseChunkHead("", kChunkBytesMax + 1).ok());
}

TEST(Chunk, TooManyBlocks) {
  Example e;
  for (size_t i = 0; i <= kChunkBlocksMax; ++i) e.head.blocks.push_back({0, i, 1, Codec::kFp32, 4, 0});
  e.payload.resize(4 * e.head.blocks.size());
  ExpectRefused(e, "BAD_BLOCK");
}

TEST(Chunk, LargestHeadFitsItsLimit) {
  ChunkHead head;
  head.run = std::string(kRunNameBytesMax, 'r');
  head.generation = head.session = head.uid = head.version = ~uint64_t{0};
  for (size_t i = 0; i < kChunkBlocksMax; ++i) head.blocks.push_back({~0u, ~uint64_t{0}, 1 << 18, Codec::kInt8, 266240, 1});
  EXPECT_LE(EncodeChunkHead(head, kChunkPayloadMax).size(), kChunkHeadBytesMax);
}

TEST(Chunk, RandomDamageNeverCrashes) {
  const uint32_t seed = 3;
  SCOPED_TRACE(seed);
  std::mt19937 rng(seed);
  const std::string good = MakeExample().Message();
  for (int i = 0; i < 20000; ++i) {
    std::string bad = good;
    for (int k = 0; k < 3; ++k) bad[rng() % 120] = static_cast<char>(rng());
    bad.resize(rng() % (bad.size() + 1));
    const auto view = ParseChunk(bad);
    if (view.ok()) SplitPayload(view->head, view->payload);
  }
}

TEST(PushReply, ReadsWhatItWrote) {
  const PushReply r{"demo", 5, 9, 2, 0x1234, 0.25, 1, "NONFINITE", "tensor w", 0x5678};
  const auto back = ParsePushReply(EncodePushReply(r));
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(*back, r);
  EXPECT_FALSE(ParsePushReply("\x0a\x05x").ok());
}

TEST(Want, ReadsWhatItWrote) {
  const Want w{"demo", 1, 3, 12, Codec::kBf16, 8, {0, 300, 65535}, true};
  const auto back = ParseWant(EncodeWant(w));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(*back, w);
}

TEST(Want, UnpackedTensorsAreTakenToo) {
  std::string bytes;
  WireWriter w(&bytes);
  w.VarintAlways(7, 0);
  w.VarintAlways(7, 4);
  EXPECT_EQ(ParseWant(bytes)->tensors, (std::vector<uint32_t>{0, 4}));
}

TEST(Want, RefusesWhatItCannotMean) {
  Want w;
  w.codec = Codec::kI64;
  EXPECT_FALSE(ParseWant(EncodeWant(w)).ok());
  w.codec = Codec::kFp32;
  w.run = std::string(kRunNameBytesMax + 1, 'r');
  EXPECT_FALSE(ParseWant(EncodeWant(w)).ok());
  EXPECT_FALSE(ParseWant(absl::string_view("\x3a\x01\x80", 3)).ok());  // a packed varint that does not end
}

TEST(FoldChecksum, DependsOnOrder) { EXPECT_NE(FoldChecksum(FoldChecksum(0, 1), 2), FoldChecksum(FoldChecksum(0, 2), 1)); }

}  // namespace
}  // namespace ballast
