#include <algorithm>
#include <cmath>
#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "core/layout/layout.h"

namespace ballast {
namespace {

constexpr size_t kModelJsonBytesMax = 1u << 20;
constexpr size_t kSchemaBytesMax = 64u << 10;
constexpr double kMost = 1e30;  // of any hyper-parameter

absl::Status Bad(absl::string_view field, absl::string_view value, absl::string_view allowed) {
  return absl::InvalidArgumentError(absl::StrCat(field, " is ", value, "; allowed: ", allowed));
}

absl::Status CheckRange(absl::string_view field, double value, double least, double most) {
  if (value >= least && value <= most) return absl::OkStatus();  // false for NaN
  return Bad(field, absl::StrCat(value), absl::StrCat(least, " to ", most));
}
absl::Status CheckCount(absl::string_view field, uint64_t value, uint64_t least, uint64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return Bad(field, absl::StrCat(value), absl::StrCat(least, " to ", most));
}

bool IsRunName(absl::string_view name) {
  return !name.empty() && name.size() <= 100 && name != "." && name != ".." &&
         std::all_of(name.begin(), name.end(), [](char c) { return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-'; });
}

bool IsSha256(absl::string_view text) {
  return text.size() == 64 &&
         std::all_of(text.begin(), text.end(), [](char c) { return absl::ascii_isxdigit(c) && !absl::ascii_isupper(c); });
}

absl::Status CheckShape(const TensorSpec& t, absl::string_view field, uint64_t& run_bytes) {
  if (t.shape.size() > kTensorDimsMax) return Bad(absl::StrCat(field, ".shape"), absl::StrCat(t.shape.size(), " dimensions"), "at most 32");
  uint64_t bytes = ElementBytes(t.dtype);
  for (int64_t d : t.shape) {
    if (d < 1) return Bad(absl::StrCat(field, ".shape"), absl::StrCat("a dimension of ", d), "1 or more (leave empty tensors out)");
    if (static_cast<uint64_t>(d) > kRunBytesMax / bytes)
      return Bad(absl::StrCat(field, ".shape"), "too large", absl::StrCat(kRunBytesMax, " bytes"));
    bytes *= static_cast<uint64_t>(d);
  }
  run_bytes += bytes;
  if (run_bytes > kRunBytesMax) return Bad("tensors", absl::StrCat("more than ", kRunBytesMax, " bytes in all"), "fewer");
  return absl::OkStatus();
}

absl::Status CheckRule(const TensorSpec& t, absl::string_view field) {
  if (t.dtype != DType::kF32 && t.dtype != DType::kI64)
    return Bad(absl::StrCat(field, ".dtype"), absl::StrCat(static_cast<int>(t.dtype)), "F32, I64");
  if (t.rule < UpdateRule::kOpt || t.rule > UpdateRule::kSet) {
    return Bad(absl::StrCat(field, ".rule"), absl::StrCat(static_cast<int>(t.rule)), "OPT, SUM, MEAN, SET");
  }
  if (t.dtype == DType::kI64 && t.rule != UpdateRule::kSet && t.rule != UpdateRule::kSum) {
    return Bad(absl::StrCat(field, ".rule"), t.rule == UpdateRule::kOpt ? "OPT" : "MEAN", "SET or SUM for an I64 tensor");
  }
  return absl::OkStatus();
}

absl::Status CheckName(const std::string& name, absl::string_view field, absl::flat_hash_set<absl::string_view>& names) {
  if (name.empty() || name.size() > kTensorNameBytesMax) {
    return Bad(absl::StrCat(field, ".name"), absl::StrCat(name.size(), " bytes long"), absl::StrCat("1 to ", kTensorNameBytesMax));
  }
  if (!names.insert(name).second)
    return Bad(absl::StrCat(field, ".name"), absl::StrCat("\"", name, "\" again"), "unique names and aliases");
  return absl::OkStatus();
}

absl::Status CheckOptimizer(const OptimizerSpec& o) {
  absl::Status s;
  constexpr double kBelowOne = 1 - 1e-12;
  if (o.kind < OptimizerKind::kSgd || o.kind > OptimizerKind::kAdamW) {
    return Bad("optimizer.kind", absl::StrCat(static_cast<int>(o.kind)), "SGD, ADAM, ADAMW");
  }
  s.Update(CheckRange("optimizer.lr", o.lr, 0, kMost));
  if (o.kind == OptimizerKind::kSgd) {
    s.Update(CheckRange("optimizer.momentum", o.momentum, 0, kMost));
    s.Update(CheckRange("optimizer.dampening", o.dampening, -kMost, kMost));
    if (o.nesterov && (o.momentum <= 0 || o.dampening != 0)) {
      s.Update(Bad("optimizer.nesterov", "true", "only with momentum above 0 and dampening 0"));
    }
  } else {
    s.Update(CheckRange("optimizer.beta1", o.beta1, 0, kBelowOne));
    s.Update(CheckRange("optimizer.beta2", o.beta2, 0, kBelowOne));
    s.Update(CheckRange("optimizer.eps", o.eps, 0, kMost));
  }
  // What the kind does not use must be numbers too: a spec with a NaN would not equal itself when it is created again.
  for (const double unused : {o.momentum, o.dampening, o.beta1, o.beta2, o.eps}) {
    s.Update(CheckRange("optimizer's momentum, dampening, beta1, beta2 or eps", unused, -kMost, kMost));
  }
  s.Update(CheckCount("optimizer.groups", o.groups.size(), 1, kGroupsMax));
  for (size_t g = 0; g < o.groups.size(); ++g) {
    s.Update(CheckRange(absl::StrCat("optimizer.groups[", g, "].lr_scale"), o.groups[g].lr_scale, 0, kMost));
    s.Update(CheckRange(absl::StrCat("optimizer.groups[", g, "].weight_decay"), o.groups[g].weight_decay, 0, kMost));
  }
  return s;
}

absl::Status CheckSchedule(const ScheduleSpec& schedule, double lr) {
  if (schedule.kind == ScheduleKind::kConstant) return CheckRange("schedule.min_lr", schedule.min_lr, 0, kMost);
  if (schedule.kind != ScheduleKind::kWarmupCosine) {
    return Bad("schedule.kind", absl::StrCat(static_cast<int>(schedule.kind)), "CONSTANT, WARMUP_COSINE");
  }
  if (schedule.total_steps <= schedule.warmup_steps) {
    return Bad("schedule.total_steps", absl::StrCat(schedule.total_steps),
               absl::StrCat("more than warmup_steps (", schedule.warmup_steps, ")"));
  }
  return CheckRange("schedule.min_lr", schedule.min_lr, 0, lr);
}

absl::Status CheckRows(const RunSpec& spec) {
  constexpr uint64_t kRowsMax = uint64_t{1} << 32;
  absl::Status s;
  s.Update(CheckCount("batch_rows", spec.batch_rows, 1, kRowsMax - 1));
  s.Update(CheckCount("step_rows", spec.step_rows, 0, kRowsMax));
  if (spec.step_rows != 0 && spec.batch_rows > spec.step_rows) {
    s.Update(Bad("batch_rows", absl::StrCat(spec.batch_rows), absl::StrCat("at most step_rows (", spec.step_rows, ")")));
  }
  s.Update(CheckCount("contribution_rows", spec.contribution_rows, 1, kRowsMax));
  // A session has kInFlightMax contributions in flight: with smaller ones, how many rows a step holds would depend on the number of
  // workers.
  if (const uint64_t least = (spec.step_rows + kInFlightMax - 1) / kInFlightMax; s.ok() && spec.contribution_rows < least) {
    s.Update(Bad("contribution_rows", absl::StrCat(spec.contribution_rows), absl::StrCat(least, " (half of step_rows) or more")));
  }
  // A decision lists its batches, and is one message.
  const uint64_t most = std::max(spec.step_rows, spec.contribution_rows);
  if (s.ok() && most / spec.batch_rows > kStepBatchesMax) {
    s.Update(Bad("batch_rows", absl::StrCat(spec.batch_rows),
                 absl::StrCat(most / kStepBatchesMax, " or more: a step of ", most, " rows holds at most ", kStepBatchesMax, " batches")));
  }
  return s;
}

absl::Status CheckCodecs(const RunSpec& spec) {
  const auto known = [](Codec c) { return c == Codec::kFp32 || c == Codec::kBf16 || c == Codec::kInt8; };
  if (!known(spec.push_codec)) return Bad("push_codec", absl::StrCat(static_cast<int>(spec.push_codec)), "fp32, bf16, int8");
  if (!known(spec.pull_codec)) return Bad("pull_codec", absl::StrCat(static_cast<int>(spec.pull_codec)), "fp32, bf16, int8");
  return absl::OkStatus();
}

absl::Status CheckInit(const InitSpec& init) {
  if (!init.weights_sha256.empty() && !init.run.empty()) return Bad("init", "both weights and a run", "one of them, or neither");
  if (!init.weights_sha256.empty() && !IsSha256(init.weights_sha256))
    return Bad("init.weights_sha256", "not a digest", "64 lower-case hex digits");
  if (!init.run.empty() && !IsRunName(init.run)) return Bad("init.run", absl::StrCat("\"", init.run, "\""), "[A-Za-z0-9._-]{1,100}");
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateTensors(absl::Span<const TensorSpec> tensors) {
  if (absl::Status s = CheckCount("tensors", tensors.size(), 1, kTensorsMax); !s.ok()) return s;
  absl::flat_hash_set<absl::string_view> names;
  uint64_t run_bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorSpec& t = tensors[i];
    const std::string field = absl::StrCat("tensors[", i, "] (", t.name.substr(0, 100), ")");
    absl::Status s = CheckName(t.name, field, names);
    for (const std::string& alias : t.aliases) s.Update(CheckName(alias, absl::StrCat(field, ".aliases"), names));
    s.Update(CheckRule(t, field));
    s.Update(CheckShape(t, field, run_bytes));
    if (!s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status ValidateSpec(const RunSpec& spec) {
  if (!IsRunName(spec.name))
    return Bad("name", absl::StrCat("\"", spec.name.substr(0, 120), "\""), "[A-Za-z0-9._-]{1,100}, not \".\" or \"..\"");
  if (!IsSha256(spec.model_sha256))
    return Bad("model_sha256", absl::StrCat("\"", spec.model_sha256.substr(0, 80), "\""), "64 lower-case hex digits");
  absl::Status s = ValidateTensors(spec.tensors);
  s.Update(CheckOptimizer(spec.optimizer));
  s.Update(CheckSchedule(spec.schedule, spec.optimizer.lr));
  for (const TensorSpec& t : spec.tensors) {
    if (t.rule == UpdateRule::kOpt && t.group >= spec.optimizer.groups.size()) {
      s.Update(Bad(absl::StrCat("group of tensor ", t.name), absl::StrCat(t.group), absl::StrCat("below ", spec.optimizer.groups.size())));
    }
  }
  if (spec.reduction != Reduction::kMean && spec.reduction != Reduction::kSum) {
    s.Update(Bad("reduction", absl::StrCat(static_cast<int>(spec.reduction)), "MEAN, SUM"));
  }
  s.Update(CheckRange("clip_norm", spec.clip_norm, 0, 1e30));
  s.Update(CheckCodecs(spec));
  s.Update(CheckRows(spec));
  s.Update(CheckCount("partitions", spec.partitions, 1, kPartitionsMax));
  s.Update(CheckCount("linger_ms", spec.linger_ms, 1, 3600 * 1000));
  s.Update(CheckCount("skips_max", spec.skips_max, 1, 1u << 30));
  s.Update(CheckCount("lease_ms", spec.lease_ms, 100, 24 * 3600 * 1000));
  s.Update(CheckCount("model_json", spec.model_json.size(), 0, kModelJsonBytesMax));
  s.Update(CheckCount("schema", spec.schema.size(), 0, kSchemaBytesMax));
  s.Update(CheckInit(spec.init));
  return s;
}

}  // namespace ballast
