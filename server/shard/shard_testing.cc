#include "server/shard/shard_testing.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>
#include <utility>

#include "absl/synchronization/notification.h"
#include "core/codec/codec.h"
#include "core/layout/layout.h"
#include "core/optimizer/optimizer.h"
#include "core/record/chunk.h"
#include "core/record/decision.h"
#include "core/record/hash.h"
#include "proto/convert.h"

namespace ballast::testing {

void RecordedEvents::OnNorm(uint64_t query, double norm2) {
  absl::MutexLock lock(&mu);
  norms[query] = norm2;
}
void RecordedEvents::OnCheckpointed(uint64_t version, const ShardDigest& digest) {
  absl::MutexLock lock(&mu);
  checkpoints[version] = digest;
}
void RecordedEvents::OnDisk(bool low, const std::string&) {
  absl::MutexLock lock(&mu);
  disk.push_back(low);
}
void RecordedEvents::OnOwnLog(const Uid& uid) {
  absl::MutexLock lock(&mu);
  own_log.insert(uid);
}
void RecordedEvents::OnFailed(const absl::Status& status) {
  absl::MutexLock lock(&mu);
  failed = status;
}

bool RecordedEvents::Wait(Indexes indexes, uint64_t index) {
  absl::MutexLock lock(&mu);
  const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) { return (this->*indexes).contains(index) || !failed.ok(); };
  mu.Await(absl::Condition(&there));
  return (this->*indexes).contains(index);
}
bool RecordedEvents::Has(Indexes indexes, uint64_t index) {
  absl::MutexLock lock(&mu);
  return (this->*indexes).contains(index);
}
absl::Status RecordedEvents::WaitFailed() {
  absl::MutexLock lock(&mu);
  const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) { return !failed.ok(); };
  mu.Await(absl::Condition(&there));
  return failed;
}
ShardDigest RecordedEvents::WaitCheckpointed(uint64_t version) {
  absl::MutexLock lock(&mu);
  const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) { return checkpoints.contains(version) || !failed.ok(); };
  mu.Await(absl::Condition(&there));
  EXPECT_TRUE(failed.ok()) << failed;
  return checkpoints[version];
}
double RecordedEvents::WaitNorm(uint64_t query) {
  absl::MutexLock lock(&mu);
  const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) { return norms.contains(query) || !failed.ok(); };
  mu.Await(absl::Condition(&there));
  return norms[query];
}

RunSpec TestSpec(OptimizerKind optimizer, Codec push_codec) {
  RunSpec spec;
  spec.name = "r";
  spec.optimizer.kind = optimizer;
  spec.optimizer.lr = optimizer == OptimizerKind::kSgd ? 1 : 1e-3;
  spec.push_codec = push_codec;
  spec.step_rows = 256;
  spec.batch_rows = 128;
  const auto add = [&](const char* name, std::vector<int64_t> shape, DType dtype, UpdateRule rule) {
    TensorSpec& t = spec.tensors.emplace_back();
    t.name = name;
    t.shape = std::move(shape);
    t.dtype = dtype;
    t.rule = rule;
    t.source_dtype = dtype == DType::kF32 ? "float32" : "int64";
  };
  add("w", {90, 100}, DType::kF32, UpdateRule::kOpt);
  add("b", {7}, DType::kF32, UpdateRule::kOpt);
  add("mean", {5}, DType::kF32, UpdateRule::kMean);
  add("count", {}, DType::kI64, UpdateRule::kSum);
  add("tag", {3}, DType::kI64, UpdateRule::kSet);
  add("total", {4}, DType::kF32, UpdateRule::kSum);
  add("copy", {2}, DType::kF32, UpdateRule::kSet);
  return spec;
}

TestShard::TestShard(RunSpec s, uint32_t index, uint32_t shards) : spec(std::move(s)) {
  layout = *MakeLayout(spec.tensors, shards);
  options.shard = index;
  options.shards = shards;
  options.incarnation = 0;
  options.coordinator_log = index == 0;
  options.disk_reserve_bytes = 0;
  options.segment_bytes = 1u << 20;
}

TestShard::~TestShard() {
  Close();
  std::error_code ignored;
  if (!dir_.empty()) std::filesystem::remove_all(dir_, ignored);
}

absl::Status TestShard::Open() {
  if (options.dir.empty()) {
    std::string dir = ::testing::TempDir() + "/shard_XXXXXX";
    dir_ = ::mkdtemp(dir.data());
    options.dir = dir_ + "/run";
  }
  ++options.incarnation;
  auto opened =
      RunShard::Open(options, spec, 1, layout, ToProto(RunDefinition{spec, 1, layout}).SerializeAsString(), store.get(), &events, nullptr);
  if (opened.ok()) shard = *std::move(opened);
  return opened.status();
}

std::vector<PushedChunk> TestShard::Chunks(Uid uid, const FloatsOf& floats, const IntsOf& ints, bool exact, const std::set<uint32_t>& skip,
                                           size_t blocks_per_chunk) {
  std::vector<Block> blocks;
  for (const Block& block : BlocksOfShard(layout, options.shard)) {
    if (!skip.contains(block.tensor)) blocks.push_back(block);
  }
  std::vector<PushedChunk> out;
  for (size_t begin = 0; begin < blocks.size() || out.empty(); begin += blocks_per_chunk) {
    PushedChunk& chunk = out.emplace_back();
    ChunkHead head{
        spec.name, 1, uid.session, uid.counter, 0, static_cast<uint32_t>(out.size() - 1), begin + blocks_per_chunk >= blocks.size(), {}};
    for (size_t i = begin; i < std::min(begin + blocks_per_chunk, blocks.size()); ++i) {
      const TensorSpec& tensor = spec.tensors[blocks[i].tensor];
      const Codec codec = tensor.dtype == DType::kI64 ? Codec::kI64 : exact ? Codec::kFp32 : PushCodecOf(spec, tensor);
      std::string bytes(EncodedBytes(codec, blocks[i].count), '\0');
      if (codec == Codec::kI64) {
        std::memcpy(bytes.data(), ints(blocks[i]).data(), bytes.size());
      } else {
        Encode(codec, floats(blocks[i]), absl::MakeSpan(bytes));
      }
      head.blocks.push_back({blocks[i].tensor, blocks[i].first, static_cast<uint32_t>(blocks[i].count), codec,
                             static_cast<uint32_t>(bytes.size()), Hash64(bytes)});
      chunk.payload += bytes;
    }
    chunk.uid = uid;
    chunk.index = head.index;
    chunk.last = head.last;
    chunk.head = EncodeChunkHead(head, chunk.payload.size());
  }
  return out;
}

std::vector<PushedChunk> TestShard::SeededChunks(Uid uid, uint64_t seed, bool exact) {
  std::mt19937_64 random(seed);
  const auto floats = [&](const Block& block) {
    std::vector<float> values(block.count);
    for (float& v : values) v = static_cast<float>(static_cast<int64_t>(random() % 2000001) - 1000000) * 1e-5f;
    return values;
  };
  const auto ints = [&](const Block& block) {
    std::vector<int64_t> values(block.count);
    for (int64_t& v : values) v = static_cast<int64_t>(random() % 100);
    return values;
  };
  return Chunks(uid, floats, ints, exact);
}

PushResult TestShard::Push(std::vector<PushedChunk> chunks) {
  PushResult result;
  absl::Notification answered;
  for (PushedChunk& chunk : chunks) {
    const absl::Status s = shard->Push(std::move(chunk), [&](const PushResult& r) {
      result = r;
      answered.Notify();
    });
    EXPECT_TRUE(s.ok()) << s;
  }
  answered.WaitForNotification();
  return result;
}

Decision TestShard::Make(DecisionKind kind, const std::vector<Uid>& uids, float clip_scale) {
  Decision d;
  d.run = spec.name;
  d.kind = kind;
  d.generation = last_.generation;
  d.index = last_.index + 1;
  d.version = last_.version + (kind == DecisionKind::kStep || kind == DecisionKind::kInit ? 1 : 0);
  d.step = last_.step + (kind == DecisionKind::kStep ? 1 : 0);
  d.sessions_closed_below = last_.sessions_closed_below;
  uint64_t rows = 0;
  for (const Uid& uid : uids) {
    Part& part = d.parts.emplace_back();
    part.uid = uid;
    part.rows = 10 + d.parts.size() - 1;
    rows += part.rows;
  }
  if (kind == DecisionKind::kStep) {
    d.divisor = static_cast<float>(rows);
    d.clip_scale = clip_scale;
    d.hyper = HyperOf(spec.optimizer, spec.schedule, d.step);
    d.kernel_id = KernelIdOf(spec.optimizer);
  }
  SealDecision(last_.chain, d);
  return d;
}

Decision TestShard::MakeRollback(uint64_t version, uint64_t step) {
  Decision d = Make(DecisionKind::kRollback, {});
  ++d.generation;
  ++d.version;
  d.step = step;
  d.rollback_version = version;
  SealDecision(last_.chain, d);
  return d;
}

void TestShard::Reseal(uint64_t previous_chain, Decision& d) { SealDecision(previous_chain, d); }

bool TestShard::Decide(const Decision& d) {
  last_ = d;
  auto shared = std::make_shared<const Decision>(d);
  if (options.coordinator_log) {
    shard->AppendDecision(shared);
    if (!events.Wait(&RecordedEvents::durable, d.index)) return false;
  }
  shard->Deliver(shared);
  return events.Wait(&RecordedEvents::applied, d.index);
}

void TestShard::Train(int n) {
  if (last_.index == 0) {
    const Uid init{1, next_counter++};
    EXPECT_EQ(PushSeeded(init, 1, /*exact=*/true).error, "");
    ASSERT_TRUE(Decide(DecisionKind::kInit, {init}));
    hash_at[last_.index] = Hash();
  }
  for (int i = 0; i < n; ++i) {
    const Uid a{1, next_counter++}, b{1, next_counter++};
    EXPECT_EQ(PushSeeded(a, a.counter).error, "");
    EXPECT_EQ(PushSeeded(b, b.counter).error, "");
    const bool swap = a.counter % 4 == 0;
    ASSERT_TRUE(Decide(DecisionKind::kStep, {swap ? b : a, swap ? a : b}, 1.0f / static_cast<float>(1 + i % 3)));
    hash_at[last_.index] = Hash();
  }
}

std::string TestShard::Pulled(uint32_t tensor) {
  std::shared_ptr<const Encoding> encoding;
  absl::Notification ready;
  shard->Pull(last_.version, Codec::kFp32, [&](std::shared_ptr<const Encoding> e) {
    encoding = std::move(e);
    ready.Notify();
  });
  ready.WaitForNotification();
  std::string out;
  for (const Encoding::Piece& piece : encoding->pieces) {
    const std::string message = EncodeChunkHead({}, piece.head_blocks, piece.payload.size()) + piece.payload;
    const ChunkView view = *ParseChunk(message);
    const auto bytes = SplitPayload(view.head, view.payload);
    for (size_t i = 0; i < bytes.size(); ++i) {
      if (view.head.blocks[i].tensor == tensor) out += std::string(bytes[i]);
    }
  }
  return out;
}

std::vector<float> TestShard::Floats(uint32_t tensor) {
  const std::string bytes = Pulled(tensor);
  std::vector<float> out(bytes.size() / sizeof(float));
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}
std::vector<int64_t> TestShard::Ints(uint32_t tensor) {
  const std::string bytes = Pulled(tensor);
  std::vector<int64_t> out(bytes.size() / sizeof(int64_t));
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

}  // namespace ballast::testing
