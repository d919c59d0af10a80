#include "tests/fuzz/live_server.h"

#include <cstring>
#include <filesystem>
#include <random>

#include "absl/strings/str_cat.h"
#include "ballast/v1/shard.pb.h"
#include "core/record/hash.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/temp_folder.h"

namespace ballast::fuzz {
namespace {

constexpr int64_t kElements = 5;
constexpr uint32_t kInitPartition = 0xffffffff;
constexpr float kInitial = 1000;
const std::string kControl = "/ballast.v1.Control/";

std::string HonestName() {
  std::random_device random;
  return absl::StrCat("honest-", absl::Hex(random(), absl::kZeroPad8), absl::Hex(random(), absl::kZeroPad8), "-run-with-a-long-name");
}

v1::Batch BatchOf(uint64_t seq) {
  v1::Batch batch;
  batch.set_epoch(1);
  batch.set_seq(seq);
  batch.set_rows(4);
  batch.set_fingerprint(1000 + seq);
  return batch;
}

}  // namespace

v1::Hello HonestHello() {
  v1::Hello hello;
  hello.set_protocol(1);
  hello.set_release("fuzz");
  return hello;
}

v1::RunSpec SmallSpec(const std::string& name) {
  v1::RunSpec spec;
  spec.set_name(name);
  spec.set_model_sha256(kModelSha256);
  v1::TensorSpec* w = spec.add_tensors();
  w->set_name("w");
  w->add_shape(kElements);
  w->set_dtype(v1::F32);
  w->set_rule(v1::OPT);
  w->set_source_dtype("float32");
  w->set_persistent(true);
  v1::TensorSpec* n = spec.add_tensors();
  n->set_name("n");
  n->add_shape(1);
  n->set_dtype(v1::I64);
  n->set_rule(v1::SUM);
  n->set_source_dtype("int64");
  n->set_persistent(true);
  spec.mutable_optimizer()->set_kind(v1::OptimizerSpec::SGD);
  spec.mutable_optimizer()->set_lr(1);
  spec.set_reduction(v1::REDUCTION_SUM);
  spec.set_step_rows(4);
  spec.set_batch_rows(4);
  spec.set_partitions(1);
  spec.set_linger_ms(60000);
  spec.set_lease_ms(600000);
  spec.set_schema("x:int32");
  return spec;
}

v1::Chunk SmallChunk(const v1::Run& run, const v1::Uid& uid, float value, int64_t count) {
  v1::Chunk chunk;
  chunk.set_run(run.spec().name());
  chunk.set_generation(run.generation());
  chunk.set_session(uid.session());
  chunk.set_uid(uid.counter());
  chunk.set_last(true);
  for (const v1::Block& block : run.layout()) {
    std::string bytes(block.count() * (block.tensor() == 0 ? sizeof value : sizeof count), '\0');
    for (uint64_t i = 0; i < block.count() && block.tensor() == 0; ++i) std::memcpy(&bytes[i * sizeof value], &value, sizeof value);
    if (block.tensor() != 0) std::memcpy(bytes.data(), &count, sizeof count);
    v1::BlockHead* head = chunk.add_blocks();
    head->set_tensor(block.tensor());
    head->set_first(block.first());
    head->set_count(static_cast<uint32_t>(block.count()));
    head->set_codec(block.tensor() == 0 ? v1::CODEC_FP32 : v1::CODEC_I64);
    head->set_bytes(static_cast<uint32_t>(bytes.size()));
    head->set_checksum(Hash64(bytes));
    chunk.mutable_payload()->append(bytes);
  }
  return chunk;
}

LiveServer::LiveServer() : dir_(TempFolder() + "/server"), honest_(HonestName()) {
  Start();
  CreateHonestRun();
}

LiveServer::~LiveServer() {
  Stop();
  std::error_code ignored;
  std::filesystem::remove_all(dir_, ignored);
}

void LiveServer::Start() {
  ServerConfig config;
  config.dir = dir_;
  config.listen = "127.0.0.1:0";
  config.metrics_listen = "";  // its library takes two seconds to stop
  config.disk_reserve = 0;
  config.queue_bytes = 32u << 20;
  config.reader_timeout_s = 2;
  auto server = Server::Start(config);
  if (!server.ok()) std::fprintf(stderr, "%s\n", server.status().ToString().c_str());
  FUZZ_CHECK(server.ok());
  server_ = *std::move(server);
  stopping_ = false;
  watcher_ = std::thread([this] {
    const absl::Status ended = server_->Wait();
    if (stopping_) return;
    std::fprintf(stderr, "the server gave up: %s\n", ended.ToString().c_str());
    failed_ = true;
  });
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // each a connection of its own
  for (auto* channel : {&channel_, &hostile_}) {
    *channel = grpc::CreateCustomChannel(server_->address(), grpc::InsecureChannelCredentials(), arguments);
  }
}

void LiveServer::Stop() {
  work_.reset();
  push_.reset();
  stopping_ = true;
  server_->RequestStop();
  watcher_.join();
  channel_.reset();
  hostile_.reset();
  server_.reset();
}

void LiveServer::Restart() {
  Stop();
  Start();
  CheckStatus();
  CheckStep();
}

template <typename Response>
Response LiveServer::Ask(const std::string& method, const google::protobuf::Message& request) {
  const Answer answer = Unary(channel_, kControl + method, request.SerializeAsString());
  FUZZ_CHECK(answer.came);
  if (!answer.status.ok()) std::fprintf(stderr, "%s: %s\n", method.c_str(), answer.status.error_message().c_str());
  FUZZ_CHECK(answer.status.ok());
  Response response;
  FUZZ_CHECK(response.ParseFromString(answer.message));
  return response;
}

void LiveServer::CreateHonestRun() {
  v1::Piece model;
  model.set_sha256(kModelSha256);
  model.set_total_bytes(3);
  model.set_data("abc");
  Ask<v1::Artifact>("PutArtifact", model);
  Ask<v1::Run>("CreateRun", SmallSpec(honest_));
  v1::Epoch epoch;
  epoch.set_run(honest_);
  epoch.set_epoch(1);
  epoch.set_partitions(1);
  epoch.set_batch_rows(4);
  epoch.set_schema("x:int32");
  Ask<v1::EpochReport>("BeginEpoch", epoch);
  v1::Batch init;
  init.set_partition(kInitPartition);
  Train(init, kInitial);
}

void LiveServer::OpenSession() {
  work_ = std::make_unique<RawCall>(channel_, kControl + "Work");
  push_ = std::make_unique<RawCall>(channel_, "/ballast.v1.Shard/Push");
  v1::WorkUp open;
  *open.mutable_open()->mutable_hello() = HonestHello();
  open.mutable_open()->set_run(honest_);
  open.mutable_open()->set_worker("honest-worker");
  FUZZ_CHECK(work_->Write(open.SerializeAsString()));
  welcome_ = Expect(v1::WorkDown::kWelcome).welcome();
  counter_ = 0;
}

v1::WorkDown LiveServer::Expect(v1::WorkDown::KindCase kind) {
  while (const auto bytes = work_->Read()) {
    v1::WorkDown message;
    FUZZ_CHECK(message.ParseFromString(*bytes));
    if (message.kind_case() == kind) return message;
    FUZZ_CHECK(message.kind_case() != v1::WorkDown::kClose && message.kind_case() != v1::WorkDown::kRefuse);
  }
  std::fprintf(stderr, "message %d did not come; the stream %s: %s\n", static_cast<int>(kind), work_->ended() ? "has ended" : "goes on",
               work_->status().error_message().c_str());
  FUZZ_CHECK(!"the message comes");
  return {};
}

void LiveServer::Train(const v1::Batch& batch, float value) {
  if (work_ == nullptr) OpenSession();
  v1::WorkUp up;
  *up.mutable_claim()->mutable_batch() = batch;
  FUZZ_CHECK(work_->Write(up.SerializeAsString()));
  const v1::WorkDown::Grant grant = Expect(v1::WorkDown::kGrant).grant();
  v1::Uid uid;
  uid.set_session(welcome_.session());
  uid.set_counter(++counter_);
  FUZZ_CHECK(push_->Write(SmallChunk(welcome_.run(), uid, value, batch.rows()).SerializeAsString()));
  const auto bytes = push_->Read();
  v1::PushReply reply;
  FUZZ_CHECK(bytes.has_value() && reply.ParseFromString(*bytes) && reply.error().empty());

  v1::WorkUp::Submit* submit = up.mutable_submit();
  *submit->mutable_uid() = uid;
  *submit->add_batches() = batch;
  submit->set_rows(batch.rows());
  submit->set_base_version(grant.base_version());
  v1::Receipt* receipt = submit->add_receipts();
  receipt->set_incarnation(reply.incarnation());
  receipt->set_checksum(reply.checksum());
  receipt->set_norm2(reply.norm2());
  receipt->set_proof(reply.proof());
  FUZZ_CHECK(work_->Write(up.SerializeAsString()));
  FUZZ_CHECK(Expect(v1::WorkDown::kDecided).decided().accepted());
}

void LiveServer::CheckStatus() {
  FUZZ_CHECK(!failed_);
  v1::RunFilter filter;
  filter.set_name(honest_);
  const auto list = Ask<v1::RunList>("ListRuns", filter);
  FUZZ_CHECK(list.runs_size() == 1 && list.runs(0).state() == v1::RUN_ACTIVE);
  FUZZ_CHECK(list.runs(0).version() == 1 + steps_ && list.runs(0).steps() == steps_ && list.runs(0).rows_trained() == 4 * steps_);
}

void LiveServer::CheckStep() {
  Train(BatchOf(steps_), 1);
  ++steps_;
  CheckWeights();
}

void LiveServer::CheckWeights() {
  v1::Want want;
  want.set_run(honest_);
  want.set_min_version(1 + steps_);
  want.set_codec(v1::CODEC_FP32);
  RawCall pull(channel_, "/ballast.v1.Shard/Pull");
  FUZZ_CHECK(pull.Write(want.SerializeAsString()));
  const auto bytes = pull.Read();
  v1::Chunk chunk;
  FUZZ_CHECK(bytes.has_value() && chunk.ParseFromString(*bytes) && chunk.last() && chunk.version() == 1 + steps_);
  size_t at = 0;
  for (const v1::BlockHead& head : chunk.blocks()) {
    FUZZ_CHECK(at + head.bytes() <= chunk.payload().size());
    const std::string block = chunk.payload().substr(at, head.bytes());
    at += head.bytes();
    FUZZ_CHECK(head.checksum() == Hash64(block));
    if (head.tensor() == 0) {
      for (int64_t i = 0; i < kElements; ++i) {
        float value = 0;
        std::memcpy(&value, block.data() + static_cast<size_t>(i) * sizeof value, sizeof value);
        FUZZ_CHECK(value == kInitial - static_cast<float>(steps_));
      }
    } else {
      int64_t count = 0;
      std::memcpy(&count, block.data(), sizeof count);
      FUZZ_CHECK(static_cast<uint64_t>(count) == 4 * steps_);
    }
  }
  FUZZ_CHECK(at == chunk.payload().size());
  pull.HalfClose();
  FUZZ_CHECK(pull.End() && pull.status().ok());
}

void LiveServer::RemoveOtherRuns() {
  const auto list = Ask<v1::RunList>("ListRuns", v1::RunFilter());
  for (const v1::Run& run : list.runs()) {
    if (run.spec().name() == honest_) continue;
    v1::RunRef ref;
    ref.set_run(run.spec().name());
    const Answer removed = Unary(channel_, kControl + "DeleteRun", ref.SerializeAsString());
    FUZZ_CHECK(removed.came && (removed.status.ok() || removed.status.error_code() == grpc::StatusCode::ABORTED));
  }
}

}  // namespace ballast::fuzz
