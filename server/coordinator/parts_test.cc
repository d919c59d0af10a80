// The parts of the runner that are plain state: registries, records, the plan.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "core/status.h"
#include "server/coordinator/follower_registry.h"
#include "server/coordinator/plan.h"
#include "server/coordinator/run_records.h"
#include "server/coordinator/worker_registry.h"
#include "server/storage/memory_store.h"

namespace ballast {
namespace {

template <typename Down>
class FakePeer : public Peer<Down> {
 public:
  void Send(Down message) override { sent.push_back(std::move(message)); }
  void Close(const absl::Status& status) override { closed.push_back(status); }
  void Handled() override {}
  std::vector<Down> sent;
  std::vector<absl::Status> closed;
};
using WorkerPeer = FakePeer<v1::WorkerDown>;
using ServerPeer = FakePeer<v1::ShardDown>;

v1::WorkerUp Worker(const std::string& name) {
  v1::WorkerUp up;
  up.set_name(name);
  up.set_address(name + ":1");
  return up;
}

TEST(WorkerRegistryTest, WorkersAreToldOnlyWhatChanged) {
  WorkerRegistry workers;
  auto peer = std::make_shared<WorkerPeer>();
  workers.Attach(1, peer, Worker("a"));
  workers.Tell({}, {"r"});
  ASSERT_EQ(peer->sent.size(), 1u);
  EXPECT_EQ(peer->sent[0].hello().protocol(), kProtocol);
  EXPECT_EQ(peer->sent[0].serve(0), "r");
  workers.Tell({}, {"r"});
  EXPECT_EQ(peer->sent.size(), 1u);
  workers.Tell({}, {});
  ASSERT_EQ(peer->sent.size(), 2u);
  EXPECT_FALSE(peer->sent[1].has_hello());
  EXPECT_EQ(peer->sent[1].serve_size(), 0);
}

TEST(WorkerRegistryTest, SameNameReplacesALostConnection) {
  WorkerRegistry workers;
  auto lost = std::make_shared<WorkerPeer>();
  workers.Attach(1, lost, Worker("a"));
  workers.Attach(2, std::make_shared<WorkerPeer>(), Worker("a"));
  ASSERT_EQ(lost->closed.size(), 1u);
  EXPECT_EQ(ReasonOf(lost->closed[0]), "REPLACED");
  EXPECT_EQ(workers.size(), 1u);
  workers.Detach(1);
  EXPECT_EQ(workers.size(), 1u);
}

TEST(WorkerRegistryTest, FeedsSpreadBeforeTheyAreReported) {
  WorkerRegistry workers;
  workers.Attach(1, std::make_shared<WorkerPeer>(), Worker("a"));
  workers.Attach(2, std::make_shared<WorkerPeer>(), Worker("b"));
  std::vector<std::string> names;
  for (int i = 0; i < 4; ++i) names.push_back(workers.Place("r", {}, 0)->name());
  EXPECT_EQ(names, (std::vector<std::string>{"a", "b", "a", "b"}));
  // "a" reports both of its feeds: they count once, so the next goes to neither in preference.
  v1::WorkerUp report;
  (*report.mutable_feeds())["r"] = 2;
  workers.OnFeeds(1, report);
  EXPECT_EQ(workers.Place("r", {}, 0)->name(), "a");
  EXPECT_EQ(workers.Place("r", {}, 0)->name(), "b");
  // Feeds that never opened are forgotten, reported ones are not.
  EXPECT_EQ(workers.Place("r", {}, 60000)->name(), "b");
}

TEST(FollowerRegistryTest, StrangersAreRefused) {
  FollowerRegistry servers({}, 2, "c1");
  auto peer = std::make_shared<ServerPeer>();
  v1::ShardUp::Open open;
  open.set_index(2);
  EXPECT_EQ(ReasonOf(servers.Connect(1, peer, open)), "SERVER_INDEX");
  open.set_index(1);
  open.set_cluster_id("c2");
  EXPECT_EQ(ReasonOf(servers.Connect(1, peer, open)), "CLUSTER_DIFFERS");
  open.set_cluster_id("c1");
  open.set_incarnation(5);
  open.set_address("x:1");
  EXPECT_TRUE(servers.Connect(1, peer, open).ok());
  open.set_incarnation(4);
  EXPECT_EQ(ReasonOf(servers.Connect(2, peer, open)), "OLD_INCARNATION");
  EXPECT_EQ(servers.IndexOf(1), 1u);
}

TEST(FollowerRegistryTest, NewConnectionReplacesTheOldOne) {
  FollowerRegistry servers({}, 2, "c");
  servers.SetOwnAddress("a:0");
  EXPECT_FALSE(servers.AllKnown());
  auto old = std::make_shared<ServerPeer>();
  v1::ShardUp::Open open;
  open.set_index(1);
  open.set_address("x:1");
  ASSERT_TRUE(servers.Connect(1, old, open).ok());
  ASSERT_TRUE(servers.Connect(2, std::make_shared<ServerPeer>(), open).ok());
  EXPECT_EQ(old->closed.size(), 1u);
  EXPECT_EQ(servers.Disconnect(1), std::nullopt);
  EXPECT_TRUE(servers.AllConnected());
  EXPECT_EQ(servers.Disconnect(2), 1u);
  EXPECT_FALSE(servers.AllConnected());
  EXPECT_TRUE(servers.AllKnown());
  EXPECT_EQ(servers.FirstMissing(), "server 1");
}

RunDefinition TestRun() {
  RunDefinition run;
  run.spec.name = "r";
  run.spec.tensors = {{"w", {10}, DType::kF32, UpdateRule::kOpt, 0, {}, "float32", true}};
  run.spec.step_rows = run.spec.contribution_rows = 8;
  run.spec.batch_rows = 4;
  run.layout = {{0, 0, 10, 0}};
  return run;
}

TEST(RunRecordsTest, EverythingComesBack) {
  MemoryStore store;
  RunRecords records(&store);
  ASSERT_TRUE(records.PutRun(TestRun()).ok());
  const auto runs = records.LoadRuns();
  ASSERT_TRUE(runs.ok()) << runs.status();
  ASSERT_EQ(runs->size(), 1u);
  EXPECT_EQ((*runs)[0].spec, TestRun().spec);
  EXPECT_EQ((*runs)[0].layout, TestRun().layout);

  for (uint64_t version : {9, 100, 20}) {
    Manifest manifest;
    manifest.run = "r";
    manifest.version = version;
    manifest.ledger = "ledger";
    ASSERT_TRUE(records.PutManifest(manifest).ok());
  }
  ASSERT_TRUE(records.DropManifests("r", [](uint64_t version) { return version != 9; }).ok());
  const auto manifests = records.LoadManifests("r");
  ASSERT_TRUE(manifests.ok());
  ASSERT_EQ(manifests->size(), 2u);
  EXPECT_EQ((*manifests)[0].version, 20u);  // oldest first
  EXPECT_EQ((*manifests)[1].ledger, "ledger");

  EpochRecord epoch{2, 4, 16, "x:int32", true, {}};
  epoch.report.epoch = 2;
  epoch.report.rows_in = 77;
  ASSERT_TRUE(records.PutEpoch("r", epoch).ok());
  const auto epochs = records.LoadEpochs("r");
  ASSERT_TRUE(epochs.ok());
  ASSERT_EQ(epochs->size(), 1u);
  EXPECT_EQ((*epochs)[0].schema, "x:int32");
  EXPECT_TRUE((*epochs)[0].committed);
  EXPECT_EQ((*epochs)[0].report.rows_in, 77u);

  ASSERT_TRUE(records.PutStopped("r", "because").ok());
  EXPECT_EQ(**records.LoadStopped("r"), "because");
  ASSERT_TRUE(records.PutStopped("r", std::nullopt).ok());
  EXPECT_FALSE(records.LoadStopped("r")->has_value());

  EXPECT_EQ(*records.NextGeneration("r"), 1u);
  ASSERT_TRUE(records.DeleteRun("r", 1).ok());
  EXPECT_EQ(*records.NextGeneration("r"), 2u);  // outlives the run
  EXPECT_TRUE(records.LoadRuns()->empty());
  EXPECT_TRUE(records.LoadManifests("r")->empty());
  EXPECT_TRUE(records.LoadEpochs("r")->empty());
}

TEST(RunRecordsTest, WhatACrashLeftOfARemovedRunDoesNotCountForTheNextOne) {
  MemoryStore store;
  RunRecords records(&store);
  ASSERT_TRUE(records.PutRun(TestRun()).ok());
  Manifest manifest;
  manifest.run = "r";
  manifest.version = 1;
  ASSERT_TRUE(records.PutManifest(manifest).ok());
  ASSERT_TRUE(records.PutEpoch("r", EpochRecord{1, 4, 16, "x:int32", true, {}}).ok());
  ASSERT_TRUE(records.PutStopped("r", "because").ok());
  ASSERT_TRUE(store.Delete("run/r").ok());  // DeleteRun, cut short behind the definition

  ASSERT_TRUE(records.PutRun(TestRun()).ok());
  EXPECT_EQ(records.LoadRuns()->size(), 1u);
  EXPECT_TRUE(records.LoadManifests("r")->empty());
  EXPECT_TRUE(records.LoadEpochs("r")->empty());
  EXPECT_FALSE(records.LoadStopped("r")->has_value());
}

TEST(RunRecordsTest, RunsWhoseNamesBeginAlikeAreApart) {
  MemoryStore store;
  RunRecords records(&store);
  Manifest manifest;
  manifest.version = 1;
  for (const char* run : {"a", "a-b", "a.b"}) {
    manifest.run = run;
    ASSERT_TRUE(records.PutManifest(manifest).ok());
  }
  ASSERT_TRUE(records.DeleteRun("a", 1).ok());
  EXPECT_EQ(records.LoadManifests("a-b")->size(), 1u);
  EXPECT_EQ(records.LoadManifests("a.b")->size(), 1u);
}

TEST(RunRecordsTest, DamagedRecordIsNamed) {
  MemoryStore store;
  ASSERT_TRUE(store.Put("run/r", "\xff\xff").ok());
  const absl::Status status = RunRecords(&store).LoadRuns().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("run/r"), absl::string_view::npos);
}

TEST(PlanTest, DifferencesNameTheFieldAndBothValues) {
  RunSpec before = TestRun().spec, after = before;
  after.step_rows = 16;
  after.optimizer.lr = 0.5;
  after.tensors[0].shape = {11};
  const std::vector<std::string> lines = SpecDifferences(before, after);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0], "tensors[0].shape[0]: 10 -> 11");
  EXPECT_EQ(lines[1], "optimizer.lr: 0.01 -> 0.5");
  EXPECT_EQ(lines[2], "step_rows: 8 -> 16");
  EXPECT_EQ(SpecDifferences(before, after, 1), (std::vector<std::string>{lines[0], "and 2 more"}));
}

TEST(PlanTest, LinesSayWhatTheRunCosts) {
  RunDefinition run = TestRun();
  run.spec.optimizer.kind = OptimizerKind::kAdam;
  run.spec.checkpoint_versions = 100;
  const std::vector<std::string> lines = PlanLines(run, 1);
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[3], "checkpoints: every 100 versions and at the end of each epoch; 0.00 MB each, two are kept");
}

// A tensor of 2^24 elements with Adam: 64 MiB of weights, as many twice as slots, and once more as readers get them; fp32 contributions.
RunDefinition LargeRun() {
  RunDefinition run = TestRun();
  run.spec.optimizer.kind = OptimizerKind::kAdam;
  run.spec.push_codec = Codec::kFp32;
  run.spec.tensors[0].shape = {1 << 24};
  run.spec.tensors.resize(1);
  run.layout.clear();
  for (uint64_t b = 0; b < 64; ++b) run.layout.push_back({0, b << 18, 1 << 18, static_cast<uint32_t>(b % 2)});
  return run;
}

TEST(PlanTest, CreateRunRefusesAnImpossiblePlan) {
  const RunDefinition run = LargeRun();
  EXPECT_TRUE(CheckPlan(run, 2, {}).ok());
  EXPECT_TRUE(CheckPlan(run, 2, {.free_memory = 128u << 20}).ok()) << "half of 256 MiB on each server";
  const absl::Status memory = CheckPlan(run, 2, {.free_memory = (128u << 20) - 1});
  EXPECT_EQ(ReasonOf(memory), "PLAN_IMPOSSIBLE") << memory;
  EXPECT_TRUE(CheckPlan(run, 2, {.staged_bytes_max = 64u << 20}).ok()) << "two contributions of 32 MiB";
  EXPECT_EQ(ReasonOf(CheckPlan(run, 2, {.staged_bytes_max = (64u << 20) - 1})), "PLAN_IMPOSSIBLE");
}

TEST(PlanTest, OneContributionMustNotOutlastARestart) {
  RunDefinition run = LargeRun();
  for (Block& block : run.layout) block.shard = 0;  // 64 MiB: 67.1 MB
  int asked = 0;
  Machine machine{.recovery_target_s = 30, .disk_bytes_per_s = [&asked] { return ++asked, 2.0e6; }};
  const absl::Status slow = CheckPlan(run, 1, machine);
  EXPECT_EQ(ReasonOf(slow), "PLAN_IMPOSSIBLE") << slow;
  machine.disk_bytes_per_s = [&asked] { return ++asked, 2.3e6; };
  EXPECT_TRUE(CheckPlan(run, 1, machine).ok());
  EXPECT_EQ(asked, 2);
  run.spec.durability = Durability::kCheckpoint;  // logs no contribution
  EXPECT_TRUE(CheckPlan(run, 1, machine).ok());
  EXPECT_EQ(asked, 2) << "nobody has to measure";
}

}  // namespace
}  // namespace ballast
