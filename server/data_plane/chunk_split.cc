#include "server/data_plane/chunk_split.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/record/chunk.h"
#include "core/record/wire.h"

namespace ballast {
namespace {

constexpr uint64_t kPayloadField = 15;

// Reads bytes that are spread over slices.
class SliceCursor {
 public:
  explicit SliceCursor(const std::vector<grpc::Slice>& slices) : slices_(slices) { SkipEmpty(); }

  uint64_t position() const { return position_; }
  bool AtEnd() const { return slice_ == slices_.size(); }

  bool Byte(uint8_t* out) {
    if (AtEnd()) return false;
    *out = slices_[slice_].begin()[offset_];
    Advance(1);
    return true;
  }
  bool Varint(uint64_t* out) {
    *out = 0;
    uint8_t byte = 0x80;
    for (int shift = 0; shift < 64 && (byte & 0x80) != 0; shift += 7) {
      if (!Byte(&byte)) return false;
      *out |= uint64_t{byte & 0x7fu} << shift;
    }
    return (byte & 0x80) == 0;
  }
  // `out` may be null: skip. False when there are not so many.
  bool Copy(uint64_t bytes, char* out) {
    while (bytes > 0 && !AtEnd()) {
      const uint64_t part = std::min<uint64_t>(bytes, slices_[slice_].size() - offset_);
      if (out != nullptr) {
        std::memcpy(out, slices_[slice_].begin() + offset_, part);
        out += part;
      }
      Advance(part);
      bytes -= part;
    }
    return bytes == 0;
  }

 private:
  void Advance(uint64_t bytes) {
    position_ += bytes;
    offset_ += bytes;
    if (offset_ == slices_[slice_].size()) {
      ++slice_;
      offset_ = 0;
      SkipEmpty();
    }
  }
  void SkipEmpty() {
    while (slice_ < slices_.size() && slices_[slice_].size() == 0) ++slice_;
  }

  const std::vector<grpc::Slice>& slices_;
  size_t slice_ = 0;
  size_t offset_ = 0;
  uint64_t position_ = 0;
};

// Walks the fields up to the payload. Positions of its tag and of its first byte.
bool FindPayload(SliceCursor cursor, uint64_t total, uint64_t* tag_at, uint64_t* payload_at) {
  while (!cursor.AtEnd()) {
    *tag_at = cursor.position();
    uint64_t tag = 0, value = 0;
    if (*tag_at > kChunkHeadBytesMax || !cursor.Varint(&tag)) return false;
    bool good = false;
    switch (static_cast<WireType>(tag & 7)) {
      case WireType::kVarint:
        good = cursor.Varint(&value);
        break;
      case WireType::kFixed64:
        good = cursor.Copy(8, nullptr);
        break;
      case WireType::kFixed32:
        good = cursor.Copy(4, nullptr);
        break;
      case WireType::kBytes:
        good = cursor.Varint(&value) && value <= total - cursor.position();
        if (good && tag >> 3 == kPayloadField) {
          *payload_at = cursor.position();
          return value == total - *payload_at;
        }
        good = good && cursor.Copy(value, nullptr);
        break;
    }
    if (!good) return false;
  }
  return false;
}

// Adds one BlockHead's bytes to its codec.
void CountBlock(absl::string_view block, std::array<uint64_t, 5>* bytes) {
  uint64_t codec = 0, size = 0;
  for (WireReader in(block); in.Next();) {
    if (in.field() == 4) codec = in.Varint();
    if (in.field() == 5) size = in.Varint();
  }
  if (codec < bytes->size()) (*bytes)[codec] += std::min(size, kChunkPayloadMax + 1);  // of bytes that nobody has checked: no overflow
}

absl::Status Malformed() { return absl::InvalidArgumentError("not a Chunk: its fields do not end with a payload that fills the message"); }

}  // namespace

std::string Flatten(const grpc::ByteBuffer& message) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!message.Dump(&slices).ok()) return bytes;
  for (const grpc::Slice& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return bytes;
}

std::array<uint64_t, 5> CodecBytes(absl::string_view head_blocks) {
  std::array<uint64_t, 5> bytes{};
  for (WireReader in(head_blocks); in.Next();) CountBlock(in.Bytes(), &bytes);
  return bytes;
}

absl::StatusOr<SplitChunk> Split(const grpc::ByteBuffer& message) {
  const uint64_t total = message.Length();
  if (total > kChunkBytesMax)
    return absl::InvalidArgumentError(absl::StrCat("a chunk of ", total, " bytes; at most ", kChunkBytesMax, " are allowed"));
  std::vector<grpc::Slice> slices;
  if (!message.Dump(&slices).ok()) return absl::InternalError("gRPC cannot read a message");
  uint64_t tag_at = 0, payload_at = 0;
  if (!FindPayload(SliceCursor(slices), total, &tag_at, &payload_at)) return Malformed();

  SplitChunk out;
  SliceCursor cursor(slices);
  out.chunk.head.resize(payload_at);
  out.chunk.payload.resize(total - payload_at);
  if (!cursor.Copy(payload_at, out.chunk.head.data()) || !cursor.Copy(total - payload_at, out.chunk.payload.data())) return Malformed();

  WireReader in(absl::string_view(out.chunk.head).substr(0, tag_at));
  while (in.Next()) {
    switch (in.field()) {
      case 1:
        out.run = std::string(in.Bytes());
        break;
      case 2:
        out.generation = in.Varint();
        break;
      case 3:
        out.chunk.uid.session = in.Varint();
        break;
      case 4:
        out.chunk.uid.counter = in.Varint();
        break;
      case 6:
        out.chunk.index = in.Varint32();
        break;
      case 7:
        out.chunk.last = in.Bool();
        break;
      case 8:
        CountBlock(in.Bytes(), &out.codec_bytes);
        break;
      default:
        break;
    }
  }
  if (!in.ok()) return Malformed();
  if (out.run.size() > kRunNameBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("a chunk names a run with ", out.run.size(), " bytes; at most ", kRunNameBytesMax));
  }
  // The shard will refuse a chunk whose blocks claim more than there is; the metrics count nothing of it.
  if (std::accumulate(out.codec_bytes.begin(), out.codec_bytes.end(), uint64_t{0}) > out.chunk.payload.size()) out.codec_bytes = {};
  return out;
}

}  // namespace ballast
