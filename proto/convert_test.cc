#include "proto/convert.h"

#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <string>

#include "core/record/decision.h"

namespace ballast {
namespace {

using google::protobuf::util::MessageDifferencer;

v1::RunSpec FullSpec() {
  v1::RunSpec p;
  p.set_name("r");
  p.set_model_sha256("ab");
  p.set_model_json("{}");
  v1::TensorSpec* w = p.add_tensors();
  w->set_name("w");
  w->add_shape(3);
  w->add_shape(5);
  w->set_dtype(v1::F32);
  w->set_rule(v1::OPT);
  w->set_group(1);
  w->add_aliases("tied");
  w->set_source_dtype("float32");
  w->set_persistent(true);
  v1::TensorSpec* n = p.add_tensors();
  n->set_name("n");
  n->set_dtype(v1::I64);
  n->set_rule(v1::SET);
  n->set_source_dtype("bool");
  v1::OptimizerSpec* o = p.mutable_optimizer();
  o->set_kind(v1::OptimizerSpec::ADAMW);
  o->set_lr(0.25);
  o->set_momentum(0.5);
  o->set_nesterov(true);
  o->set_dampening(0.125);
  o->set_beta1(0.75);
  o->set_beta2(0.875);
  o->set_eps(0.0625);
  o->add_groups()->set_lr_scale(1);
  o->add_groups()->set_weight_decay(0.5f);
  p.mutable_schedule()->set_kind(v1::ScheduleSpec::WARMUP_COSINE);
  p.mutable_schedule()->set_warmup_steps(7);
  p.mutable_schedule()->set_total_steps(70);
  p.mutable_schedule()->set_min_lr(0.01);
  p.set_reduction(v1::REDUCTION_SUM);
  p.set_clip_norm(1.5);
  p.set_push_codec(v1::CODEC_INT8);
  p.set_pull_codec(v1::CODEC_BF16);
  p.set_step_rows(256);
  p.set_batch_rows(128);
  p.set_contribution_rows(64);
  p.set_staleness_max(1);
  p.set_linger_ms(5);
  p.set_durability(v1::DURABILITY_LOG);
  p.set_partitions(4);
  p.set_seed(99);
  p.set_epochs(3);
  p.set_checkpoint_versions(100);
  p.set_checkpoint_seconds(60);
  p.mutable_init()->set_run("other");
  p.mutable_init()->set_version(12);
  p.set_skips_max(2);
  p.set_lease_ms(1000);
  p.set_schema("x:float32[3]");
  p.set_at_least_once(true);
  return p;
}

TEST(ConvertTest, EveryFieldOfASpecSurvivesTheRoundTrip) {
  const v1::RunSpec sent = FullSpec();
  const auto spec = FromProto(sent);
  ASSERT_TRUE(spec.ok()) << spec.status();
  std::string differences;
  MessageDifferencer differencer;
  differencer.ReportDifferencesToString(&differences);
  EXPECT_TRUE(differencer.Compare(sent, ToProto(*spec))) << differences;
  const auto again = FromProto(ToProto(*spec));
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(*again, *spec);
  // A field that is added to the message must be added to the converter and here.
  EXPECT_EQ(v1::RunSpec::descriptor()->field_count(), 26);
}

TEST(ConvertTest, UnsetFieldsTakeTheirDefaults) {
  v1::RunSpec p;
  p.mutable_optimizer()->set_kind(v1::OptimizerSpec::SGD);
  p.set_step_rows(256);
  p.set_batch_rows(32);
  const auto spec = FromProto(p);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->contribution_rows, 256u);
  EXPECT_EQ(spec->linger_ms, 2000u);
  EXPECT_EQ(spec->skips_max, 8u);
  EXPECT_EQ(spec->lease_ms, 30000u);
  EXPECT_EQ(spec->partitions, 8u);
  EXPECT_EQ(spec->push_codec, Codec::kFp32);
  EXPECT_EQ(spec->pull_codec, Codec::kFp32);
  EXPECT_EQ(spec->reduction, Reduction::kMean);
  EXPECT_EQ(spec->schedule.kind, ScheduleKind::kConstant);
  ASSERT_EQ(spec->optimizer.groups.size(), 1u);
  EXPECT_EQ(spec->optimizer.groups[0].lr_scale, 1);
  p.set_step_rows(0);
  EXPECT_EQ(FromProto(p)->contribution_rows, 32u);
}

std::string ErrorOf(const v1::RunSpec& spec) {
  const absl::Status status = FromProto(spec).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

TEST(ConvertTest, UnknownEnumValueNamesItsField) {
  v1::RunSpec p = FullSpec();
  p.set_push_codec(static_cast<v1::Codec>(77));
  EXPECT_EQ(ErrorOf(p), "push_codec: 77 is not a value that this release knows");
  p = FullSpec();
  p.mutable_tensors(1)->set_rule(v1::UPDATE_RULE_UNSPECIFIED);
  EXPECT_EQ(ErrorOf(p), "tensors[1].rule: 0 (unset) is not allowed");
  p = FullSpec();
  p.set_durability(static_cast<v1::Durability>(3));
  EXPECT_EQ(ErrorOf(p), "durability: 3 is not a value that this release knows");
  p = FullSpec();
  p.mutable_optimizer()->set_kind(v1::OptimizerSpec::KIND_UNSPECIFIED);
  EXPECT_EQ(ErrorOf(p), "optimizer.kind: 0 (unset) is not allowed");
}

Decision FullDecision() {
  Decision d;
  d.run = "r";
  d.generation = 2;
  d.index = 7;
  d.chain = 0x0123456789abcdef;
  d.kind = DecisionKind::kStep;
  d.parts = {{{3, 1}, 128, {{{1, 0, 5}, 128, 0xfeed}, {{1, 0, 6}, 0, 0}}, 4, 2.5}, {{4, 9}, 1, {}, 0, 0}};
  d.skipped = {{{{1, 2, 0}, 3, 1}, "NaN loss"}};
  d.divisor = 129;
  d.clip_scale = 0.5f;
  d.hyper = {0.001f, 0, 1, -2.5f};
  d.kernel_id = 2;
  d.sessions_closed_below = 3;
  d.version = 6;
  d.step = 5;
  return d;
}

TEST(ConvertTest, DecisionHasTheSameBytesAsTheLogRecord) {
  for (const Decision& decision : {FullDecision(), Decision{}}) {
    EXPECT_EQ(ToProto(decision).SerializeAsString(), EncodeDecision(decision));
    const auto back = FromProto(ToProto(decision));
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(*back, decision);
  }
}

TEST(ConvertTest, ManifestAndReportSurviveTheRoundTrip) {
  Manifest m;
  m.run = "r";
  m.generation = 1;
  m.version = 9;
  m.index = 10;
  m.shards = {{0, 11, 12, 13}, {1, 14, 15, 16}};
  m.ledger = std::string("\0\1", 2);
  m.created_unix_ms = 17;
  m.healthy = false;
  m.loss = 0.5;
  m.step = 8;
  m.chain = 18;
  const Manifest back = FromProto(ToProto(m));
  EXPECT_EQ(ToProto(back).SerializeAsString(), ToProto(m).SerializeAsString());
  EXPECT_EQ(back.shards, m.shards);
  EXPECT_EQ(back.ledger, m.ledger);

  EpochReport r;
  r.epoch = 1;
  r.committed = true;
  r.batches = 2;
  r.rows_trained = 3;
  r.rows_skipped = 4;
  r.duplicates = 5;
  r.missing = {{6, {7, 8}}};
  r.manifest_version = 9;
  r.rows_in = 10;
  EXPECT_EQ(ToProto(FromProto(ToProto(r))).SerializeAsString(), ToProto(r).SerializeAsString());
  EXPECT_EQ(FromProto(ToProto(r)).missing[0].seqs, (std::vector<uint64_t>{7, 8}));
}

TEST(ConvertTest, DefinitionRefusesALayoutWithAHole) {
  RunDefinition run{*FromProto(FullSpec()), 1, {{0, 0, 8, 0}, {0, 8, 7, 1}, {1, 0, 1, 0}}};
  const auto back = FromProto(ToProto(run));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->layout, run.layout);
  run.layout[1].first = 9;
  EXPECT_EQ(FromProto(ToProto(run)).status().code(), absl::StatusCode::kInvalidArgument);
  run.layout = {{0, 0, 15, 0}, {1, 0, 1, 0}, {1, 1, 1, 0}};
  EXPECT_EQ(FromProto(ToProto(run)).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace ballast
