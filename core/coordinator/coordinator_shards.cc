// Shards: positions, acceptance, digests; and what becomes durable on server 0.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/coordinator/coordinator_impl.h"

namespace ballast {

void CoordinatorImpl::OnShardPosition(const ShardPosition& p, int64_t now_ms) {
  if (!shards_.Has(p.shard) || p.incarnation < shards_[p.shard].incarnation) return;
  const std::optional<uint64_t> chain = history_.ChainAt(p.index);
  if (config_.rules.newest_history && p.index > durable_) {
    return Fail(absl::StrCat("server ", p.shard, " holds decision ", p.index, ", the coordinator only ", durable_,
                             ": the data of server 0 is older than that of server ", p.shard,
                             ". Start server 0 with its newest data directory"));
  }
  if (p.index + 1 < history_.first() || (chain.has_value() && *chain != p.chain)) {
    return Fail(absl::StrCat(
        "server ", p.shard, chain.has_value() ? " has another decision " : " needs the decisions after ", p.index,
        chain.has_value() ? ": its data directory is of another history" : ", which are not kept any more: its data directory is too old"));
  }
  Shards::State& shard = shards_[p.shard];
  server_lost_ |= Volatile() && shard.incarnation != 0 && p.incarnation != shard.incarnation;
  shard.connected = shard.seen = true;
  shard.incarnation = p.incarnation;
  shard.receipt_key = p.receipt_key;
  shard.accepted = std::max(shard.accepted, p.index);
  shard.version = p.version;
  shard.undecided = {p.undecided.begin(), p.undecided.end()};
  if (p.shard == 0) {
    for (const Uid& uid : p.undecided) shards_.OwnLogHas(uid);
  }
  SendMissing(p.shard, p.index + 1);
  if (checkpoints_.newest() != nullptr) SendShard(p.shard, checkpoints_.Retention());
  norm_.uids.clear();  // it never heard the question
  RecheckReceipts(now_ms);
  Settle();
  Advance(now_ms);
}

void CoordinatorImpl::SendMissing(uint32_t shard, uint64_t from_index) {
  for (uint64_t index = from_index; index <= durable_ && config_.rules.replay_missed; ++index) SendShard(shard, history_.at(index));
}

// The shard has restarted: what it does not report is not there any more.
void CoordinatorImpl::RecheckReceipts(int64_t now_ms) {
  for (OpenStep& step : steps_.open()) WithdrawInvalid(step, now_ms);
}

void CoordinatorImpl::OnShardLost(uint32_t shard, int64_t now_ms) {
  if (!shards_.Has(shard)) return;
  shards_[shard].connected = false;
  norm_.uids.clear();
  Advance(now_ms);
}

void CoordinatorImpl::OnAccepted(uint32_t shard, uint64_t index, uint64_t coordinator_incarnation, int64_t now_ms) {
  // A shard that follows a newer coordinator says so here: nothing that this one decides is acknowledged any more.
  if (!shards_.Has(shard) || index > durable_) return;
  if (config_.rules.ack_to_newest && coordinator_incarnation != config_.incarnation) return;
  shards_[shard].accepted = std::max(shards_[shard].accepted, index);
  Settle();
  Advance(now_ms);
}

void CoordinatorImpl::OnApplied(uint32_t shard, uint64_t index, int64_t now_ms) {
  if (!shards_.Has(shard) || index < history_.first() || index > durable_) return;
  shards_[shard].version = std::max(shards_[shard].version, history_.at(index)->version);
  Advance(now_ms);
}

void CoordinatorImpl::OnNorm(uint32_t shard, uint64_t query, double norm2, int64_t now_ms) {
  if (!shards_.Has(shard) || norm_.uids.empty() || query != norm_.query) return;
  norm_.answers[shard] = norm2;
  Advance(now_ms);
}

void CoordinatorImpl::OnDisk(uint32_t shard, bool low, const std::string& reason, int64_t now_ms) {
  if (!shards_.Has(shard)) return;
  shards_[shard].disk_low = low;
  shards_[shard].disk_reason = low ? reason : "";
  Advance(now_ms);
}

void CoordinatorImpl::OnOwnLog(const Uid& uid) { shards_.OwnLogHas(uid); }

void CoordinatorImpl::OnCheckpointed(uint32_t shard, uint64_t version, const ShardDigest& digest, int64_t unix_ms, int64_t now_ms) {
  if (!shards_.Has(shard)) return;
  checkpoints_.Finished(shard, version, digest, unix_ms);
  if (checkpoints_.TakeComplete(durable_)) outputs_.push_back(CommitManifest{checkpoints_.manifest()});
  Advance(now_ms);
}

// The commit point. The shards learn of the decision now, and the next step may compute on its version.
void CoordinatorImpl::OnDecisionDurable(uint64_t index, int64_t now_ms) {
  while (durable_ < std::min(index, history_.last())) {
    const std::shared_ptr<const Decision>& decision = history_.at(++durable_);
    durable_version_ = decision->version;
    if (decision->kind == DecisionKind::kRollback) StoreRewound();
    for (uint32_t s = 0; s < shards_.size(); ++s) {
      if (shards_[s].connected) SendShard(s, decision);
    }
  }
  if (checkpoints_.TakeComplete(durable_)) outputs_.push_back(CommitManifest{checkpoints_.manifest()});
  Settle();
  Advance(now_ms);
}

// Durable and accepted by every shard: only now is anything acknowledged.
void CoordinatorImpl::Settle() {
  const uint64_t settled = config_.rules.ack_after_accepted ? std::min(durable_, shards_.AcceptedIndex()) : durable_;
  if (settled_ < covered_ && settled >= covered_) {
    settled_ = covered_;
    for (const auto& [id, session] : std::map(sessions_.live())) {  // batches of the restored ledger, claimed before every shard was heard
      for (const Claim& claim : session.parked) {
        if (IsSettled(claim.batch.id) && ledger_.Find(claim.batch.id)) AnswerSettled(claim.batch.id);
      }
    }
  }
  while (settled_ < settled && settled >= covered_) AnnounceSettled(*history_.at(++settled_));
}

void CoordinatorImpl::AnnounceSettled(const Decision& d) {
  const auto answer = [&](const BatchId& batch) {
    unsettled_.erase(batch);
    AnswerSettled(batch);
  };
  for (const Part& part : d.parts) {
    // After a restart the claims of a resumed session are answered; there is no submission to answer.
    if (d.index > restored_ && sessions_.Find(part.uid.session) != nullptr)
      Send(part.uid.session, Decided{part.uid, d.version, part.batches});
    for (const Batch& b : part.batches) answer(b.id);
  }
  for (const SkippedBatch& s : d.skipped) {
    if (const auto by = skipped_by_.find(s.batch.id); by != skipped_by_.end()) {
      if (sessions_.Find(by->second) != nullptr) Send(by->second, SkipLogged{s.batch});
      skipped_by_.erase(by);
    }
    answer(s.batch.id);
  }
}

}  // namespace ballast
