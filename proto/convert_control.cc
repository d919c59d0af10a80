#include "proto/convert_control.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace ballast {
namespace {

template <typename... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <typename... F>
Overloaded(F...) -> Overloaded<F...>;

v1::RunState StateToProto(RunStatus::State state) {
  switch (state) {
    case RunStatus::State::kWaiting:
      return v1::RUN_WAITING;
    case RunStatus::State::kActive:
      return v1::RUN_ACTIVE;
    case RunStatus::State::kStopped:
      return v1::RUN_STOPPED;
  }
  return v1::RUN_STATE_UNSPECIFIED;
}

absl::StatusOr<SessionMessage> RefuseFromProto(const v1::WorkDown::Refuse& p) {
  if (p.reason() < 1 || p.reason() > 3)
    return absl::InvalidArgumentError(absl::StrCat("refuse.reason: ", p.reason(), " is not a value that this release knows"));
  return Refuse{FromProto(p.uid()), static_cast<Refuse::Reason>(p.reason()), {p.shards().begin(), p.shards().end()}};
}

}  // namespace

void SetStatus(const RunStatus& status, v1::Run* run) {
  run->set_state(StateToProto(status.state));
  run->set_reason(status.reason);
  run->set_generation(status.generation);
  run->set_version(status.version);
  run->set_steps(status.steps);
  run->set_rows_trained(status.rows_trained);
  run->set_rows_skipped(status.rows_skipped);
  run->set_duplicates(status.duplicates);
  run->set_loss(status.loss);
  run->set_manifest_version(status.manifest_version);
  run->set_sessions(status.sessions);
  run->set_steps_part_full(status.steps_part_full);
  for (const EpochReport& report : status.epochs) *run->add_epochs() = ToProto(report);
  run->set_residual_norm(status.residual_norm);
  for (const StepTiming& timing : status.timing) *run->add_timing() = ToProto(timing);
}

EpochRecord FromProto(const v1::Epoch& p) {
  EpochRecord epoch;
  epoch.epoch = p.epoch();
  epoch.partitions = p.partitions();
  epoch.batch_rows = p.batch_rows();
  epoch.schema = p.schema();
  return epoch;
}

v1::Epoch ToProto(const std::string& run, const EpochRecord& epoch) {
  v1::Epoch p;
  p.set_run(run);
  p.set_epoch(epoch.epoch);
  p.set_partitions(epoch.partitions);
  p.set_batch_rows(epoch.batch_rows);
  p.set_schema(epoch.schema);
  return p;
}

std::vector<Coordinator::PartitionCount> FromProto(const v1::EpochCounts& p) {
  std::vector<Coordinator::PartitionCount> counts;
  for (const v1::PartitionCount& count : p.partitions()) counts.push_back({count.partition(), count.batches(), count.rows()});
  return counts;
}

void SetFeedState(const FeedState& state, v1::FeedPlace* place) {
  place->set_committed(state.committed);
  place->set_trained_below(state.trained_below);
  for (const SeqRange& range : state.trained) {
    v1::SeqRange* added = place->add_trained();
    added->set_first(range.first);
    added->set_count(range.count);
  }
}

v1::Receipt ToProto(const Receipt& receipt) {
  v1::Receipt p;
  p.set_shard(receipt.shard);
  p.set_incarnation(receipt.incarnation);
  p.set_checksum(receipt.checksum);
  p.set_norm2(receipt.norm2);
  p.set_proof(receipt.proof);
  return p;
}

Receipt FromProto(const v1::Receipt& p) { return {p.shard(), p.incarnation(), p.checksum(), p.norm2(), p.proof()}; }

v1::WorkUp::Submit ToProto(const Submission& submission) {
  v1::WorkUp::Submit p;
  *p.mutable_uid() = ToProto(submission.uid);
  for (const Batch& batch : submission.batches) *p.add_batches() = ToProto(batch);
  p.set_rows(submission.rows);
  p.set_base_version(submission.base_version);
  for (const Receipt& receipt : submission.receipts) *p.add_receipts() = ToProto(receipt);
  p.set_loss_sum(submission.loss_sum);
  p.set_residual_norm(submission.residual_norm);
  for (const StepTiming& timing : submission.timing) *p.add_timing() = ToProto(timing);
  return p;
}

Submission FromProto(const v1::WorkUp::Submit& p) {
  Submission submission;
  submission.uid = FromProto(p.uid());
  for (const v1::Batch& batch : p.batches()) submission.batches.push_back(FromProto(batch));
  submission.rows = p.rows();
  submission.base_version = p.base_version();
  for (const v1::Receipt& receipt : p.receipts()) submission.receipts.push_back(FromProto(receipt));
  submission.loss_sum = p.loss_sum();
  submission.residual_norm = p.residual_norm();
  for (const v1::StepTiming& timing : p.timing()) submission.timing.push_back(FromProto(timing));
  return submission;
}

v1::WorkDown ToProto(const SessionMessage& message) {
  v1::WorkDown p;
  std::visit(Overloaded{
                 [&](const Grant& grant) {
                   v1::WorkDown::Grant* out = p.mutable_grant();
                   *out->mutable_batch() = ToProto(grant.batch);
                   out->set_step(grant.step);
                   out->set_base_version(grant.base_version);
                   if (grant.uid) *out->mutable_uid() = ToProto(*grant.uid);
                 },
                 [&](const Done& done) {
                   *p.mutable_done()->mutable_batch() = ToProto(done.batch);
                   p.mutable_done()->set_skipped(done.skipped);
                   p.mutable_done()->set_conflict(done.conflict);
                   p.mutable_done()->set_no_epoch(done.no_epoch);
                   p.mutable_done()->set_trained_fingerprint(done.trained_fingerprint);
                 },
                 [&](const Flush& flush) { p.mutable_flush()->set_step(flush.step); },
                 [&](const Refuse& refuse) {
                   *p.mutable_refuse()->mutable_uid() = ToProto(refuse.uid);
                   p.mutable_refuse()->set_reason(static_cast<v1::WorkDown::Refuse::Reason>(refuse.reason));
                   p.mutable_refuse()->mutable_shards()->Add(refuse.shards.begin(), refuse.shards.end());
                 },
                 [&](const Decided& decided) {
                   *p.mutable_decided()->mutable_uid() = ToProto(decided.uid);
                   p.mutable_decided()->set_version(decided.version);
                   for (const Batch& batch : decided.batches) *p.mutable_decided()->add_batches() = ToProto(batch);
                   p.mutable_decided()->set_accepted(true);
                 },
                 [&](const SkipLogged& skipped) { *p.mutable_skip_logged()->mutable_batch() = ToProto(skipped.batch); },
                 [&](const CloseSession& close) {
                   p.mutable_close()->set_reason(close.reason);
                   p.mutable_close()->set_final(close.final);
                 },
             },
             message);
  return p;
}

absl::StatusOr<SessionMessage> FromProto(const v1::WorkDown& p) {
  switch (p.kind_case()) {
    case v1::WorkDown::kGrant: {
      Grant grant{FromProto(p.grant().batch()), p.grant().step(), p.grant().base_version(), std::nullopt};
      if (p.grant().has_uid()) grant.uid = FromProto(p.grant().uid());
      return grant;
    }
    case v1::WorkDown::kDone:
      return Done{FromProto(p.done().batch()), p.done().skipped(), p.done().conflict(), p.done().trained_fingerprint(),
                  p.done().no_epoch()};
    case v1::WorkDown::kFlush:
      return Flush{p.flush().step()};
    case v1::WorkDown::kRefuse:
      return RefuseFromProto(p.refuse());
    case v1::WorkDown::kDecided: {
      Decided decided{FromProto(p.decided().uid()), p.decided().version(), {}};
      for (const v1::Batch& batch : p.decided().batches()) decided.batches.push_back(FromProto(batch));
      return decided;
    }
    case v1::WorkDown::kSkipLogged:
      return SkipLogged{FromProto(p.skip_logged().batch())};
    case v1::WorkDown::kClose:
      return CloseSession{p.close().reason(), p.close().final()};
    case v1::WorkDown::kWelcome:
    case v1::WorkDown::KIND_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError(absl::StrCat("WorkDown: kind ", static_cast<int>(p.kind_case()), " is not a message to a session"));
}

v1::ShardUp::Position ToProto(const std::string& run, uint64_t generation, const ShardPosition& position) {
  v1::ShardUp::Position p;
  p.set_run(run);
  p.set_generation(generation);
  p.set_index(position.index);
  p.set_version(position.version);
  p.set_chain(position.chain);
  for (const Uid& uid : position.undecided) *p.add_undecided() = ToProto(uid);
  p.set_receipt_key(position.receipt_key);
  return p;
}

ShardPosition FromProto(uint32_t shard, uint64_t incarnation, const v1::ShardUp::Position& p) {
  ShardPosition position;
  position.shard = shard;
  position.incarnation = incarnation;
  position.index = p.index();
  position.version = p.version();
  position.chain = p.chain();
  for (const v1::Uid& uid : p.undecided()) position.undecided.push_back(FromProto(uid));
  position.receipt_key = p.receipt_key();
  return position;
}

v1::ShardDown ToProto(const std::string& run, const ShardMessage& message) {
  v1::ShardDown p;
  std::visit(Overloaded{
                 [&](const std::shared_ptr<const Decision>& decision) { *p.mutable_decision() = ToProto(*decision); },
                 [&](const NormQuery& query) {
                   p.mutable_norm_query()->set_run(run);
                   p.mutable_norm_query()->set_query(query.query);
                   for (const Uid& uid : query.uids) *p.mutable_norm_query()->add_uids() = ToProto(uid);
                 },
                 [&](const ManifestCommitted& manifest) {
                   p.mutable_manifest()->set_run(run);
                   p.mutable_manifest()->set_version(manifest.version);
                   p.mutable_manifest()->mutable_kept()->Add(manifest.kept.begin(), manifest.kept.end());
                   p.mutable_manifest()->set_log_needed_from(manifest.log_needed_from);
                 },
             },
             message);
  return p;
}

absl::StatusOr<ShardMessage> FromProto(const v1::ShardDown& p) {
  switch (p.kind_case()) {
    case v1::ShardDown::kDecision: {
      auto decision = FromProto(p.decision());
      if (!decision.ok()) return decision.status();
      return std::make_shared<const Decision>(*std::move(decision));
    }
    case v1::ShardDown::kNormQuery: {
      NormQuery query{p.norm_query().query(), {}};
      for (const v1::Uid& uid : p.norm_query().uids()) query.uids.push_back(FromProto(uid));
      return query;
    }
    case v1::ShardDown::kManifest: {
      const v1::ShardDown::ManifestCommitted& manifest = p.manifest();
      return ManifestCommitted{manifest.version(), {manifest.kept().begin(), manifest.kept().end()}, manifest.log_needed_from()};
    }
    default:
      break;
  }
  return absl::InvalidArgumentError(absl::StrCat("ShardDown: kind ", static_cast<int>(p.kind_case()), " is not a message to a shard"));
}

}  // namespace ballast
