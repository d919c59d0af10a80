// ballast-server as its callers see it: real gRPC over loopback, servers in this process, every message spoken by hand.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "core/status.h"
#include "proto/status.h"
#include "tests/integration/in_process_cluster.h"
#include "tests/integration/raw_session.h"

namespace ballast::testing {
namespace {

constexpr int64_t kElements = 700000;  // three blocks

class ServerTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  // CreateRun and BeginEpoch; the run waits for its initial weights.
  void Begin(const std::string& name) {
    v1::Artifact artifact;
    auto call = Call();
    auto writer = cluster_.Control()->PutArtifact(call.get(), &artifact);
    v1::Piece model;
    model.set_sha256(kModelSha256);
    model.set_total_bytes(3);
    model.set_data("abc");
    writer->Write(model);
    writer->WritesDone();
    ASSERT_TRUE(writer->Finish().ok());
    v1::Run run;
    const grpc::Status created = cluster_.Control()->CreateRun(Call().get(), TestRunSpec(name, kElements), &run);
    ASSERT_TRUE(created.ok()) << created.error_message();
    EXPECT_TRUE(run.created());
    EXPECT_EQ(run.plan_size(), 4);
    BeginEpoch(name);
  }

  void BeginEpoch(const std::string& name) {
    v1::Epoch epoch;
    epoch.set_run(name);
    epoch.set_epoch(1);
    epoch.set_partitions(1);
    epoch.set_batch_rows(4);
    epoch.set_schema("x:int32");
    v1::EpochReport report;
    const grpc::Status begun = cluster_.Control()->BeginEpoch(Call().get(), epoch, &report);
    ASSERT_TRUE(begun.ok()) << begun.error_message();
  }

  // Version 1: w[i] = i, n = 0.
  void Initialise(RawSession& session) {
    const v1::WorkDown::Grant grant = session.Claim(InitBatch());
    EXPECT_EQ(session.Train({InitBatch()}, grant.base_version(), initial_, 0), 1u);
  }

  // One step of the batches `first` and `first` + 1: subtracts 1 from every element, adds 2 to n.
  uint64_t Step(RawSession& session, uint64_t first) {
    const std::vector<v1::Batch> batches = {TestBatch(first, 4), TestBatch(first + 1, 4)};
    const v1::WorkDown::Grant grant = session.Claim(batches[0]);
    session.Claim(batches[1]);
    return session.Train(batches, grant.base_version(), std::vector<float>(kElements, 1), 2);
  }

  void ExpectValues(const Values& values, uint64_t version) {
    EXPECT_EQ(values.version, version);
    ASSERT_EQ(values.w.size(), static_cast<size_t>(kElements));
    for (int64_t i : {int64_t{0}, int64_t{300000}, kElements - 1}) {
      EXPECT_EQ(values.w[i], static_cast<float>(i) - static_cast<float>(version - 1)) << i;
    }
    EXPECT_EQ(values.n, (std::vector<int64_t>{static_cast<int64_t>(2 * (version - 1))}));
  }

  v1::Run Show(const std::string& name) {
    v1::RunFilter filter;
    filter.set_name(name);
    v1::RunList list;
    const grpc::Status listed = cluster_.Control()->ListRuns(Call().get(), filter, &list);
    EXPECT_TRUE(listed.ok()) << listed.error_message();
    return list.runs_size() == 1 ? list.runs(0) : v1::Run();
  }

  InProcessCluster cluster_{GetParam()};
  const std::vector<float> initial_ = [] {
    std::vector<float> values(kElements);
    for (int64_t i = 0; i < kElements; ++i) values[i] = static_cast<float>(i);
    return values;
  }();
};

INSTANTIATE_TEST_SUITE_P(Servers, ServerTest, ::testing::Values(1, 2), [](const auto& info) { return std::to_string(info.param); });

std::string ReasonOf(const grpc::Status& status) { return ballast::ReasonOf(FromGrpc(status)); }

TEST_P(ServerTest, StepsAreTrainedDecidedPulledAndListed) {
  ASSERT_NO_FATAL_FAILURE(Begin("r"));
  RawSession session(cluster_, "r");
  ASSERT_TRUE(session.open());
  EXPECT_EQ(session.welcome().servers_size(), static_cast<int>(GetParam()));
  Initialise(session);
  EXPECT_EQ(Step(session, 0), 2u);
  EXPECT_EQ(Step(session, 2), 3u);
  ExpectValues(Pull(cluster_, "r", 3), 3);

  const v1::Run run = Show("r");
  EXPECT_EQ(run.state(), v1::RUN_ACTIVE);
  EXPECT_EQ(run.version(), 3u);
  EXPECT_EQ(run.steps(), 2u);
  EXPECT_EQ(run.rows_trained(), 16u);
  EXPECT_EQ(run.spec().tensors_size(), 0);

  v1::DecisionRange range;
  range.set_run("r");
  auto call = Call();
  auto decisions = cluster_.Control()->ListDecisions(call.get(), range);
  std::vector<uint64_t> versions;
  for (v1::Decision decision; decisions->Read(&decision);) versions.push_back(decision.version());
  EXPECT_TRUE(decisions->Finish().ok());
  EXPECT_EQ(versions, (std::vector<uint64_t>{1, 2, 3}));
}

TEST_P(ServerTest, CheckpointIsListedAndReadBack) {
  ASSERT_NO_FATAL_FAILURE(Begin("r"));
  RawSession session(cluster_, "r");
  Initialise(session);
  Step(session, 0);
  v1::RunRef ref;
  ref.set_run("r");
  v1::Manifest manifest;
  const grpc::Status taken = cluster_.Control()->Checkpoint(Call().get(), ref, &manifest);
  ASSERT_TRUE(taken.ok()) << taken.error_message();
  EXPECT_EQ(manifest.version(), 2u);
  EXPECT_TRUE(manifest.healthy());
  EXPECT_EQ(manifest.shards_size(), static_cast<int>(GetParam()));
  Step(session, 2);
  ExpectValues(Pull(cluster_, "r", 0, /*manifest=*/2), 2);
  v1::ManifestList list;
  ASSERT_TRUE(cluster_.Control()->ListManifests(Call().get(), ref, &list).ok());
  ASSERT_EQ(list.manifests_size(), 1);
  EXPECT_EQ(list.manifests(0).ledger(), "");
}

TEST_P(ServerTest, RestartedServersContinueWhereTheyWere) {
  ASSERT_NO_FATAL_FAILURE(Begin("r"));
  {
    RawSession session(cluster_, "r");
    Initialise(session);
    Step(session, 0);
  }
  for (uint32_t i = GetParam(); i-- > 0;) cluster_.Crash(i);
  for (uint32_t i = 0; i < GetParam(); ++i) cluster_.Start(i);
  ExpectValues(Pull(cluster_, "r", 2), 2);
  RawSession session(cluster_, "r");
  ASSERT_TRUE(session.open()) << session.refusal().error_message();
  // What was trained is answered, not trained again.
  v1::WorkUp claim;
  *claim.mutable_claim()->mutable_batch() = TestBatch(0, 4);
  session.Send(claim);
  EXPECT_FALSE(session.Expect(v1::WorkDown::kDone).done().conflict());
  EXPECT_EQ(Step(session, 2), 3u);
  ExpectValues(Pull(cluster_, "r", 3), 3);
}

TEST_P(ServerTest, LastServerMayRestartAlone) {
  const uint32_t last = GetParam() - 1;
  ASSERT_NO_FATAL_FAILURE(Begin("r"));
  {
    RawSession session(cluster_, "r");
    Initialise(session);
    Step(session, 0);
  }
  cluster_.Crash(last);
  cluster_.Start(last);
  RawSession session(cluster_, "r");
  ASSERT_TRUE(session.open()) << session.refusal().error_message();
  EXPECT_EQ(Step(session, 2), 3u);
  ExpectValues(Pull(cluster_, "r", 3), 3);
}

TEST_P(ServerTest, OrderlyStopTakesACheckpoint) {
  ASSERT_NO_FATAL_FAILURE(Begin("r"));
  RawSession session(cluster_, "r");
  Initialise(session);
  Step(session, 0);
  cluster_.Stop(0);
  EXPECT_EQ(session.Expect(v1::WorkDown::kClose).close().reason(), "the server is stopping");
  cluster_.Start(0);
  EXPECT_EQ(Show("r").manifest_version(), 2u);
}

TEST_P(ServerTest, ALogThatWouldTakeTooLongToReplayIsCheckpointed) {
  ASSERT_NO_FATAL_FAILURE(Begin("r"));
  {
    RawSession session(cluster_, "r");
    Initialise(session);
    EXPECT_EQ(Step(session, 0), 2u);
  }
  EXPECT_EQ(Show("r").manifest_version(), 0u);
  cluster_.Crash(0);
  cluster_.recovery_target_s = 1e-9;
  cluster_.Start(0);
  for (int tries = 0; tries < 1000 && Show("r").manifest_version() == 0; ++tries) absl::SleepFor(absl::Milliseconds(20));
  EXPECT_EQ(Show("r").manifest_version(), 2u);
}

TEST_P(ServerTest, ALogOfManyTimesTheStateIsCheckpointed) {
  ASSERT_NO_FATAL_FAILURE(Begin("r"));
  {
    RawSession session(cluster_, "r");
    Initialise(session);
  }
  cluster_.Crash(0);
  cluster_.log_target = 1;
  cluster_.Start(0);
  RawSession session(cluster_, "r");
  for (uint64_t seq = 0; seq < 100 && Show("r").manifest_version() == 0; seq += 2) Step(session, seq);
  EXPECT_GE(Show("r").manifest_version(), 3u) << "the log was shorter than four times the state";
}

TEST_P(ServerTest, SameSpecIsAnsweredAnotherOneIsNamed) {
  ASSERT_NO_FATAL_FAILURE(Begin("r"));
  v1::Run run;
  v1::RunSpec spec = TestRunSpec("r", kElements);
  ASSERT_TRUE(cluster_.Control()->CreateRun(Call().get(), spec, &run).ok());
  EXPECT_FALSE(run.created());
  spec.set_step_rows(12);
  const grpc::Status other = cluster_.Control()->CreateRun(Call().get(), spec, &run);
  EXPECT_EQ(other.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ReasonOf(other), "RUN_SPEC_DIFFERS");
  EXPECT_NE(other.error_message().find("step_rows: 8 -> 12"), std::string::npos) << other.error_message();
}

TEST_P(ServerTest, BadSpecAndMissingModelAreRefused) {
  v1::Run run;
  v1::RunSpec spec = TestRunSpec("bad name", kElements);
  EXPECT_EQ(cluster_.Control()->CreateRun(Call().get(), spec, &run).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  spec = TestRunSpec("r", kElements);
  spec.set_push_codec(static_cast<v1::Codec>(99));
  const grpc::Status codec = cluster_.Control()->CreateRun(Call().get(), spec, &run);
  EXPECT_EQ(codec.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_NE(codec.error_message().find("push_codec: 99"), std::string::npos);
  spec = TestRunSpec("r", kElements);
  spec.set_model_sha256(std::string(64, 'a'));
  const grpc::Status model = cluster_.Control()->CreateRun(Call().get(), spec, &run);
  EXPECT_EQ(model.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(ReasonOf(model), "NO_ARTIFACT");
}

TEST_P(ServerTest, ArtifactSurvivesARestart) {
  const std::string bytes(3000000, 'a');
  auto put = [&](const std::string& name) {
    v1::Artifact artifact;
    auto call = Call();
    auto writer = cluster_.Control()->PutArtifact(call.get(), &artifact);
    for (size_t from = 0; from < bytes.size(); from += 1 << 20) {
      v1::Piece piece;
      if (from == 0) piece.set_sha256(name), piece.set_total_bytes(bytes.size());
      piece.set_data(bytes.substr(from, 1 << 20));
      if (!writer->Write(piece)) break;
    }
    writer->WritesDone();
    return writer->Finish();
  };
  EXPECT_EQ(put("not-a-digest").error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const grpc::Status wrong = put(std::string(64, 'b'));
  EXPECT_EQ(ReasonOf(wrong), "BAD_DIGEST");
  const size_t at = wrong.error_message().find("digest ") + 7;
  const std::string digest = wrong.error_message().substr(at, 64);
  ASSERT_TRUE(put(digest).ok());
  ASSERT_TRUE(put(digest).ok());  // it is here already
  cluster_.Crash(0);
  cluster_.Start(0);
  v1::ArtifactRef ref;
  ref.set_sha256(digest);
  auto call = Call();
  auto reader = cluster_.Control()->GetArtifact(call.get(), ref);
  std::string back;
  for (v1::Piece piece; reader->Read(&piece);) back += piece.data();
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(back, bytes);
}

TEST_P(ServerTest, UnknownRunIsNamedEverywhere) {
  v1::RunFilter filter;
  filter.set_name("nobody");
  v1::RunList list;
  EXPECT_EQ(ReasonOf(cluster_.Control()->ListRuns(Call().get(), filter, &list)), "NO_RUN");
  RawSession session(cluster_, "nobody");
  EXPECT_FALSE(session.open());
  EXPECT_EQ(ReasonOf(session.refusal()), "NO_RUN");

  const uint32_t server = GetParam() - 1;
  v1::Chunk chunk;
  chunk.set_run("nobody");
  chunk.set_session(1);
  chunk.set_uid(2);
  chunk.set_last(true);
  chunk.set_payload("x");
  const v1::PushReply reply = session.PushOne(server, chunk);
  EXPECT_EQ(reply.error(), "NO_RUN");
  EXPECT_EQ(reply.uid(), 2u);

  auto stub = cluster_.Shard(server);
  auto call = Call();
  auto stream = stub->Pull(call.get());
  v1::Want want;
  want.set_run("nobody");
  stream->Write(want);
  EXPECT_FALSE(stream->Read(&chunk));
  EXPECT_EQ(ReasonOf(stream->Finish()), "NO_RUN");
}

TEST_P(ServerTest, OtherProtocolNamesBothAndTheRemedy) {
  ASSERT_NO_FATAL_FAILURE(Begin("r"));
  RawSession session(cluster_, "r", /*protocol=*/9);
  const grpc::Status status = session.refusal();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ReasonOf(status), "PROTOCOL_DIFFERS");
  for (const char* part : {"protocol 9", "protocol 1", "\"test\"", "same release"}) {
    EXPECT_NE(status.error_message().find(part), std::string::npos) << status.error_message();
  }
}

TEST_P(ServerTest, GarbageOnPushEndsTheStreamAndNothingElse) {
  ASSERT_NO_FATAL_FAILURE(Begin("r"));
  RawSession session(cluster_, "r");
  Initialise(session);
  auto channel = cluster_.Channel(0);
  auto stub = v1::Shard::NewStub(channel);
  auto call = Call();
  auto stream = stub->Push(call.get());
  v1::Chunk no_payload;
  no_payload.set_run("r");
  stream->Write(no_payload);
  v1::PushReply reply;
  EXPECT_FALSE(stream->Read(&reply));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  v1::Uid uid = session.NewUid();
  v1::Chunk damaged = session.Chunks(0, uid, initial_, 0)[0];
  (*damaged.mutable_payload())[5] ^= 1;
  damaged.set_last(true);
  EXPECT_EQ(session.PushOne(0, damaged).error(), "BAD_CHECKSUM");
  EXPECT_EQ(Step(session, 0), 2u);
}

TEST_P(ServerTest, DeletedRunFreesItsDiskAndItsName) {
  ASSERT_NO_FATAL_FAILURE(Begin("r"));
  {
    RawSession session(cluster_, "r");
    Initialise(session);
  }
  EXPECT_TRUE(std::filesystem::exists(cluster_.dir(0) + "/runs/r"));
  v1::RunRef ref;
  ref.set_run("r");
  v1::Run run;
  const grpc::Status deleted = cluster_.Control()->DeleteRun(Call().get(), ref, &run);
  ASSERT_TRUE(deleted.ok()) << deleted.error_message();
  EXPECT_FALSE(std::filesystem::exists(cluster_.dir(0) + "/runs/r"));
  EXPECT_EQ(ReasonOf(cluster_.Control()->DeleteRun(Call().get(), ref, &run)), "NO_RUN");
  ASSERT_NO_FATAL_FAILURE(Begin("r"));
  RawSession session(cluster_, "r");
  Initialise(session);
  EXPECT_EQ(Step(session, 0), 2u);
}

// The other servers may be away while a run is removed: they clear up when they are back, also when its name is in use again by then.
TEST_P(ServerTest, RunIsRemovedFromAServerThatIsAway) {
  const uint32_t last = GetParam() - 1;
  if (last == 0) GTEST_SKIP() << "server 0 answers";
  for (const std::string name : {"gone", "again"}) {
    ASSERT_NO_FATAL_FAILURE(Begin(name));
    RawSession session(cluster_, name);
    Initialise(session);
    EXPECT_EQ(Step(session, 0), 2u);
  }
  cluster_.Crash(last);
  v1::Run run;
  for (const std::string name : {"gone", "again"}) {
    v1::RunRef ref;
    ref.set_run(name);
    const grpc::Status deleted = cluster_.Control()->DeleteRun(Call().get(), ref, &run);
    ASSERT_TRUE(deleted.ok()) << deleted.error_message();
    EXPECT_NE(run.reason().find("server 1 is away"), std::string::npos) << run.reason();
  }
  ASSERT_NO_FATAL_FAILURE(Begin("again"));
  EXPECT_EQ(Show("again").generation(), 2u);
  EXPECT_TRUE(std::filesystem::exists(cluster_.dir(last) + "/runs/gone"));
  cluster_.Start(last);
  RawSession session(cluster_, "again");
  ASSERT_TRUE(session.open()) << session.refusal().error_message();
  Initialise(session);
  EXPECT_EQ(Step(session, 0), 2u);
  ExpectValues(Pull(cluster_, "again", 2), 2);
  EXPECT_FALSE(std::filesystem::exists(cluster_.dir(last) + "/runs/gone"));
  for (uint32_t i = GetParam(); i-- > 0;) cluster_.Crash(i);
  for (uint32_t i = 0; i < GetParam(); ++i) cluster_.Start(i);
  ExpectValues(Pull(cluster_, "again", 2), 2);
  EXPECT_EQ(Show("again").generation(), 2u);
}

// A reader that waits for a version that never comes hears of the removal.
TEST_P(ServerTest, ParkedPullEndsWithItsRun) {
  ASSERT_NO_FATAL_FAILURE(Begin("r"));
  RawSession session(cluster_, "r");
  Initialise(session);
  const uint32_t server = GetParam() - 1;
  auto stub = cluster_.Shard(server);
  auto call = Call();
  auto stream = stub->Pull(call.get());
  v1::Want want;
  want.set_run("r");
  want.set_codec(v1::CODEC_FP32);
  stream->Write(want);
  v1::Chunk chunk;
  while (stream->Read(&chunk) && !chunk.last()) continue;
  want.set_min_version(99);
  stream->Write(want);
  v1::RunRef ref;
  ref.set_run("r");
  v1::Run run;
  ASSERT_TRUE(cluster_.Control()->DeleteRun(Call().get(), ref, &run).ok());
  EXPECT_FALSE(stream->Read(&chunk));
  const grpc::Status end = stream->Finish();
  EXPECT_TRUE(end.error_code() == grpc::StatusCode::ABORTED || end.error_code() == grpc::StatusCode::NOT_FOUND) << end.error_message();
}

TEST_P(ServerTest, StoppedRunStaysStoppedUntilItsNextEpoch) {
  ASSERT_NO_FATAL_FAILURE(Begin("r"));
  RawSession session(cluster_, "r");
  Initialise(session);
  v1::StopRequest stop;
  stop.set_run("r");
  stop.set_reason("enough");
  v1::Run run;
  ASSERT_TRUE(cluster_.Control()->StopRun(Call().get(), stop, &run).ok());
  EXPECT_EQ(run.state(), v1::RUN_STOPPED);
  EXPECT_TRUE(session.Expect(v1::WorkDown::kClose).close().final());
  cluster_.Stop(0);
  cluster_.Start(0);
  EXPECT_EQ(Show("r").state(), v1::RUN_STOPPED);
  EXPECT_EQ(Show("r").reason(), "enough");
  ExpectValues(Pull(cluster_, "r", 1), 1);  // reads go on
  BeginEpoch("r");
  EXPECT_EQ(Show("r").state(), v1::RUN_ACTIVE);
}

TEST_P(ServerTest, FeedGoesToAnAttachedWorker) {
  ASSERT_NO_FATAL_FAILURE(Begin("r"));
  v1::FeedRef ref;
  ref.set_run("r");
  ref.set_epoch(1);
  v1::FeedPlace place;
  const grpc::Status nobody = cluster_.Control()->OpenFeed(Call().get(), ref, &place);
  EXPECT_EQ(nobody.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ReasonOf(nobody), "NO_WORKER");

  auto stub = cluster_.Control();
  auto call = Call();
  auto attach = stub->Attach(call.get());
  v1::WorkerUp hello;
  hello.mutable_hello()->set_protocol(1);
  hello.set_name("w");
  hello.set_address("host:1");
  attach->Write(hello);
  v1::WorkerDown told;
  while (attach->Read(&told) && told.serve_size() == 0) continue;
  EXPECT_EQ(told.serve(0), "r");
  EXPECT_EQ(told.servers_size(), static_cast<int>(GetParam()));
  ASSERT_TRUE(cluster_.Control()->OpenFeed(Call().get(), ref, &place).ok());
  EXPECT_EQ(place.address(), "host:1");
  EXPECT_EQ(place.window_rows(), 16u);
  call->TryCancel();
  (void)attach->Finish();
}

TEST_P(ServerTest, PortInUseAndDirectoryInUseAreSaid) {
  ServerConfig config = cluster_.Config(0);
  config.dir += "-other";
  const absl::Status port = Server::Start(config).status();
  EXPECT_EQ(port.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(port.message().find(cluster_.address(0)), absl::string_view::npos) << port;
  EXPECT_FALSE(std::filesystem::exists(config.dir));
  config = cluster_.Config(0);
  config.listen = "127.0.0.1:0";
  EXPECT_EQ(Server::Start(config).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_P(ServerTest, DirectoryOfAnotherServerIsRefused) {
  ServerConfig config = cluster_.Config(0);
  cluster_.Crash(0);
  config.servers = GetParam() + 1;
  EXPECT_EQ(Server::Start(config).status().code(), absl::StatusCode::kFailedPrecondition);
  cluster_.Start(0);
}

}  // namespace
}  // namespace ballast::testing
