#include "tests/integration/raw_session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "core/record/hash.h"

namespace ballast::testing {

v1::Batch TestBatch(uint64_t seq, uint32_t rows) {
  v1::Batch batch;
  batch.set_epoch(1);
  batch.set_seq(seq);
  batch.set_rows(rows);
  batch.set_fingerprint(1000 + seq);
  return batch;
}

v1::Batch InitBatch() {
  v1::Batch batch;
  batch.set_partition(kInitPartitionNumber);
  return batch;
}

v1::RunSpec TestRunSpec(const std::string& name, int64_t elements) {
  v1::RunSpec spec;
  spec.set_name(name);
  spec.set_model_sha256(kModelSha256);
  v1::TensorSpec* w = spec.add_tensors();
  w->set_name("w");
  w->add_shape(elements);
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
  spec.set_step_rows(8);
  spec.set_batch_rows(4);
  spec.set_partitions(1);
  spec.set_linger_ms(60000);
  spec.set_schema("x:int32");
  return spec;
}

RawSession::RawSession(const InProcessCluster& cluster, const std::string& run, uint32_t protocol)
    : cluster_(cluster), control_(cluster.Control()) {
  v1::WorkUp open;
  open.mutable_open()->mutable_hello()->set_protocol(protocol);
  open.mutable_open()->mutable_hello()->set_release("test");
  open.mutable_open()->set_run(run);
  open.mutable_open()->set_worker("test-worker");
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  do {  // servers that came back may still look for each other: a worker tries again, too
    call_ = Call();
    work_ = control_->Work(call_.get());
    work_->Write(open);
    v1::WorkDown message;
    if (work_->Read(&message)) {
      welcome_ = message.welcome();
      return;
    }
    refusal_ = work_->Finish();
    work_.reset();
    absl::SleepFor(absl::Milliseconds(20));
  } while (refusal_.error_code() == grpc::StatusCode::UNAVAILABLE && absl::Now() < deadline);
}

RawSession::~RawSession() {
  for (auto& [server, pushing] : pushing_) {
    pushing.call->TryCancel();
    (void)pushing.stream->Finish();
  }
  if (work_ == nullptr) return;
  call_->TryCancel();
  (void)work_->Finish();
}

v1::WorkDown RawSession::Expect(v1::WorkDown::KindCase kind) { return Expect(std::set{kind}); }

v1::WorkDown RawSession::Expect(const std::set<v1::WorkDown::KindCase>& kinds) {
  for (auto it = kept_.begin(); it != kept_.end(); ++it) {
    if (!kinds.contains(it->kind_case())) continue;
    v1::WorkDown found = *it;
    kept_.erase(it);
    return found;
  }
  v1::WorkDown message;
  while (work_ != nullptr && work_->Read(&message)) {
    if (kinds.contains(message.kind_case())) return message;
    kept_.push_back(message);
  }
  ADD_FAILURE() << "the stream ended before a message of kind " << *kinds.begin() << " " << refusal_.error_message();
  return {};
}

v1::WorkDown::Grant RawSession::Claim(const v1::Batch& batch) {
  v1::WorkUp claim;
  *claim.mutable_claim()->mutable_batch() = batch;
  Send(claim);
  return Expect(v1::WorkDown::kGrant).grant();
}

v1::Uid RawSession::NewUid() {
  v1::Uid uid;
  uid.set_session(welcome_.session());
  uid.set_counter(++counter_);
  return uid;
}

std::vector<v1::Chunk> RawSession::Chunks(uint32_t server, const v1::Uid& uid, const std::vector<float>& values, int64_t count) const {
  std::vector<v1::Chunk> chunks;
  for (const v1::Block& block : welcome_.run().layout()) {
    if (block.shard() != server) continue;
    std::string bytes(block.count() * (block.tensor() == 0 ? sizeof(float) : sizeof(int64_t)), '\0');
    if (block.tensor() == 0) {
      std::memcpy(bytes.data(), values.data() + block.first(), bytes.size());
    } else {
      std::memcpy(bytes.data(), &count, sizeof(count));
    }
    v1::Chunk chunk;
    chunk.set_run(welcome_.run().spec().name());
    chunk.set_generation(welcome_.run().generation());
    chunk.set_session(uid.session());
    chunk.set_uid(uid.counter());
    chunk.set_index(static_cast<uint32_t>(chunks.size()));
    v1::BlockHead* head = chunk.add_blocks();
    head->set_tensor(block.tensor());
    head->set_first(block.first());
    head->set_count(static_cast<uint32_t>(block.count()));
    head->set_codec(block.tensor() == 0 ? v1::CODEC_FP32 : v1::CODEC_I64);
    head->set_bytes(static_cast<uint32_t>(bytes.size()));
    head->set_checksum(Hash64(bytes));
    chunk.set_payload(bytes);
    chunks.push_back(std::move(chunk));
  }
  if (!chunks.empty()) chunks.back().set_last(true);
  return chunks;
}

RawSession::Pushing& RawSession::PushTo(uint32_t server) {
  Pushing& pushing = pushing_[server];
  if (pushing.stream == nullptr) {
    pushing.call = Call();
    pushing.stub = cluster_.Shard(server);
    pushing.stream = pushing.stub->Push(pushing.call.get());
  }
  return pushing;
}

v1::PushReply RawSession::PushOne(uint32_t server, const v1::Chunk& chunk) {
  Pushing& pushing = PushTo(server);
  v1::PushReply reply;
  EXPECT_TRUE(pushing.stream->Write(chunk) && pushing.stream->Read(&reply));
  return reply;
}

std::vector<v1::Receipt> RawSession::Push(const v1::Uid& uid, const std::vector<float>& values, int64_t count) {
  std::vector<v1::Receipt> receipts;
  for (uint32_t server = 0; server < cluster_.size(); ++server) {
    Pushing& pushing = PushTo(server);
    v1::PushReply reply;
    do {
      for (const v1::Chunk& chunk : Chunks(server, uid, values, count)) EXPECT_TRUE(pushing.stream->Write(chunk));
      reply.Clear();
      EXPECT_TRUE(pushing.stream->Read(&reply));
    } while (reply.error() == "NO_RUN");  // a server that came back may still recover it; the call's deadline ends this
    EXPECT_EQ(reply.error(), "") << reply.detail();
    EXPECT_EQ(reply.uid(), uid.counter());
    v1::Receipt receipt;
    receipt.set_shard(server);
    receipt.set_incarnation(reply.incarnation());
    receipt.set_checksum(reply.checksum());
    receipt.set_norm2(reply.norm2());
    receipt.set_proof(reply.proof());
    receipts.push_back(receipt);
  }
  return receipts;
}

void RawSession::Submit(const v1::Uid& uid, const std::vector<v1::Batch>& batches, uint64_t base_version,
                        const std::vector<v1::Receipt>& receipts) {
  v1::WorkUp message;
  v1::WorkUp::Submit* submit = message.mutable_submit();
  *submit->mutable_uid() = uid;
  uint64_t rows = 0;
  for (const v1::Batch& batch : batches) {
    *submit->add_batches() = batch;
    rows += batch.rows();
  }
  submit->set_rows(rows);
  submit->set_base_version(base_version);
  for (const v1::Receipt& receipt : receipts) *submit->add_receipts() = receipt;
  Send(message);
}

uint64_t RawSession::Train(const std::vector<v1::Batch>& batches, uint64_t base_version, const std::vector<float>& values, int64_t count) {
  const v1::Uid uid = NewUid();
  v1::WorkDown answer;
  do {
    Submit(uid, batches, base_version, Push(uid, values, count));
    answer = Expect({v1::WorkDown::kDecided, v1::WorkDown::kRefuse});
    // A server that came back may answer a push before server 0 knows of its return.
  } while (answer.refuse().reason() == v1::WorkDown::Refuse::RECEIPTS);
  const v1::WorkDown::Decided& decided = answer.decided();
  EXPECT_EQ(decided.uid().counter(), uid.counter());
  EXPECT_TRUE(decided.accepted());
  return decided.version();
}

namespace {

// The values of one server. NOT_FOUND: it does not hold the run, or not yet.
grpc::Status PullFrom(const InProcessCluster& cluster, uint32_t server, const v1::Want& want, Values& values) {
  auto stub = cluster.Shard(server);
  auto call = Call();
  auto stream = stub->Pull(call.get());
  EXPECT_TRUE(stream->Write(want));
  v1::Chunk chunk;
  for (uint32_t index = 0; stream->Read(&chunk); ++index) {
    EXPECT_EQ(chunk.uid(), want.number());
    EXPECT_EQ(chunk.index(), index);
    values.version = chunk.version();
    size_t at = 0;
    for (const v1::BlockHead& head : chunk.blocks()) {
      const std::string bytes = chunk.payload().substr(at, head.bytes());
      at += head.bytes();
      EXPECT_EQ(head.checksum(), Hash64(bytes));
      if (head.tensor() == 0) {
        values.w.resize(std::max<size_t>(values.w.size(), head.first() + head.count()));
        std::memcpy(values.w.data() + head.first(), bytes.data(), bytes.size());
      } else {
        values.n.resize(1);
        std::memcpy(values.n.data(), bytes.data(), bytes.size());
      }
    }
    EXPECT_EQ(at, chunk.payload().size());
    if (chunk.last()) break;
  }
  const bool whole = chunk.last();
  if (whole) {
    stream->WritesDone();
    EXPECT_FALSE(stream->Read(&chunk));
  }
  const grpc::Status end = stream->Finish();
  EXPECT_TRUE(whole || !end.ok());
  return end;
}

}  // namespace

Values Pull(const InProcessCluster& cluster, const std::string& run, uint64_t min_version, uint64_t manifest) {
  v1::Want want;
  want.set_run(run);
  want.set_number(7);
  want.set_min_version(min_version);
  want.set_codec(v1::CODEC_FP32);
  want.set_manifest(manifest);
  Values values;
  const auto deadline = Call()->deadline();
  for (uint32_t server = 0; server < cluster.size(); ++server) {
    grpc::Status end = PullFrom(cluster, server, want, values);
    while (end.error_code() == grpc::StatusCode::NOT_FOUND && std::chrono::system_clock::now() < deadline) {
      end = PullFrom(cluster, server, want, values);
    }
    EXPECT_TRUE(end.ok()) << end.error_message();
  }
  return values;
}

}  // namespace ballast::testing
