#include "server/shard/staging.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/codec/codec.h"
#include "core/layout/layout.h"

namespace ballast {
namespace {

absl::Status Refusal(absl::string_view name, absl::string_view detail) {
  return absl::InvalidArgumentError(absl::StrCat(name, ": ", detail));
}

// OPT tensors travel in the run's codec or, as initial weights do, exactly; everything else exactly.
bool CodecAllowed(const RunSpec& spec, const TensorSpec& tensor, Codec codec) {
  if (tensor.dtype == DType::kI64) return codec == Codec::kI64;
  return codec == Codec::kFp32 || codec == PushCodecOf(spec, tensor);
}

}  // namespace

Contribution* Staging::FindAny(Uid uid) const {
  const auto session = sessions_.find(uid.session);
  if (session == sessions_.end()) return nullptr;
  const auto it = session->second.contributions.find(uid.counter);
  return it == session->second.contributions.end() ? nullptr : it->second.get();
}

absl::StatusOr<Staging::Verdict> Staging::Offer(Uid uid, uint32_t index, uint64_t bytes, bool untrusted) {
  if (uid.session < closed_below_) return Refusal("SESSION_CLOSED", absl::StrCat("session ", uid.session, " was closed"));
  if (FindDecided(uid).has_value()) return Verdict::kHeld;
  Contribution* held = FindAny(uid);
  if (held != nullptr && held->complete) return Verdict::kHeld;
  Session& session = sessions_[uid.session];
  const auto refused = std::find(session.refused.begin(), session.refused.end(), uid.counter);
  if (index == 0) {
    if (refused != session.refused.end()) session.refused.erase(refused);
  } else {
    if (refused != session.refused.end()) return Verdict::kIgnore;
    const uint32_t expected = held == nullptr ? 0 : held->next_index;
    if (index != expected) return Refusal("OUT_OF_ORDER", absl::StrCat("chunk ", index, " where ", expected, " was expected"));
  }
  if (held != nullptr && index == 0) Drop(session, session.contributions.find(uid.counter));
  if (!untrusted) return Verdict::kTake;
  if (index == 0 && session.contributions.size() >= kStagedPerSession) {
    return Refusal("TOO_LARGE",
                   absl::StrCat("session ", uid.session, " has ", session.contributions.size(), " undecided contributions already"));
  }
  if (bytes_ + bytes > staged_bytes_max_) {
    return Refusal("TOO_LARGE", absl::StrCat(bytes_, " bytes of undecided contributions are held already; allowed: ", staged_bytes_max_));
  }
  return Verdict::kTake;
}

absl::StatusOr<CheckedChunk> Staging::Check(absl::string_view head, absl::string_view payload, bool untrusted) const {
  absl::StatusOr<ParsedHead> parsed = ParseChunkHead(head, head.size() + payload.size());
  if (!parsed.ok()) return parsed.status();
  if (parsed->head_bytes != head.size()) return Refusal("BAD_BLOCK", "head and payload do not meet");
  CheckedChunk out;
  out.head = std::move(parsed->head);
  const RunSpec& spec = blocks_->spec();
  if (out.head.run != spec.name) return Refusal("NO_RUN", absl::StrCat("chunk of run \"", out.head.run, "\""));
  if (out.head.generation != blocks_->generation()) {
    return Refusal("STALE_GENERATION", absl::StrCat("generation ", out.head.generation, "; the run is at ", blocks_->generation()));
  }
  if (untrusted) {
    if (absl::Status s = VerifyChecksums(out.head, payload); !s.ok()) return s;
  }
  const std::vector<absl::string_view> bytes = SplitPayload(out.head, payload);
  for (size_t i = 0; i < bytes.size(); ++i) {
    const BlockHead& block = out.head.blocks[i];
    const auto name = [&] {
      return absl::StrCat("block of tensor ", block.tensor, " at element ", block.first, " (", block.count, " elements)");
    };
    const int64_t local = blocks_->Find(block.tensor, block.first);
    if (local < 0 || blocks_->block(static_cast<size_t>(local)).count != block.count) {
      return Refusal("BAD_BLOCK", absl::StrCat(name(), " is not a block of shard ", blocks_->shard()));
    }
    const TensorSpec& tensor = blocks_->tensor(static_cast<size_t>(local));
    if (!CodecAllowed(spec, tensor, block.codec)) {
      return Refusal("BAD_BLOCK",
                     absl::StrCat(name(), ": codec ", static_cast<int>(block.codec), " is not the one of tensor ", tensor.name));
    }
    out.blocks.push_back(static_cast<size_t>(local));
    if (!untrusted) continue;
    double* norm2 = tensor.rule == UpdateRule::kOpt ? &out.norm2 : nullptr;
    const ValueKind kind = norm2 != nullptr ? ValueKind::kGradient : ValueKind::kBuffer;
    if (absl::Status s = CheckEncoded(block.codec, block.count, bytes[i], norm2, kind); !s.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(s.message(), " in tensor ", tensor.name));
    }
  }
  std::vector<size_t> sorted = out.blocks;
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) return Refusal("BAD_BLOCK", "a block comes twice in the chunk");
  const Contribution* held = FindAny({out.head.session, out.head.uid});
  if (held != nullptr && out.head.index != 0) {
    for (size_t block : out.blocks) {
      if (!held->blocks[block].bytes.empty()) return Refusal("BAD_BLOCK", "a block comes twice in the contribution");
    }
  }
  return out;
}

Contribution* Staging::Add(CheckedChunk chunk, std::string payload, const LogPosition& at) {
  const ChunkHead& head = chunk.head;
  std::unique_ptr<Contribution>& held = sessions_[head.session].contributions[head.uid];
  if (held == nullptr) {
    held = std::make_unique<Contribution>();
    held->uid = {head.session, head.uid};
    held->blocks.resize(blocks_->size());
    held->first = at;
  }
  bytes_ += payload.size();
  held->payload_bytes += payload.size();
  held->payloads.push_back(std::move(payload));
  const std::vector<absl::string_view> bytes = SplitPayload(head, held->payloads.back());
  for (size_t i = 0; i < bytes.size(); ++i) {
    held->blocks[chunk.blocks[i]] = {head.blocks[i].codec, bytes[i]};
    held->checksum = FoldChecksum(held->checksum, head.blocks[i].checksum);
  }
  held->norm2 += chunk.norm2;
  held->next_index = head.index + 1;
  held->complete = head.last;
  held->last = at;
  return held.get();
}

void Staging::Drop(Session& session, std::map<uint64_t, std::unique_ptr<Contribution>>::iterator it) {
  bytes_ -= it->second->payload_bytes;
  for (std::string& payload : it->second->payloads) {
    if (spare_bytes_ + payload.capacity() > spare_bytes_max_) break;
    spare_bytes_ += payload.capacity();
    spares_.push_back(std::move(payload));
  }
  session.contributions.erase(it);
}

void Staging::KeepSpares(uint64_t bytes_max) {
  spare_bytes_max_ = bytes_max;
  spare_bytes_ = 0;
  spares_ = {};
}

std::string Staging::TakeSpare() {
  if (spares_.empty()) return {};
  std::string spare = std::move(spares_.back());
  spares_.pop_back();
  spare_bytes_ -= spare.capacity();
  return spare;
}

void Staging::Refuse(Uid uid) {
  if (uid.session < closed_below_) return;
  Session& session = sessions_[uid.session];
  const auto it = session.contributions.find(uid.counter);
  if (it != session.contributions.end()) Drop(session, it);
  session.refused.push_back(uid.counter);
  if (session.refused.size() > kRememberedPerSession) session.refused.pop_front();
}

const Contribution* Staging::Find(Uid uid) const {
  const Contribution* held = FindAny(uid);
  return held != nullptr && held->complete ? held : nullptr;
}

std::optional<DecidedReceipt> Staging::FindDecided(Uid uid) const {
  const auto session = sessions_.find(uid.session);
  if (session == sessions_.end()) return std::nullopt;
  for (const DecidedReceipt& receipt : session->second.decided) {
    if (receipt.uid == uid) return receipt;
  }
  return std::nullopt;
}

std::vector<const Contribution*> Staging::Complete() const {
  std::vector<const Contribution*> out;
  for (const auto& [id, session] : sessions_) {
    for (const auto& [counter, held] : session.contributions) {
      if (held->complete) out.push_back(held.get());
    }
  }
  return out;
}

void Staging::OnDecided(const std::vector<Part>& parts, uint64_t index) {
  for (const Part& part : parts) {
    const auto session = sessions_.find(part.uid.session);
    if (session == sessions_.end()) continue;
    const auto it = session->second.contributions.find(part.uid.counter);
    if (it == session->second.contributions.end()) continue;
    const Contribution& held = *it->second;
    for (uint64_t segment = held.first.segment; segment != 0 && segment <= held.last.segment; ++segment) {
      uint64_t& used = used_by_[segment];
      used = std::max(used, index);
    }
    std::deque<DecidedReceipt>& decided = session->second.decided;
    decided.push_back({held.uid, held.checksum, held.norm2});
    if (decided.size() > kRememberedPerSession) decided.pop_front();
    Drop(session->second, it);
  }
}

void Staging::CloseBelow(uint64_t session) {
  closed_below_ = std::max(closed_below_, session);
  const auto end = sessions_.lower_bound(closed_below_);
  for (auto it = sessions_.begin(); it != end; it = sessions_.erase(it)) {
    for (const auto& [counter, held] : it->second.contributions) bytes_ -= held->payload_bytes;
  }
}

uint64_t Staging::FirstNeededSegment(uint64_t index) const {
  uint64_t first = std::numeric_limits<uint64_t>::max();
  for (const auto& [segment, used_by] : used_by_) {
    if (used_by < index) continue;
    first = segment;
    break;
  }
  for (const auto& [id, session] : sessions_) {
    for (const auto& [counter, held] : session.contributions) {
      if (held->first.segment != 0) first = std::min(first, held->first.segment);
    }
  }
  return first;
}

void Staging::ComputeNorms() {
  for (const auto& [id, session] : sessions_) {
    for (const auto& [counter, held] : session.contributions) {
      held->norm2 = 0;
      for (size_t i = 0; i < held->blocks.size(); ++i) {
        const Contribution::Encoded& block = held->blocks[i];
        if (block.bytes.empty() || blocks_->tensor(i).rule != UpdateRule::kOpt) continue;
        (void)CheckEncoded(block.codec, blocks_->block(i).count, block.bytes, &held->norm2);  // checked before it was logged
      }
    }
  }
}

}  // namespace ballast
