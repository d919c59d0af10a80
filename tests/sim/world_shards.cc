// The shards: a log with an unsynced tail, decisions in order, receipts when they are due.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/sim/receipt_of.h"
#include "tests/sim/world.h"

namespace ballast::sim {
namespace {

using Link = Partition::Link;

}  // namespace

void World::CollectShards() {
  for (uint32_t s = 0; s < shards_.size(); ++s) {
    SimShard& shard = shards_[s];
    if (!shard.up) {
      if (s != 0) {
        Add([this, s] {
          Note(absl::StrCat("shard ", s, " starts"));
          shards_[s].up = true;
          ++shards_[s].incarnation;
        });
      }
      continue;
    }
    if (CoordinatorUp() && !shard.connected && !Parted(Link::kFollow, 0, s)) Add([this, s] { Connect(s); });
    const bool unsynced = shard.synced_decisions < shard.decisions.size() ||
                          std::any_of(shard.contributions.begin(), shard.contributions.end(),
                                      [&](const auto& c) { return !c.second && !shard.in_memory.contains(c.first); });
    if (unsynced && (s != 0 || CoordinatorUp())) Add([this, s] { SyncShard(s, true); });
    if (!shard.down.empty() && !Blocked(Link::kFollow, 0, s, false)) Add([this, s] { ReceiveFollow(s); });
    if (!shard.up_stream.empty() && CoordinatorUp() && !Blocked(Link::kFollow, 0, s, true)) Add([this, s] { SendFollow(s); });
    if (shard.applied < shard.decisions.size() && shard.decisions[shard.applied]->index <= shard.ever_accepted)
      Add([this, s] { ApplyNext(s); });
    if (!shard.checkpoints_due.empty()) {
      Add([this, s] {
        SimShard& own = shards_[s];
        if (s != 0) SyncShard(s, true);  // a finished checkpoint holds what was applied
        own.checkpoints.insert(own.checkpoints_due.front());
        if (own.connected) own.up_stream.push_back(CheckpointedUp{own.checkpoints_due.front()});
        own.checkpoints_due.pop_front();
      });
    }
    for (uint32_t w = 0; w < workers_.size(); ++w) {
      if (!push_[w][s].empty() && !Blocked(Link::kPush, w, s, true)) Add([this, w, s] { ReceivePush(w, s); });
    }
  }
}

void World::SyncShard(uint32_t s, bool tell) {
  SimShard& shard = shards_[s];
  if (s == 0) {
    for (size_t i = shard.synced_decisions; i < shard.decisions.size(); ++i) CheckDurable(*shard.decisions[i]);
  }
  shard.Sync();
  for (const auto& [uid, w] : std::exchange(shard.receipts_due, {})) GiveReceipt(s, uid, w);
  if (s == 0 && tell && !shard.decisions.empty()) {
    coordinator_->OnDecisionDurable(shard.decisions.back()->index, now_ms_);
    Drain();
  }
}

void World::Connect(uint32_t s) {
  SimShard& shard = shards_[s];
  shard.connected = true;
  shard.down.clear();
  shard.up_stream.clear();
  shard.coordinator = std::max(shard.coordinator, incarnation_);
  ShardPosition position;
  position.shard = s;
  position.incarnation = shard.incarnation;
  const size_t held = s == 0 ? shard.synced_decisions : shard.decisions.size();
  position.index = held;
  position.version = held == 0 ? 0 : shard.decisions[held - 1]->version;
  position.chain = held == 0 ? 0 : shard.decisions[held - 1]->chain;
  position.undecided = shard.Undecided();
  position.receipt_key = shard.incarnation;
  shard.ever_accepted = std::max<uint64_t>(shard.ever_accepted, held);
  while (shard.applied < held) ApplyNext(s);  // recovered before it says where it stands
  if (s == 0) {
    for (const auto& [uid, synced] : shard.contributions) coordinator_->OnOwnLog(uid);
  }
  shard.up_stream.push_back(position);
  if (!shard.checkpoints.empty()) shard.up_stream.push_back(CheckpointedUp{*shard.checkpoints.rbegin()});
}

void World::CrashShard(uint32_t s) {
  Note(absl::StrCat("CRASH shard ", s));
  SimShard& shard = shards_[s];
  if (rng_.Chance(30)) SyncShard(s, true);
  shard.LoseTail();
  shard.up = shard.connected = false;
  shard.down.clear();
  shard.up_stream.clear();
  for (uint32_t w = 0; w < workers_.size(); ++w) {
    push_[w][s].clear();
    receipts_[w][s].clear();
  }
  if (CoordinatorUp()) {
    coordinator_->OnShardLost(s, now_ms_);
    Drain();
  }
}

void World::ReceiveFollow(uint32_t s) {
  SimShard& shard = shards_[s];
  const ShardMessage message = std::move(shard.down.front());
  shard.down.pop_front();
  if (const auto* decision = std::get_if<DecisionPtr>(&message)) {
    const uint64_t index = (*decision)->index;
    if (s != 0) {
      if (index > shard.decisions.size() + 1) return Violation(absl::StrCat("shard ", s, " is sent decision ", index, " too early"));
      if (index == shard.decisions.size() + 1) shard.decisions.push_back(*decision);
    }
    if (shard.decisions[index - 1]->chain != (*decision)->chain)
      return Violation(absl::StrCat("shard ", s, " is sent another decision ", index));
    shard.ever_accepted = std::max(shard.ever_accepted, index);
    shard.up_stream.push_back(AcceptedUp{index, shard.coordinator});
  } else if (const auto* query = std::get_if<NormQuery>(&message)) {
    for (const Uid& uid : query->uids) {
      if (!Volatile() && !shard.Has(uid, /*synced=*/s != 0))
        Violation(absl::StrCat("shard ", s, " is asked for the norm of bytes that it does not have"));
    }
    shard.up_stream.push_back(NormUp{query->query, static_cast<double>(query->uids.size())});
  } else {
    TakeManifest(s, std::get<ManifestCommitted>(message));
  }
}

// What is not kept is gone at once.
void World::TakeManifest(uint32_t s, const ManifestCommitted& manifest) {
  SimShard& shard = shards_[s];
  std::erase_if(shard.checkpoints, [&](uint64_t version) { return !manifest.Keeps(version); });
  std::erase_if(shard.rows_at, [&](const auto& rows) { return !manifest.Keeps(rows.first); });
  if (s == 0) log_needed_from_ = std::max(log_needed_from_, manifest.log_needed_from);
}

void World::SendFollow(uint32_t s) {
  SimShard& shard = shards_[s];
  const FollowUp message = std::move(shard.up_stream.front());
  shard.up_stream.pop_front();
  if (const auto* position = std::get_if<ShardPosition>(&message)) {
    coordinator_->OnShardPosition(*position, now_ms_);
  } else if (const auto* accepted = std::get_if<AcceptedUp>(&message)) {
    coordinator_->OnAccepted(s, accepted->index, accepted->coordinator, now_ms_);
  } else if (const auto* applied = std::get_if<AppliedUp>(&message)) {
    coordinator_->OnApplied(s, applied->index, now_ms_);
  } else if (const auto* norm = std::get_if<NormUp>(&message)) {
    coordinator_->OnNorm(s, norm->query, norm->norm2, now_ms_);
  } else {
    const uint64_t version = std::get<CheckpointedUp>(message).version;
    coordinator_->OnCheckpointed(s, version, ShardDigest{s, version, 1, 0}, 1000, now_ms_);
  }
  Drain();
}

void World::ReceivePush(uint32_t w, uint32_t s) {
  SimShard& shard = shards_[s];
  const Uid uid = push_[w][s].front();
  push_[w][s].pop_front();
  if (!shard.decisions.empty() && uid.session < shard.decisions.back()->sessions_closed_below) return;  // garbage
  const bool logged = !Volatile() || shard.applied == 0 || shard.decisions[shard.applied - 1]->version == 0;
  const auto [held, is_new] = shard.contributions.try_emplace(uid, false);
  if (is_new && !logged) shard.in_memory.insert(uid);
  const bool synced = held->second || shard.in_memory.contains(uid);
  if (s == 0 && CoordinatorUp()) coordinator_->OnOwnLog(uid);
  if (ReceiptDue(config_.rules, s == 0, synced)) {
    GiveReceipt(s, uid, w);
  } else {
    shard.receipts_due.emplace_back(uid, w);
  }
}

void World::GiveReceipt(uint32_t s, const Uid& uid, uint32_t w) {
  receipts_[w][s].emplace_back(uid, ReceiptOf(s, shards_[s].incarnation, uid));
}

void World::ApplyNext(uint32_t s) {
  SimShard& shard = shards_[s];
  const DecisionPtr decision = shard.decisions[shard.applied];
  if (decision->chain != shards_[0].decisions[shard.applied]->chain)
    return Violation(absl::StrCat("shard ", s, " applies another history"));
  for (const Part& part : decision->parts) {
    shard.lost |= Volatile() && !shard.Has(part.uid, /*synced=*/false);
    if (shard.lost) break;
    if (!shard.Has(part.uid, /*synced=*/false))
      return Violation(absl::StrCat("shard ", s, " cannot apply decision ", decision->index, ": bytes are missing"));
    if (decision->kind == DecisionKind::kStep) shard.rows_applied += part.rows;
  }
  if (decision->kind == DecisionKind::kRollback) {
    // A recovery begins at its newest checkpoint: what is before that one it only reads over.
    const bool read_over =
        std::any_of(shard.decisions.begin() + static_cast<std::ptrdiff_t>(shard.applied), shard.decisions.end(),
                    [&](const DecisionPtr& d) { return d->kind == DecisionKind::kCheckpoint && shard.checkpoints.contains(d->version); });
    if (!read_over && !shard.checkpoints.contains(decision->rollback_version))
      return Violation(absl::StrCat("shard ", s, " goes back to version ", decision->rollback_version, ", which it has no checkpoint of"));
    shard.rows_applied = shard.rows_at[decision->rollback_version];
    shard.lost = false;
  }
  ++shard.applied;
  if (decision->kind == DecisionKind::kCheckpoint && shard.checkpoints.contains(decision->version)) {  // recovered: begins there
    shard.rows_applied = shard.rows_at[decision->version];
    shard.lost = false;
  }
  if (decision->kind == DecisionKind::kCheckpoint && !shard.lost) {
    shard.rows_at[decision->version] = shard.rows_applied;
    shard.checkpoints_due.push_back(decision->version);
  }
  if (shard.connected) shard.up_stream.push_back(AppliedUp{decision->index});
}

uint64_t World::SlowestVersion() const {
  uint64_t version = ~uint64_t{0};
  for (const SimShard& shard : shards_) {
    if (!shard.up) return 0;
    version = std::min(version, shard.applied == 0 ? 0 : shard.decisions[shard.applied - 1]->version);
  }
  return version;
}

}  // namespace ballast::sim
