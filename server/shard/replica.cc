#include "server/shard/replica.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/record/chunk.h"
#include "core/record/decision.h"

namespace ballast {
namespace {

// A HASH_ROOT follows its version after at most the decisions that the coordinator may be ahead of the slowest shard; twice that is plenty.
constexpr size_t kRootsKept = 16;

// Contributions of a step or two; fresh memory costs as much as reading into it.
constexpr uint64_t kRecoverySpareBytes = 256u << 20;

bool ChangesValues(DecisionKind kind) { return kind == DecisionKind::kStep || kind == DecisionKind::kInit; }

bool MakesVersion(DecisionKind kind) { return ChangesValues(kind) || kind == DecisionKind::kRollback; }

bool Known(DecisionKind kind) { return MakesVersion(kind) || kind == DecisionKind::kCheckpoint || kind == DecisionKind::kSkip; }

}  // namespace

absl::StatusOr<std::unique_ptr<Replica>> Replica::Create(ShardBlocks blocks, uint64_t staged_bytes_max) {
  std::unique_ptr<Replica> replica(new Replica(std::move(blocks), staged_bytes_max));
  absl::StatusOr<ShardValues> values = ShardValues::Create(&replica->blocks_);
  if (!values.ok()) return values.status();
  replica->values_.emplace(*std::move(values));
  replica->position_.generation = replica->blocks_.generation();
  return replica;
}

absl::StatusOr<std::vector<const Contribution*>> Replica::Parts(const Decision& d) const {
  std::vector<const Contribution*> parts;
  for (const Part& part : d.parts) {
    parts.push_back(staging_.Find(part.uid));
    if (parts.back() != nullptr) continue;
    return absl::DataLossError(absl::StrCat("decision ", d.index, " of run ", d.run, " counts contribution (session ", part.uid.session,
                                            ", counter ", part.uid.counter, "), which shard ", blocks_.shard(),
                                            " does not hold whole: acknowledged data is lost"));
  }
  return parts;
}

absl::Status Replica::CheckPlace(const Decision& d) const {
  if (d.index != position_.index + 1) {
    return absl::DataLossError(
        absl::StrCat("decision ", d.index, " of run ", d.run, " after decision ", position_.index, ": some are missing"));
  }
  if (absl::Status s = VerifyChain(position_.chain, d); !s.ok()) return s;
  const uint64_t generation = position_.generation + (d.kind == DecisionKind::kRollback ? 1 : 0);
  if (d.run != blocks_.spec().name || d.generation != generation) {
    return absl::DataLossError(absl::StrCat("decision ", d.index, " of run ", d.run, ", generation ", d.generation, ", in the log of run ",
                                            blocks_.spec().name, ", generation ", generation));
  }
  if (!Known(d.kind)) {
    return absl::FailedPreconditionError(
        absl::StrCat("decision ", d.index, " is of kind ", static_cast<int>(d.kind), ": a newer release wrote it"));
  }
  if (d.version != position_.version + (MakesVersion(d.kind) ? 1 : 0)) {
    return absl::DataLossError(absl::StrCat("decision ", d.index, " makes version ", d.version, " of version ", position_.version));
  }
  return absl::OkStatus();
}

absl::Status Replica::Check(const Decision& d) const {
  if (absl::Status s = CheckPlace(d); !s.ok()) return s;
  if (absl::Status s = values_->CheckStep(d); !s.ok()) return s;
  if (d.kind == DecisionKind::kStep && blocks_.spec().durability == Durability::kCheckpoint) return absl::OkStatus();
  return ChangesValues(d.kind) ? Parts(d).status() : absl::OkStatus();
}

void Replica::Apply(const Decision& d, absl::FunctionRef<void(size_t block)> before_change) {
  if (d.kind == DecisionKind::kRollback) lost_ = false;
  const absl::StatusOr<std::vector<const Contribution*>> parts = Parts(d);
  lost_ |= !parts.ok();  // Check allows it with durability "checkpoint" only
  changed_ = MakesVersion(d.kind) && !lost_;
  if (ChangesValues(d.kind) && !lost_) values_->Apply(d, *parts, before_change);
  MoveTo(d);
}

void Replica::MoveTo(const Decision& d) {
  position_ = {d.index, d.version, d.chain, d.step, d.sessions_closed_below, d.generation};
  staging_.OnDecided(d.parts, d.index);
  staging_.CloseBelow(d.sessions_closed_below);
}

absl::StatusOr<double> Replica::Norm(const std::vector<Uid>& uids) const {
  Decision asked;
  asked.run = blocks_.spec().name;
  for (const Uid& uid : uids) asked.parts.emplace_back().uid = uid;
  absl::StatusOr<std::vector<const Contribution*>> parts = Parts(asked);
  if (!parts.ok()) return parts.status();
  return values_->NormOfSum(*parts);
}

std::optional<HashRoot> Replica::RootDue() const {
  if (!changed_ || position_.version % kHashRootVersions != 0) return std::nullopt;
  return HashRoot{position_.generation, position_.version, values_->Root()};
}

void Replica::BeginRecovery(ThreadTeam* team) {
  values_->ShareWork(team);
  staging_.KeepSpares(kRecoverySpareBytes);
}

void Replica::EndRecovery() {
  values_->ShareWork(nullptr);
  staging_.KeepSpares(0);
}

absl::Status Replica::Replay(const RecordHeader& header, const LogPosition& at, absl::string_view body,
                             absl::FunctionRef<void(std::shared_ptr<const Decision>)> decided,
                             absl::FunctionRef<void(size_t block)> before_change,
                             absl::FunctionRef<absl::Status(const Decision&)> restore) {
  absl::Status s;
  switch (header.kind) {
    case RecordKind::kContribution:
      s = ReplayContribution(at, body);
      break;
    case RecordKind::kDecision: {
      absl::StatusOr<Decision> d = ParseDecision(body);
      s = d.status();
      if (!s.ok()) break;
      auto decision = std::make_shared<const Decision>(*std::move(d));
      s = ReplayDecision(*decision, before_change, restore);
      if (s.ok()) decided(std::move(decision));
      break;
    }
    case RecordKind::kHashRoot:
      s = ReplayRoot(body);
      break;
    default:
      break;
  }
  if (s.ok()) return s;
  return absl::Status(s.code(), absl::StrCat(s.message(), " (segment ", at.segment, ", byte ", at.offset, ")"));
}

absl::Status Replica::ReplayContribution(const LogPosition& at, absl::string_view body) {
  absl::StatusOr<ParsedHead> parsed = ParseChunkHead(body, body.size());
  if (!parsed.ok()) return absl::DataLossError(parsed.status().message());
  const Uid uid{parsed->head.session, parsed->head.uid};
  // Bytes that the live shard logged and then dropped, because a decision that stands before them closed their session, end here too.
  const absl::StatusOr<Staging::Verdict> verdict = staging_.Offer(uid, parsed->head.index, parsed->payload_bytes, /*untrusted=*/false);
  if (!verdict.ok() || *verdict != Staging::Verdict::kTake) return absl::OkStatus();
  const absl::string_view payload = body.substr(parsed->head_bytes);
  absl::StatusOr<CheckedChunk> chunk = staging_.Check(body.substr(0, parsed->head_bytes), payload, /*untrusted=*/false);
  if (!chunk.ok()) return absl::DataLossError(chunk.status().message());
  std::string kept = staging_.TakeSpare();
  kept.assign(payload.data(), payload.size());
  staging_.Add(*std::move(chunk), std::move(kept), at);
  return absl::OkStatus();
}

bool Replica::LeftOut(const Decision& d) const {
  return MakesVersion(d.kind) && std::any_of(undone_.begin(), undone_.end(),
                                             [&](const UndoneRange& range) { return d.index < range.index && d.version > range.version; });
}

absl::Status Replica::ReplayDecision(const Decision& d, absl::FunctionRef<void(size_t block)> before_change,
                                     absl::FunctionRef<absl::Status(const Decision&)> restore) {
  if (replayed_index_ != 0) {
    if (d.index != replayed_index_ + 1) {
      return absl::DataLossError(absl::StrCat("decision ", d.index, " follows decision ", replayed_index_, " in the log"));
    }
    if (absl::Status s = VerifyChain(replayed_chain_, d); !s.ok()) return s;
  } else if (d.index > position_.index + 1) {
    return absl::DataLossError(absl::StrCat("the log begins at decision ", d.index, ", but the newest good checkpoint is at decision ",
                                            position_.index, ": the decisions between them are lost"));
  }
  replayed_index_ = d.index;
  replayed_chain_ = d.chain;
  if (d.index > position_.index) {
    if (LeftOut(d)) {
      if (absl::Status s = CheckPlace(d); !s.ok()) return s;
      MoveTo(d);
      return absl::OkStatus();
    }
    if (absl::Status s = Check(d); !s.ok()) return s;
    if (d.kind == DecisionKind::kRollback) {
      if (absl::Status s = restore(d); !s.ok()) return s;
    }
    Apply(d, before_change);
    if (std::optional<HashRoot> root = RootDue(); root.has_value()) roots_[root->version] = root->root;
    if (roots_.size() > kRootsKept) roots_.erase(roots_.begin());
    return absl::OkStatus();
  }
  if (d.index == position_.index && d.chain != position_.chain) {
    return absl::DataLossError(absl::StrCat("decision ", d.index, " in the log is not the one that the checkpoint was made at"));
  }
  staging_.OnDecided(d.parts, d.index);
  staging_.CloseBelow(d.sessions_closed_below);
  return absl::OkStatus();
}

absl::Status Replica::ReplayRoot(absl::string_view body) {
  absl::StatusOr<HashRoot> logged = ParseHashRoot(body);
  if (!logged.ok()) return logged.status();
  const auto mine = roots_.find(logged->version);
  if (mine == roots_.end()) {
    if (logged->version <= position_.version) return absl::OkStatus();  // before the checkpoint
    return absl::DataLossError(absl::StrCat("a hash root of version ", logged->version, " before the decision that made it"));
  }
  if (mine->second == logged->root) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("replay of run ", blocks_.spec().name, ", shard ", blocks_.shard(),
                                          " differs from what was trained: version ", logged->version, " has hash ",
                                          absl::Hex(mine->second), ", the log says ", absl::Hex(logged->root)));
}

}  // namespace ballast
