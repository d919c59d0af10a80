#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "core/layout/layout.h"
#include "gtest/gtest.h"

namespace ballast {
namespace {

RunSpec Good() {
  RunSpec spec;
  spec.name = "demo-1";
  spec.model_sha256 = std::string(64, 'a');
  TensorSpec t;
  t.name = "w";
  t.shape = {4, 2};
  spec.tensors = {t};
  spec.batch_rows = 128;
  spec.step_rows = 256;
  spec.contribution_rows = 256;
  return spec;
}

// The message must name the field and say what is allowed.
void ExpectRefused(absl::string_view field, const std::function<void(RunSpec&)>& damage) {
  RunSpec spec = Good();
  damage(spec);
  const absl::Status s = ValidateSpec(spec);
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << field;
  EXPECT_NE(std::string(s.message()).find(std::string(field)), std::string::npos) << s;
  EXPECT_NE(std::string(s.message()).find("allowed: "), std::string::npos) << s;
}

TEST(ValidateSpec, TakesAGoodOne) { EXPECT_TRUE(ValidateSpec(Good()).ok()) << ValidateSpec(Good()); }

TEST(ValidateSpec, Names) {
  for (const char* bad : {"", ".", "..", "a/b", "a b", "\xc3\xa4"}) ExpectRefused("name", [&](RunSpec& s) { s.name = bad; });
  ExpectRefused("name", [](RunSpec& s) { s.name = std::string(101, 'a'); });
  ExpectRefused("model_sha256", [](RunSpec& s) { s.model_sha256 = "ABC"; });
  ExpectRefused("init.run", [](RunSpec& s) { s.init.run = "../x"; });
  ExpectRefused("init", [](RunSpec& s) { s.init.run = "x", s.init.weights_sha256 = std::string(64, 'b'); });
}

TEST(ValidateSpec, Tensors) {
  ExpectRefused("tensors", [](RunSpec& s) { s.tensors.clear(); });
  ExpectRefused("tensors[0] (w).shape", [](RunSpec& s) { s.tensors[0].shape = {3, 0}; });
  ExpectRefused("tensors[0] (w).shape", [](RunSpec& s) { s.tensors[0].shape = {-1}; });
  ExpectRefused("tensors[0] (w).shape", [](RunSpec& s) { s.tensors[0].shape = {int64_t{1} << 62, 4}; });
  ExpectRefused("tensors[0] (w).shape", [](RunSpec& s) { s.tensors[0].shape = std::vector<int64_t>(40, 1); });
  ExpectRefused("tensors[1] (w).name", [](RunSpec& s) { s.tensors.push_back(s.tensors[0]); });
  ExpectRefused("tensors[0] (w).aliases.name", [](RunSpec& s) { s.tensors[0].aliases = {"w"}; });
  ExpectRefused("tensors[0] (w).rule", [](RunSpec& s) { s.tensors[0].dtype = DType::kI64; });
  ExpectRefused("group of tensor w", [](RunSpec& s) { s.tensors[0].group = 1; });
}

TEST(ValidateSpec, IntegersMayBeSetOrSummed) {
  for (UpdateRule rule : {UpdateRule::kSet, UpdateRule::kSum}) {
    RunSpec spec = Good();
    spec.tensors[0].dtype = DType::kI64;
    spec.tensors[0].rule = rule;
    EXPECT_TRUE(ValidateSpec(spec).ok());
  }
  ExpectRefused("rule", [](RunSpec& s) { s.tensors[0].dtype = DType::kI64, s.tensors[0].rule = UpdateRule::kMean; });
}

TEST(ValidateSpec, Optimizer) {
  ExpectRefused("optimizer.lr", [](RunSpec& s) { s.optimizer.lr = -1; });
  ExpectRefused("optimizer.lr", [](RunSpec& s) { s.optimizer.lr = std::numeric_limits<double>::quiet_NaN(); });
  ExpectRefused("optimizer.nesterov", [](RunSpec& s) { s.optimizer.nesterov = true; });
  ExpectRefused("optimizer.beta1", [](RunSpec& s) { s.optimizer.kind = OptimizerKind::kAdam, s.optimizer.beta1 = 1; });
  ExpectRefused("optimizer.groups", [](RunSpec& s) { s.optimizer.groups.clear(); });
  ExpectRefused("optimizer.groups[0].weight_decay", [](RunSpec& s) { s.optimizer.groups[0].weight_decay = -1; });
  ExpectRefused("schedule.total_steps", [](RunSpec& s) { s.schedule.kind = ScheduleKind::kWarmupCosine; });
  ExpectRefused("momentum", [](RunSpec& s) { s.optimizer.kind = OptimizerKind::kAdam, s.optimizer.momentum = std::nan(""); });
  ExpectRefused("schedule.min_lr", [](RunSpec& s) { s.schedule.min_lr = std::nan(""); });
  ExpectRefused("schedule.min_lr", [](RunSpec& s) { s.schedule = {ScheduleKind::kWarmupCosine, 1, 10, 99}; });
  ExpectRefused("clip_norm", [](RunSpec& s) { s.clip_norm = -0.5; });
}

TEST(ValidateSpec, Rows) {
  ExpectRefused("batch_rows", [](RunSpec& s) { s.batch_rows = 0; });
  ExpectRefused("batch_rows", [](RunSpec& s) { s.batch_rows = 257; });
  ExpectRefused("contribution_rows", [](RunSpec& s) { s.step_rows = 0, s.contribution_rows = 0; });
  ExpectRefused("contribution_rows", [](RunSpec& s) { s.contribution_rows = 127; });  // a lone worker could not fill a step
  ExpectRefused("batch_rows", [](RunSpec& s) { s.step_rows = s.contribution_rows = uint64_t{129} << 15; });
  ExpectRefused("batch_rows", [](RunSpec& s) { s.step_rows = 0, s.contribution_rows = uint64_t{129} << 15; });
  RunSpec async = Good();
  async.step_rows = 0;
  EXPECT_TRUE(ValidateSpec(async).ok());
}

TEST(ValidateSpec, Limits) {
  ExpectRefused("partitions", [](RunSpec& s) { s.partitions = 0; });
  ExpectRefused("partitions", [](RunSpec& s) { s.partitions = kPartitionsMax + 1; });
  ExpectRefused("linger_ms", [](RunSpec& s) { s.linger_ms = 0; });
  ExpectRefused("lease_ms", [](RunSpec& s) { s.lease_ms = 1; });
  ExpectRefused("skips_max", [](RunSpec& s) { s.skips_max = 0; });
  ExpectRefused("push_codec", [](RunSpec& s) { s.push_codec = Codec::kI64; });
  ExpectRefused("pull_codec", [](RunSpec& s) { s.pull_codec = static_cast<Codec>(9); });
}

}  // namespace
}  // namespace ballast
