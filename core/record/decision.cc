#include "core/record/decision.h"

#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/record/hash.h"
#include "core/record/wire.h"

namespace ballast {
namespace {

std::string EncodeBatch(const Batch& batch) {
  std::string out;
  WireWriter w(&out);
  w.Varint(1, batch.id.epoch);
  w.Varint(2, batch.id.partition);
  w.Varint(3, batch.id.seq);
  w.Varint(4, batch.rows);
  w.Fixed64(5, batch.fingerprint);
  return out;
}

std::string EncodePart(const Part& part) {
  std::string out, uid;
  WireWriter u(&uid);
  u.Varint(1, part.uid.session);
  u.Varint(2, part.uid.counter);
  WireWriter w(&out);
  w.Message(1, uid);
  w.Varint(2, part.rows);
  for (const Batch& batch : part.batches) w.Message(3, EncodeBatch(batch));
  w.Varint(4, part.base_version);
  w.Double(5, part.loss_sum);
  return out;
}

std::string Encode(const Decision& d, bool with_chain) {
  std::string out;
  WireWriter w(&out);
  w.Bytes(1, d.run);
  w.Varint(2, d.generation);
  w.Varint(3, d.index);
  if (with_chain) w.Fixed64(4, d.chain);
  w.Varint(5, static_cast<uint64_t>(d.kind));
  for (const Part& part : d.parts) w.Message(6, EncodePart(part));
  for (const SkippedBatch& skip : d.skipped) {
    std::string one;
    WireWriter s(&one);
    s.Message(1, EncodeBatch(skip.batch));
    s.Bytes(2, skip.reason);
    w.Message(7, one);
  }
  w.Float(8, d.divisor);
  w.Float(9, d.clip_scale);
  w.Bytes(10, absl::string_view(reinterpret_cast<const char*>(d.hyper.data()), 4 * d.hyper.size()));
  w.Varint(11, d.kernel_id);
  w.Varint(12, d.sessions_closed_below);
  w.Varint(13, d.version);
  w.Varint(14, d.step);
  w.Varint(15, d.rollback_version);
  return out;
}

absl::Status ParseBatch(absl::string_view bytes, Batch& out) {
  WireReader in(bytes);
  while (in.Next()) {
    switch (in.field()) {
      case 1:
        out.id.epoch = in.Varint32();
        break;
      case 2:
        out.id.partition = in.Varint32();
        break;
      case 3:
        out.id.seq = in.Varint();
        break;
      case 4:
        out.rows = in.Varint32();
        break;
      case 5:
        out.fingerprint = in.Fixed64();
        break;
    }
  }
  return in.status("Decision.Batch");
}

absl::Status ParseUid(absl::string_view bytes, Uid& out) {
  WireReader in(bytes);
  while (in.Next()) {
    switch (in.field()) {
      case 1:
        out.session = in.Varint();
        break;
      case 2:
        out.counter = in.Varint();
        break;
    }
  }
  return in.status("Decision.Uid");
}

absl::Status ParsePart(absl::string_view bytes, Part& out) {
  WireReader in(bytes);
  absl::Status status;
  while (in.Next()) {
    switch (in.field()) {
      case 1:
        status.Update(ParseUid(in.Bytes(), out.uid));
        break;
      case 2:
        out.rows = in.Varint();
        break;
      case 3:
        status.Update(ParseBatch(in.Bytes(), out.batches.emplace_back()));
        break;
      case 4:
        out.base_version = in.Varint();
        break;
      case 5:
        out.loss_sum = in.Double();
        break;
    }
  }
  status.Update(in.status("Decision.Part"));
  return status;
}

absl::Status ParseSkipped(absl::string_view bytes, SkippedBatch& out) {
  WireReader in(bytes);
  absl::Status status;
  while (in.Next()) {
    switch (in.field()) {
      case 1:
        status.Update(ParseBatch(in.Bytes(), out.batch));
        break;
      case 2:
        out.reason = std::string(in.Bytes());
        break;
    }
  }
  status.Update(in.status("Decision.SkippedBatch"));
  return status;
}

void AppendHyper(WireReader& in, std::vector<float>& hyper) {
  if (in.type() == WireType::kFixed32) {  // not packed
    hyper.push_back(std::bit_cast<float>(in.Fixed32()));
    return;
  }
  const absl::string_view bytes = in.Bytes();
  if (bytes.size() % 4 != 0) return in.Fail();
  const size_t n = hyper.size();
  hyper.resize(n + bytes.size() / 4);
  if (!bytes.empty()) std::memcpy(&hyper[n], bytes.data(), bytes.size());
}

}  // namespace

std::string EncodeDecision(const Decision& decision) { return Encode(decision, true); }

absl::StatusOr<Decision> ParseDecision(absl::string_view bytes) {
  Decision out;
  out.generation = 0;  // what the bytes leave out is proto3's default, not ours
  out.divisor = out.clip_scale = 0;
  out.kernel_id = 0;
  uint32_t kind = 0;
  absl::Status status;
  WireReader in(bytes);
  while (in.Next()) {
    switch (in.field()) {
      case 1:
        out.run = std::string(in.Bytes());
        break;
      case 2:
        out.generation = in.Varint();
        break;
      case 3:
        out.index = in.Varint();
        break;
      case 4:
        out.chain = in.Fixed64();
        break;
      case 5:
        kind = in.Varint32();
        break;
      case 6:
        status.Update(ParsePart(in.Bytes(), out.parts.emplace_back()));
        break;
      case 7:
        status.Update(ParseSkipped(in.Bytes(), out.skipped.emplace_back()));
        break;
      case 8:
        out.divisor = std::bit_cast<float>(in.Fixed32());
        break;
      case 9:
        out.clip_scale = std::bit_cast<float>(in.Fixed32());
        break;
      case 10:
        AppendHyper(in, out.hyper);
        break;
      case 11:
        out.kernel_id = in.Varint32();
        break;
      case 12:
        out.sessions_closed_below = in.Varint();
        break;
      case 13:
        out.version = in.Varint();
        break;
      case 14:
        out.step = in.Varint();
        break;
      case 15:
        out.rollback_version = in.Varint();
        break;
    }
  }
  status.Update(in.status("Decision"));
  if (!status.ok()) return status;
  if (kind < static_cast<uint32_t>(DecisionKind::kStep) || kind > static_cast<uint32_t>(DecisionKind::kSkip)) {
    return absl::DataLossError(absl::StrCat("Decision ", out.index, ": unknown kind ", kind, "; a newer release wrote it"));
  }
  out.kind = static_cast<DecisionKind>(kind);
  return out;
}

uint64_t ChainOf(uint64_t previous_chain, const Decision& decision) {
  return Hasher().AddU64(previous_chain).Add(Encode(decision, false)).Value();
}

void SealDecision(uint64_t previous_chain, Decision& decision) { decision.chain = ChainOf(previous_chain, decision); }

absl::Status VerifyChain(uint64_t previous_chain, const Decision& decision) {
  const uint64_t expected = ChainOf(previous_chain, decision);
  if (expected == decision.chain) return absl::OkStatus();
  return absl::DataLossError(absl::StrFormat("run %s: decision %d carries chain %016x, expected %016x after %016x", decision.run,
                                             decision.index, decision.chain, expected, previous_chain));
}

}  // namespace ballast
