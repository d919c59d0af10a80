#include "proto/convert.h"

#include <bit>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/layout/layout.h"

namespace ballast {
namespace {

absl::Status UnknownValue(absl::string_view field, int value) {
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": ", value, value == 0 ? " (unset) is not allowed" : " is not a value that this release knows"));
}

// Core's enums have the numbers of the protos: a value in [1, last] is known. 0 gives `unspecified`, or is refused where that is 0 too.
template <typename Enum>
absl::StatusOr<Enum> EnumFromProto(int value, int last, int unspecified, absl::string_view field) {
  if (value == 0) value = unspecified;
  if (value < 1 || value > last) return UnknownValue(field, value);
  return static_cast<Enum>(value);
}

template <typename T, typename Repeated>
void AddAll(const T& values, Repeated* out) {
  for (const auto& value : values) *out->Add() = ToProto(value);
}

absl::StatusOr<TensorSpec> TensorFromProto(const v1::TensorSpec& p, absl::string_view field) {
  TensorSpec tensor;
  tensor.name = p.name();
  tensor.shape.assign(p.shape().begin(), p.shape().end());
  auto dtype = EnumFromProto<DType>(p.dtype(), 2, 0, absl::StrCat(field, ".dtype"));
  if (!dtype.ok()) return dtype.status();
  tensor.dtype = *dtype;
  auto rule = EnumFromProto<UpdateRule>(p.rule(), 4, 0, absl::StrCat(field, ".rule"));
  if (!rule.ok()) return rule.status();
  tensor.rule = *rule;
  tensor.group = p.group();
  tensor.aliases.assign(p.aliases().begin(), p.aliases().end());
  tensor.source_dtype = p.source_dtype();
  tensor.persistent = p.persistent();
  return tensor;
}

v1::OptimizerSpec OptimizerToProto(const OptimizerSpec& optimizer) {
  v1::OptimizerSpec p;
  p.set_kind(static_cast<v1::OptimizerSpec::Kind>(optimizer.kind));
  p.set_lr(optimizer.lr);
  p.set_momentum(optimizer.momentum);
  p.set_nesterov(optimizer.nesterov);
  p.set_dampening(optimizer.dampening);
  p.set_beta1(optimizer.beta1);
  p.set_beta2(optimizer.beta2);
  p.set_eps(optimizer.eps);
  for (const ParamGroup& group : optimizer.groups) {
    v1::ParamGroup* added = p.add_groups();
    added->set_lr_scale(group.lr_scale);
    added->set_weight_decay(group.weight_decay);
  }
  return p;
}

absl::StatusOr<OptimizerSpec> OptimizerFromProto(const v1::OptimizerSpec& p) {
  OptimizerSpec optimizer;
  auto kind = EnumFromProto<OptimizerKind>(p.kind(), 3, 0, "optimizer.kind");
  if (!kind.ok()) return kind.status();
  optimizer.kind = *kind;
  optimizer.lr = p.lr();
  optimizer.momentum = p.momentum();
  optimizer.nesterov = p.nesterov();
  optimizer.dampening = p.dampening();
  optimizer.beta1 = p.beta1();
  optimizer.beta2 = p.beta2();
  optimizer.eps = p.eps();
  if (p.groups_size() > 0) optimizer.groups.clear();  // none: one group of scale 1 without decay
  for (const v1::ParamGroup& group : p.groups()) optimizer.groups.push_back({group.lr_scale(), group.weight_decay()});
  return optimizer;
}

absl::StatusOr<ScheduleSpec> ScheduleFromProto(const v1::ScheduleSpec& p) {
  ScheduleSpec schedule;
  auto kind = EnumFromProto<ScheduleKind>(p.kind(), 2, 1, "schedule.kind");
  if (!kind.ok()) return kind.status();
  schedule.kind = *kind;
  schedule.warmup_steps = p.warmup_steps();
  schedule.total_steps = p.total_steps();
  schedule.min_lr = p.min_lr();
  return schedule;
}

// Every tensor covered once and in order.
absl::Status CheckLayout(const RunSpec& spec, const Layout& layout) {
  size_t next = 0;
  for (size_t t = 0; t < spec.tensors.size(); ++t) {
    const uint64_t elements = spec.tensors[t].Elements();
    for (uint64_t first = 0; first < elements; ++next) {
      if (next == layout.size() || layout[next].tensor != t || layout[next].first != first || layout[next].count == 0 ||
          layout[next].count > kBlockElemsMax || layout[next].count > elements - first) {
        return absl::InvalidArgumentError(
            absl::StrCat("layout: block ", next, " does not continue tensor \"", spec.tensors[t].name, "\" at element ", first));
      }
      first += layout[next].count;
    }
  }
  if (next != layout.size())
    return absl::InvalidArgumentError(absl::StrCat("layout: ", layout.size() - next, " blocks belong to no tensor"));
  return absl::OkStatus();
}

}  // namespace

v1::Codec ToProto(Codec codec) { return static_cast<v1::Codec>(codec); }

absl::StatusOr<Codec> FromProto(v1::Codec codec, Codec unspecified, absl::string_view field) {
  return EnumFromProto<Codec>(codec, 4, static_cast<int>(unspecified), field);
}

v1::TensorSpec ToProto(const TensorSpec& tensor) {
  v1::TensorSpec p;
  p.set_name(tensor.name);
  p.mutable_shape()->Add(tensor.shape.begin(), tensor.shape.end());
  p.set_dtype(static_cast<v1::DType>(tensor.dtype));
  p.set_rule(static_cast<v1::UpdateRule>(tensor.rule));
  p.set_group(tensor.group);
  p.mutable_aliases()->Add(tensor.aliases.begin(), tensor.aliases.end());
  p.set_source_dtype(tensor.source_dtype);
  p.set_persistent(tensor.persistent);
  return p;
}

v1::RunSpec ToProto(const RunSpec& spec) {
  v1::RunSpec p;
  p.set_name(spec.name);
  p.set_model_sha256(spec.model_sha256);
  p.set_model_json(spec.model_json);
  AddAll(spec.tensors, p.mutable_tensors());
  *p.mutable_optimizer() = OptimizerToProto(spec.optimizer);
  p.mutable_schedule()->set_kind(static_cast<v1::ScheduleSpec::Kind>(spec.schedule.kind));
  p.mutable_schedule()->set_warmup_steps(spec.schedule.warmup_steps);
  p.mutable_schedule()->set_total_steps(spec.schedule.total_steps);
  p.mutable_schedule()->set_min_lr(spec.schedule.min_lr);
  p.set_reduction(static_cast<v1::Reduction>(spec.reduction));
  p.set_clip_norm(spec.clip_norm);
  p.set_push_codec(ToProto(spec.push_codec));
  p.set_pull_codec(ToProto(spec.pull_codec));
  p.set_step_rows(spec.step_rows);
  p.set_batch_rows(spec.batch_rows);
  p.set_contribution_rows(spec.contribution_rows);
  p.set_staleness_max(spec.staleness_max);
  p.set_linger_ms(spec.linger_ms);
  p.set_durability(static_cast<v1::Durability>(spec.durability));
  p.set_partitions(spec.partitions);
  p.set_seed(spec.seed);
  p.set_epochs(spec.epochs);
  p.set_checkpoint_versions(spec.checkpoint_versions);
  p.set_checkpoint_seconds(spec.checkpoint_seconds);
  p.mutable_init()->set_weights_sha256(spec.init.weights_sha256);
  p.mutable_init()->set_run(spec.init.run);
  p.mutable_init()->set_version(spec.init.version);
  p.set_skips_max(spec.skips_max);
  p.set_lease_ms(spec.lease_ms);
  p.set_schema(spec.schema);
  p.set_at_least_once(spec.at_least_once);
  return p;
}

absl::StatusOr<RunSpec> FromProto(const v1::RunSpec& p) {
  RunSpec spec;
  spec.name = p.name();
  spec.model_sha256 = p.model_sha256();
  spec.model_json = p.model_json();
  if (p.tensors_size() > static_cast<int>(kTensorsMax)) return absl::InvalidArgumentError(absl::StrCat("tensors: more than ", kTensorsMax));
  spec.tensors.reserve(p.tensors_size());
  for (int i = 0; i < p.tensors_size(); ++i) {
    auto tensor = TensorFromProto(p.tensors(i), absl::StrCat("tensors[", i, "]"));
    if (!tensor.ok()) return tensor.status();
    spec.tensors.push_back(*std::move(tensor));
  }
  auto optimizer = OptimizerFromProto(p.optimizer());
  if (!optimizer.ok()) return optimizer.status();
  spec.optimizer = *std::move(optimizer);
  auto schedule = ScheduleFromProto(p.schedule());
  if (!schedule.ok()) return schedule.status();
  spec.schedule = *schedule;
  auto reduction = EnumFromProto<Reduction>(p.reduction(), 2, 1, "reduction");
  if (!reduction.ok()) return reduction.status();
  spec.reduction = *reduction;
  spec.clip_norm = p.clip_norm();
  auto push = FromProto(p.push_codec(), Codec::kFp32, "push_codec");
  if (!push.ok()) return push.status();
  spec.push_codec = *push;
  auto pull = FromProto(p.pull_codec(), Codec::kFp32, "pull_codec");
  if (!pull.ok()) return pull.status();
  spec.pull_codec = *pull;
  auto durability = EnumFromProto<Durability>(p.durability(), 2, 1, "durability");
  if (!durability.ok()) return durability.status();
  spec.durability = *durability;
  spec.step_rows = p.step_rows();
  spec.batch_rows = p.batch_rows();
  // Without step_rows every contribution is a step, and holds one batch unless told otherwise.
  const uint64_t usual_rows = spec.step_rows != 0 ? spec.step_rows : spec.batch_rows;
  spec.contribution_rows = p.contribution_rows() != 0 ? p.contribution_rows() : usual_rows;
  spec.staleness_max = p.staleness_max();
  spec.linger_ms = p.linger_ms() != 0 ? p.linger_ms() : 2000;
  spec.partitions = p.partitions() != 0 ? p.partitions() : 8;
  spec.seed = p.seed();
  spec.epochs = p.epochs() != 0 ? p.epochs() : 1;
  spec.checkpoint_versions = p.checkpoint_versions();
  spec.checkpoint_seconds = p.checkpoint_seconds();
  spec.init = {p.init().weights_sha256(), p.init().run(), p.init().version()};
  spec.skips_max = p.skips_max() != 0 ? p.skips_max() : 8;
  spec.lease_ms = p.lease_ms() != 0 ? p.lease_ms() : 30000;
  spec.schema = p.schema();
  spec.at_least_once = p.at_least_once();
  return spec;
}

v1::Block ToProto(const Block& block) {
  v1::Block p;
  p.set_tensor(block.tensor);
  p.set_first(block.first);
  p.set_count(block.count);
  p.set_shard(block.shard);
  return p;
}

v1::Run ToProto(const RunDefinition& run) {
  v1::Run p;
  *p.mutable_spec() = ToProto(run.spec);
  p.set_generation(run.generation);
  AddAll(run.layout, p.mutable_layout());
  return p;
}

absl::StatusOr<RunDefinition> FromProto(const v1::Run& p) {
  RunDefinition run;
  auto spec = FromProto(p.spec());
  if (!spec.ok()) return spec.status();
  run.spec = *std::move(spec);
  run.generation = p.generation();
  if (absl::Status valid = ValidateTensors(run.spec.tensors); !valid.ok()) return valid;
  run.layout.reserve(p.layout_size());
  for (const v1::Block& block : p.layout()) run.layout.push_back({block.tensor(), block.first(), block.count(), block.shard()});
  if (absl::Status covered = CheckLayout(run.spec, run.layout); !covered.ok()) return covered;
  return run;
}

v1::Batch ToProto(const Batch& batch) {
  v1::Batch p;
  p.set_epoch(batch.id.epoch);
  p.set_partition(batch.id.partition);
  p.set_seq(batch.id.seq);
  p.set_rows(batch.rows);
  p.set_fingerprint(batch.fingerprint);
  return p;
}

Batch FromProto(const v1::Batch& p) { return {{p.epoch(), p.partition(), p.seq()}, p.rows(), p.fingerprint()}; }

v1::Uid ToProto(const Uid& uid) {
  v1::Uid p;
  p.set_session(uid.session);
  p.set_counter(uid.counter);
  return p;
}

Uid FromProto(const v1::Uid& p) { return {p.session(), p.counter()}; }

v1::Part ToProto(const Part& part) {
  v1::Part p;
  *p.mutable_uid() = ToProto(part.uid);
  p.set_rows(part.rows);
  AddAll(part.batches, p.mutable_batches());
  p.set_base_version(part.base_version);
  p.set_loss_sum(part.loss_sum);
  return p;
}

Part FromProto(const v1::Part& p) {
  Part part;
  part.uid = FromProto(p.uid());
  part.rows = p.rows();
  for (const v1::Batch& batch : p.batches()) part.batches.push_back(FromProto(batch));
  part.base_version = p.base_version();
  part.loss_sum = p.loss_sum();
  return part;
}

v1::Decision ToProto(const Decision& decision) {
  v1::Decision p;
  p.set_run(decision.run);
  p.set_generation(decision.generation);
  p.set_index(decision.index);
  p.set_chain(decision.chain);
  p.set_kind(static_cast<v1::Decision::Kind>(decision.kind));
  AddAll(decision.parts, p.mutable_parts());
  for (const SkippedBatch& skipped : decision.skipped) {
    v1::SkippedBatch* added = p.add_skipped();
    *added->mutable_batch() = ToProto(skipped.batch);
    added->set_reason(skipped.reason);
  }
  p.set_divisor(std::bit_cast<uint32_t>(decision.divisor));
  p.set_clip_scale(std::bit_cast<uint32_t>(decision.clip_scale));
  for (float value : decision.hyper) p.add_hyper(std::bit_cast<uint32_t>(value));
  p.set_kernel_id(decision.kernel_id);
  p.set_sessions_closed_below(decision.sessions_closed_below);
  p.set_version(decision.version);
  p.set_step(decision.step);
  p.set_rollback_version(decision.rollback_version);
  return p;
}

absl::StatusOr<Decision> FromProto(const v1::Decision& p) {
  Decision decision;
  decision.run = p.run();
  decision.generation = p.generation();
  decision.index = p.index();
  decision.chain = p.chain();
  auto kind = EnumFromProto<DecisionKind>(p.kind(), 6, 0, "kind");
  if (!kind.ok()) return kind.status();
  decision.kind = *kind;
  for (const v1::Part& part : p.parts()) decision.parts.push_back(FromProto(part));
  for (const v1::SkippedBatch& skipped : p.skipped()) decision.skipped.push_back({FromProto(skipped.batch()), skipped.reason()});
  decision.divisor = std::bit_cast<float>(p.divisor());
  decision.clip_scale = std::bit_cast<float>(p.clip_scale());
  for (uint32_t bits : p.hyper()) decision.hyper.push_back(std::bit_cast<float>(bits));
  decision.kernel_id = p.kernel_id();
  decision.sessions_closed_below = p.sessions_closed_below();
  decision.version = p.version();
  decision.step = p.step();
  decision.rollback_version = p.rollback_version();
  return decision;
}

v1::ShardDigest ToProto(const ShardDigest& digest) {
  v1::ShardDigest p;
  p.set_shard(digest.shard);
  p.set_digest(digest.digest);
  p.set_bytes(digest.bytes);
  p.set_nonfinite(digest.nonfinite);
  return p;
}

ShardDigest FromProto(const v1::ShardDigest& p) { return {p.shard(), p.digest(), p.bytes(), p.nonfinite()}; }

v1::Manifest ToProto(const Manifest& manifest) {
  v1::Manifest p;
  p.set_run(manifest.run);
  p.set_generation(manifest.generation);
  p.set_version(manifest.version);
  p.set_index(manifest.index);
  AddAll(manifest.shards, p.mutable_shards());
  p.set_ledger(manifest.ledger);
  p.set_created_unix_ms(manifest.created_unix_ms);
  p.set_healthy(manifest.healthy);
  p.set_loss(manifest.loss);
  p.set_step(manifest.step);
  p.set_chain(manifest.chain);
  p.set_rolled_back_to(manifest.rolled_back_to);
  return p;
}

Manifest FromProto(const v1::Manifest& p) {
  Manifest manifest;
  manifest.run = p.run();
  manifest.generation = p.generation();
  manifest.version = p.version();
  manifest.index = p.index();
  for (const v1::ShardDigest& digest : p.shards()) manifest.shards.push_back(FromProto(digest));
  manifest.ledger = p.ledger();
  manifest.created_unix_ms = p.created_unix_ms();
  manifest.healthy = p.healthy();
  manifest.loss = p.loss();
  manifest.step = p.step();
  manifest.chain = p.chain();
  manifest.rolled_back_to = p.rolled_back_to();
  return manifest;
}

v1::EpochReport ToProto(const EpochReport& report) {
  v1::EpochReport p;
  p.set_epoch(report.epoch);
  p.set_committed(report.committed);
  p.set_batches(report.batches);
  p.set_rows_trained(report.rows_trained);
  p.set_rows_skipped(report.rows_skipped);
  p.set_duplicates(report.duplicates);
  for (const MissingBatches& missing : report.missing) {
    v1::MissingBatches* added = p.add_missing();
    added->set_partition(missing.partition);
    added->mutable_seqs()->Add(missing.seqs.begin(), missing.seqs.end());
  }
  p.set_manifest_version(report.manifest_version);
  p.set_rows_in(report.rows_in);
  return p;
}

EpochReport FromProto(const v1::EpochReport& p) {
  EpochReport report;
  report.epoch = p.epoch();
  report.committed = p.committed();
  report.batches = p.batches();
  report.rows_trained = p.rows_trained();
  report.rows_skipped = p.rows_skipped();
  report.duplicates = p.duplicates();
  for (const v1::MissingBatches& missing : p.missing()) {
    report.missing.push_back({missing.partition(), {missing.seqs().begin(), missing.seqs().end()}});
  }
  report.manifest_version = p.manifest_version();
  report.rows_in = p.rows_in();
  return report;
}

v1::StepTiming ToProto(const StepTiming& timing) {
  v1::StepTiming p;
  p.set_phase(timing.phase);
  p.set_seconds(timing.seconds);
  return p;
}

StepTiming FromProto(const v1::StepTiming& p) { return {p.phase(), p.seconds()}; }

}  // namespace ballast
