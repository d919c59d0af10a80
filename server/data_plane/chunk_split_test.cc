#include "server/data_plane/chunk_split.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "core/record/chunk.h"

namespace ballast {
namespace {

// `bytes` in slices that end at `cuts`.
grpc::ByteBuffer Sliced(const std::string& bytes, const std::vector<size_t>& cuts) {
  std::vector<grpc::Slice> slices;
  size_t from = 0;
  for (size_t cut : cuts) {
    slices.emplace_back(bytes.substr(from, cut - from));
    from = cut;
  }
  slices.emplace_back(bytes.substr(from));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

std::string Message(std::string* head, std::string* payload) {
  ChunkHead h;
  h.run = "run";
  h.generation = 2;
  h.session = 300;
  h.uid = 7;
  h.index = 3;
  h.last = true;
  h.blocks = {{5, 0, 100, Codec::kFp32, 400, 1}, {6, 256, 10, Codec::kI64, 80, 2}};
  *payload = std::string(480, 'p');
  *head = EncodeChunkHead(h, payload->size());
  return *head + *payload;
}

TEST(ChunkSplitTest, SlicesMayEndAnywhere) {
  std::string head, payload;
  const std::string message = Message(&head, &payload);
  for (size_t cut = 0; cut <= message.size(); ++cut) {
    for (size_t second : {cut, std::min(cut + 1, message.size()), message.size()}) {
      const auto split = Split(Sliced(message, {cut, second}));
      ASSERT_TRUE(split.ok()) << split.status() << " at " << cut << ", " << second;
      EXPECT_EQ(split->run, "run");
      EXPECT_EQ(split->generation, 2u);
      EXPECT_EQ(split->chunk.uid, (Uid{300, 7}));
      EXPECT_EQ(split->chunk.index, 3u);
      EXPECT_TRUE(split->chunk.last);
      EXPECT_EQ(split->chunk.head, head);
      EXPECT_EQ(split->chunk.payload, payload);
      EXPECT_EQ(split->codec_bytes[1], 400u);
      EXPECT_EQ(split->codec_bytes[4], 80u);
    }
  }
}

TEST(ChunkSplitTest, EveryTruncationIsRefused) {
  std::string head, payload;
  const std::string message = Message(&head, &payload);
  for (size_t bytes = 0; bytes < message.size(); ++bytes) {
    EXPECT_EQ(Split(Sliced(message.substr(0, bytes), {})).status().code(), absl::StatusCode::kInvalidArgument) << bytes;
  }
  EXPECT_EQ(Split(Sliced(message + "x", {})).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ChunkSplitTest, NoiseIsRefusedOrSplitsWithoutHarm) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  std::string head, payload;
  const std::string message = Message(&head, &payload);
  for (int i = 0; i < 20000; ++i) {
    std::string noisy = message;
    for (int flips = 0; flips < 3; ++flips) noisy[random() % noisy.size()] = static_cast<char>(random());
    const auto split = Split(Sliced(noisy, {random() % noisy.size()}));
    if (!split.ok()) continue;
    EXPECT_EQ(split->chunk.head.size() + split->chunk.payload.size(), noisy.size());
  }
}

TEST(ChunkSplitTest, OversizedMessageIsRefusedBeforeItIsCopied) {
  EXPECT_EQ(Split(Sliced(std::string(kChunkBytesMax + 1, '\0'), {})).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ChunkSplitTest, RunNameIsLimited) {
  ChunkHead h;
  h.run = std::string(kRunNameBytesMax + 1, 'x');
  EXPECT_EQ(Split(Sliced(EncodeChunkHead(h, uint64_t{0}), {})).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ChunkSplitTest, NothingIsCountedOfBlocksThatClaimTooMuch) {
  ChunkHead h;
  h.blocks = {{0, 0, 4, Codec::kFp32, 0xffffffff, 0}, {1, 0, 4, Codec::kBf16, 8, 0}};
  const auto split = Split(Sliced(EncodeChunkHead(h, uint64_t{8}) + std::string(8, 'p'), {}));
  ASSERT_TRUE(split.ok()) << split.status();
  EXPECT_EQ(split->codec_bytes, (std::array<uint64_t, 5>{}));
}

TEST(ChunkSplitTest, CodecBytesOfAnEncoding) {
  ChunkHead h;
  h.blocks = {{0, 0, 4, Codec::kBf16, 8, 0}, {1, 0, 4, Codec::kBf16, 8, 0}, {2, 0, 1, Codec::kI64, 8, 0}};
  std::string head = EncodeChunkHead(h, 24);
  head.resize(head.size() - 2);  // the payload's tag and length
  const auto bytes = CodecBytes(head);
  EXPECT_EQ(bytes[2], 16u);
  EXPECT_EQ(bytes[4], 8u);
}

}  // namespace
}  // namespace ballast
