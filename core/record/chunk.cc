#include "core/record/chunk.h"

#include "absl/strings/str_cat.h"
#include "core/codec/codec.h"
#include "core/layout/layout.h"
#include "core/record/hash.h"
#include "core/record/wire.h"

namespace ballast {
namespace {

constexpr uint32_t kPayloadField = 15;

absl::Status Malformed(absl::string_view what) { return absl::InvalidArgumentError(absl::StrCat("BAD_BLOCK: ", what)); }

absl::Status Checked(const WireReader& in, absl::string_view what) {
  return in.ok() ? absl::OkStatus() : absl::InvalidArgumentError(in.status(what).message());
}

absl::StatusOr<BlockHead> ParseBlockHead(absl::string_view bytes) {
  BlockHead block;
  uint32_t codec = 0;
  WireReader in(bytes);
  while (in.Next()) {
    switch (in.field()) {
      case 1:
        block.tensor = in.Varint32();
        break;
      case 2:
        block.first = in.Varint();
        break;
      case 3:
        block.count = in.Varint32();
        break;
      case 4:
        codec = in.Varint32();
        break;
      case 5:
        block.bytes = in.Varint32();
        break;
      case 6:
        block.checksum = in.Fixed64();
        break;
    }
  }
  if (!in.ok()) return Checked(in, "BlockHead");
  if (codec < static_cast<uint32_t>(Codec::kFp32) || codec > static_cast<uint32_t>(Codec::kI64)) {
    return Malformed(absl::StrCat("unknown codec ", codec));
  }
  block.codec = static_cast<Codec>(codec);
  if (block.count == 0 || block.count > kBlockElemsMax) {
    return Malformed(absl::StrCat("block of ", block.count, " elements; allowed: 1 to ", kBlockElemsMax));
  }
  if (block.bytes != EncodedBytes(block.codec, block.count)) {
    return Malformed(absl::StrCat("block of ", block.count, " elements in codec ", codec, " claims ", block.bytes, " bytes instead of ",
                                  EncodedBytes(block.codec, block.count)));
  }
  return block;
}

absl::Status CheckHead(const ParsedHead& parsed, uint64_t message_bytes) {
  if (parsed.head.run.size() > kRunNameBytesMax) return Malformed("run name too long");
  if (parsed.payload_bytes > kChunkPayloadMax) {
    return absl::InvalidArgumentError(absl::StrCat("TOO_LARGE: payload of ", parsed.payload_bytes, " bytes; allowed: ", kChunkPayloadMax));
  }
  if (parsed.head_bytes + parsed.payload_bytes != message_bytes) {
    return Malformed(absl::StrCat("message of ", message_bytes, " bytes is not a head of ", parsed.head_bytes, " and a payload of ",
                                  parsed.payload_bytes));
  }
  uint64_t total = 0;
  for (const BlockHead& block : parsed.head.blocks) total += block.bytes;
  if (total != parsed.payload_bytes) {
    return Malformed(absl::StrCat("blocks of ", total, " bytes in a payload of ", parsed.payload_bytes));
  }
  return absl::OkStatus();
}

}  // namespace

std::string EncodeBlockHeads(absl::Span<const BlockHead> blocks) {
  std::string out, one;
  WireWriter w(&out);
  for (const BlockHead& b : blocks) {
    one.clear();
    WireWriter f(&one);
    f.Varint(1, b.tensor);
    f.Varint(2, b.first);
    f.Varint(3, b.count);
    f.Varint(4, static_cast<uint64_t>(b.codec));
    f.Varint(5, b.bytes);
    f.Fixed64(6, b.checksum);
    w.Message(8, one);
  }
  return out;
}

std::string EncodeChunkHead(const ChunkHead& head, absl::string_view block_heads, uint64_t payload_bytes) {
  std::string out;
  out.reserve(head.run.size() + block_heads.size() + 64);
  WireWriter w(&out);
  w.Bytes(1, head.run);
  w.Varint(2, head.generation);
  w.Varint(3, head.session);
  w.Varint(4, head.uid);
  w.Varint(5, head.version);
  w.Varint(6, head.index);
  w.Bool(7, head.last);
  out.append(block_heads.data(), block_heads.size());
  w.LengthPrefix(kPayloadField, payload_bytes);
  return out;
}

std::string EncodeChunkHead(const ChunkHead& head, uint64_t payload_bytes) {
  return EncodeChunkHead(head, EncodeBlockHeads(head.blocks), payload_bytes);
}

absl::StatusOr<ParsedHead> ParseChunkHead(absl::string_view prefix, uint64_t message_bytes) {
  if (message_bytes > kChunkBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("TOO_LARGE: chunk of ", message_bytes, " bytes; allowed: ", kChunkBytesMax));
  }
  ParsedHead out;
  WireReader in(prefix, kPayloadField);
  while (in.Next()) {
    switch (in.field()) {
      case 1:
        out.head.run = std::string(in.Bytes());
        break;
      case 2:
        out.head.generation = in.Varint();
        break;
      case 3:
        out.head.session = in.Varint();
        break;
      case 4:
        out.head.uid = in.Varint();
        break;
      case 5:
        out.head.version = in.Varint();
        break;
      case 6:
        out.head.index = in.Varint32();
        break;
      case 7:
        out.head.last = in.Bool();
        break;
      case 8: {
        if (out.head.blocks.size() == kChunkBlocksMax) return Malformed(absl::StrCat("more than ", kChunkBlocksMax, " blocks in a chunk"));
        absl::StatusOr<BlockHead> block = ParseBlockHead(in.Bytes());
        if (!block.ok()) return block.status();
        out.head.blocks.push_back(*block);
        break;
      }
    }
  }
  if (!in.ok()) return Checked(in, "Chunk");
  out.head_bytes = in.position();
  out.payload_bytes = in.opened() ? in.length() : 0;
  if (absl::Status s = CheckHead(out, message_bytes); !s.ok()) return s;
  return out;
}

absl::StatusOr<ChunkView> ParseChunk(absl::string_view message) {
  absl::StatusOr<ParsedHead> parsed = ParseChunkHead(message, message.size());
  if (!parsed.ok()) return parsed.status();
  return ChunkView{std::move(parsed->head), message.substr(parsed->head_bytes)};
}

std::vector<absl::string_view> SplitPayload(const ChunkHead& head, absl::string_view payload) {
  std::vector<absl::string_view> out;
  out.reserve(head.blocks.size());
  size_t at = 0;
  for (const BlockHead& block : head.blocks) {
    out.push_back(payload.substr(at, block.bytes));
    at += block.bytes;
  }
  return out;
}

absl::Status VerifyChecksums(const ChunkHead& head, absl::string_view payload) {
  size_t at = 0;
  for (const BlockHead& block : head.blocks) {
    if (Hash64(payload.substr(at, block.bytes)) != block.checksum) {
      return absl::InvalidArgumentError(absl::StrCat("BAD_CHECKSUM: block of tensor ", block.tensor, " at element ", block.first));
    }
    at += block.bytes;
  }
  return absl::OkStatus();
}

uint64_t FoldChecksum(uint64_t so_far, uint64_t block_checksum) {
  std::string bytes;
  WireWriter w(&bytes);
  w.RawFixed64(so_far);
  w.RawFixed64(block_checksum);
  return Hash64(bytes);
}

std::string EncodePushReply(const PushReply& reply) {
  std::string out;
  WireWriter w(&out);
  w.Bytes(1, reply.run);
  w.Varint(2, reply.session);
  w.Varint(3, reply.uid);
  w.Varint(4, reply.incarnation);
  w.Fixed64(5, reply.checksum);
  w.Double(6, reply.norm2);
  w.Varint(7, reply.shard);
  w.Bytes(8, reply.error);
  w.Bytes(9, reply.detail);
  w.Fixed64(10, reply.proof);
  return out;
}

absl::StatusOr<PushReply> ParsePushReply(absl::string_view message) {
  PushReply out;
  WireReader in(message);
  while (in.Next()) {
    switch (in.field()) {
      case 1:
        out.run = std::string(in.Bytes().substr(0, kRunNameBytesMax));
        break;
      case 2:
        out.session = in.Varint();
        break;
      case 3:
        out.uid = in.Varint();
        break;
      case 4:
        out.incarnation = in.Varint();
        break;
      case 5:
        out.checksum = in.Fixed64();
        break;
      case 6:
        out.norm2 = in.Double();
        break;
      case 7:
        out.shard = in.Varint32();
        break;
      case 8:
        out.error = std::string(in.Bytes().substr(0, kErrorTextBytesMax));
        break;
      case 9:
        out.detail = std::string(in.Bytes().substr(0, kErrorTextBytesMax));
        break;
      case 10:
        out.proof = in.Fixed64();
        break;
    }
  }
  if (!in.ok()) return Checked(in, "PushReply");
  return out;
}

std::string EncodeWant(const Want& want) {
  std::string out, packed;
  WireWriter w(&out);
  w.Bytes(1, want.run);
  w.Varint(2, want.generation);
  w.Varint(3, want.number);
  w.Varint(4, want.min_version);
  w.Varint(5, static_cast<uint64_t>(want.codec));
  w.Varint(6, want.manifest);
  WireWriter p(&packed);
  for (uint32_t tensor : want.tensors) p.RawVarint(tensor);
  w.Bytes(7, packed);
  w.Bool(8, want.slots);
  return out;
}

namespace {

// proto3 packs repeated numbers, but a reader must take them one by one as well.
bool AppendTensors(WireReader& in, std::vector<uint32_t>& tensors) {
  if (in.type() == WireType::kVarint) {
    tensors.push_back(in.Varint32());
    return tensors.size() <= kTensorsMax;
  }
  absl::string_view rest = in.Bytes();
  while (!rest.empty()) {
    uint64_t value = 0;
    size_t n = 0;
    do {
      if (n == rest.size() || n == 5) return false;
      value |= (static_cast<uint64_t>(static_cast<uint8_t>(rest[n])) & 0x7f) << (7 * n);
    } while ((static_cast<uint8_t>(rest[n++]) & 0x80) != 0);
    if (value > 0xffffffffu || tensors.size() == kTensorsMax) return false;
    tensors.push_back(static_cast<uint32_t>(value));
    rest.remove_prefix(n);
  }
  return true;
}

}  // namespace

absl::StatusOr<Want> ParseWant(absl::string_view message) {
  Want out;
  uint32_t codec = static_cast<uint32_t>(Codec::kFp32);
  WireReader in(message);
  while (in.Next()) {
    switch (in.field()) {
      case 1:
        out.run = std::string(in.Bytes().substr(0, kRunNameBytesMax + 1));
        break;
      case 2:
        out.generation = in.Varint();
        break;
      case 3:
        out.number = in.Varint();
        break;
      case 4:
        out.min_version = in.Varint();
        break;
      case 5:
        codec = in.Varint32();
        break;
      case 6:
        out.manifest = in.Varint();
        break;
      case 7:
        if (!AppendTensors(in, out.tensors)) in.Fail();
        break;
      case 8:
        out.slots = in.Bool();
        break;
    }
  }
  if (!in.ok()) return Checked(in, "Want");
  if (out.run.size() > kRunNameBytesMax) return absl::InvalidArgumentError("Want: run name too long");
  if (codec == 0 || codec > 4 || !IsFloatCodec(static_cast<Codec>(codec))) {
    return absl::InvalidArgumentError(absl::StrCat("Want: codec ", codec, "; allowed: fp32 (1), bf16 (2), int8 (3)"));
  }
  out.codec = static_cast<Codec>(codec);
  return out;
}

}  // namespace ballast
