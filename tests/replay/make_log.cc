// Writes the log of a small made-up run with the project's own code and prints what its kernels computed, one line a shard and version:
// "shard=S version=V hash=H". tests/replay/test_replay.py compares that with replay_log.py.
//   make_log DIR OPTIMIZER(sgd|momentum|adam|adamw) CODEC(fp32|bf16|int8) SEED

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "core/codec/codec.h"
#include "core/kernels/kernels.h"
#include "core/layout/layout.h"
#include "core/optimizer/optimizer.h"
#include "core/record/chunk.h"
#include "core/record/decision.h"
#include "core/record/hash.h"
#include "core/record/log_record.h"
#include "core/record/state_hash.h"
#include "proto/convert.h"

namespace ballast {
namespace {

constexpr uint32_t kShards = 2;

// The log file of one shard, and its state.
class Shard {
 public:
  Shard(const std::string& dir, const RunDefinition& run, uint32_t shard)
      : run_(run), shard_(shard), kernels_(*MakeKernels(Device::kCpu)), blocks_(BlocksOfShard(run.layout, shard)) {
    const std::string folder = dir + "/runs/" + run.spec.name + "/shard-" + std::to_string(shard);
    std::filesystem::create_directories(folder);
    file_.open(folder + "/00000001.log", std::ios::binary);
    std::vector<BlockShape> shapes;
    for (const Block& b : blocks_) {
      const TensorSpec& t = run.spec.tensors[b.tensor];
      shapes.push_back({t.dtype, b.count, t.rule == UpdateRule::kOpt ? SlotsOf(run.spec.optimizer) : 0});
    }
    state_ = *kernels_->Allocate(shapes);
    Append(RecordKind::kRun, EncodeRunRecord({shard, kShards, ToProto(run).SerializeAsString()}));
  }

  void Append(RecordKind kind, const std::string& body) {
    RecordHeader h{kind, static_cast<uint32_t>(body.size()), 1, ++sequence_, sequence_ > 3 ? sequence_ - 3 : 0, chain_, 0};
    std::string bytes(RecordBytes(body.size()), '\0');
    EncodeRecordHeader(h, {body}, absl::MakeSpan(bytes.data(), kRecordHeaderBytes));
    bytes.replace(kRecordHeaderBytes, body.size(), body);
    file_ << bytes;
    offset_ += bytes.size();
    chain_ = h.chain;
    if (const int64_t pad = PadBodyBytes(offset_); kind != RecordKind::kPad && sequence_ % 5 == 0 && pad >= 0) {
      Append(RecordKind::kPad, std::string(pad, '\0'));
    }
  }

  // A random contribution to a random subset of the blocks (all of them for the initial weights), logged as one chunk for each block.
  void Push(Uid uid, bool all, std::mt19937& rng) {
    ChunkHead head{run_.spec.name, run_.generation, uid.session, uid.counter, 0, 0, false, {}};
    for (size_t i = 0; i < blocks_.size(); ++i) {
      const TensorSpec& t = run_.spec.tensors[blocks_[i].tensor];
      if (!all && rng() % 4 == 0) continue;
      const Codec codec = all ? PullCodecOf(t, Codec::kFp32) : PushCodecOf(run_.spec, t);
      const std::string bytes = RandomBytes(codec, blocks_[i].count, rng);
      held_[uid][i] = {codec, bytes};
      head.blocks = {{blocks_[i].tensor, blocks_[i].first, static_cast<uint32_t>(blocks_[i].count), codec,
                      static_cast<uint32_t>(bytes.size()), Hash64(bytes)}};
      Append(RecordKind::kContribution, EncodeChunkHead(head, bytes.size()) + bytes);
      ++head.index;
    }
    head.blocks.clear();
    head.last = true;
    held_[uid];
    Append(RecordKind::kContribution, EncodeChunkHead(head, 0));
  }

  void Decide(const Decision& d) {
    Append(RecordKind::kDecision, EncodeDecision(d));
    for (size_t i = 0; i < blocks_.size(); ++i) Apply(d, i);
    if (d.kind != DecisionKind::kStep && d.kind != DecisionKind::kInit) return;
    std::printf("shard=%u version=%llu hash=%016llx\n", shard_, static_cast<unsigned long long>(d.version),
                static_cast<unsigned long long>(Root()));
    if (d.version % kHashRootVersions == 0) Append(RecordKind::kHashRoot, EncodeHashRoot({d.generation, d.version, Root()}));
  }

 private:
  struct Encoded {
    Codec codec;
    std::string bytes;
  };

  static std::string RandomBytes(Codec codec, uint64_t count, std::mt19937& rng) {
    std::normal_distribution<float> normal;
    std::string out(EncodedBytes(codec, count), '\0');
    std::vector<float> values(count);
    for (float& x : values) x = normal(rng);
    if (codec != Codec::kI64) {
      Encode(codec, values, absl::MakeSpan(out.data(), out.size()));
    } else {
      for (char& c : out) c = static_cast<char>(rng());
    }
    return out;
  }

  void Apply(const Decision& d, size_t i) {
    const TensorSpec& t = run_.spec.tensors[blocks_[i].tensor];
    const bool init = d.kind == DecisionKind::kInit;
    std::vector<EncodedPart> parts;
    for (const Part& part : d.parts) {
      const auto it = held_[part.uid].find(i);
      if (it != held_[part.uid].end()) parts.push_back({it->second.codec, it->second.bytes, part.rows});
    }
    if (parts.empty()) return;
    BlockUpdate u{init ? UpdateRule::kSet : t.rule, d.kernel_id, {}, StepScale(d), parts};
    if (u.rule == UpdateRule::kOpt) u.hyper = absl::MakeConstSpan(d.hyper).subspan(t.group * kHyperPerGroup, kHyperPerGroup);
    kernels_->Apply(u, state_.blocks[i]);
    if (init) kernels_->ClearSlots(state_.blocks[i]);
  }

  uint64_t Root() const {
    std::vector<uint64_t> hashes;
    for (const BlockState& b : state_.blocks) hashes.push_back(kernels_->Hash(b));
    return RootHash(hashes);
  }

  const RunDefinition& run_;
  const uint32_t shard_;
  std::unique_ptr<Kernels> kernels_;
  std::vector<Block> blocks_;
  ShardState state_;
  std::ofstream file_;
  uint64_t sequence_ = 0, chain_ = 0, offset_ = 0;
  std::map<Uid, std::map<size_t, Encoded>> held_;
};

RunSpec SpecOf(const std::string& optimizer, const std::string& codec) {
  RunSpec spec;
  spec.name = "made-up";
  spec.model_sha256 = std::string(64, '0');
  const std::vector<std::pair<std::string, std::vector<int64_t>>> shapes = {{"w", {50, 60}}, {"b", {60}},   {"mean", {7}},
                                                                            {"sum", {7}},    {"calls", {}}, {"total", {3}}};
  for (const auto& [name, shape] : shapes) {
    spec.tensors.emplace_back().name = name;
    spec.tensors.back().shape = shape;
  }
  spec.tensors[1].group = 1;
  spec.tensors[2].rule = UpdateRule::kMean;
  spec.tensors[3].rule = UpdateRule::kSum;
  spec.tensors[4].rule = UpdateRule::kSet;
  spec.tensors[5].rule = UpdateRule::kSum;
  spec.tensors[4].dtype = spec.tensors[5].dtype = DType::kI64;
  spec.optimizer.kind = optimizer == "adam" ? OptimizerKind::kAdam : optimizer == "adamw" ? OptimizerKind::kAdamW : OptimizerKind::kSgd;
  if (optimizer == "momentum") spec.optimizer.momentum = 0.9, spec.optimizer.nesterov = true;
  spec.optimizer.groups = {{1, 0.01f}, {0.5, 0}};
  spec.push_codec = codec == "int8" ? Codec::kInt8 : codec == "bf16" ? Codec::kBf16 : Codec::kFp32;
  spec.batch_rows = spec.step_rows = spec.contribution_rows = 8;
  return spec;
}

int Main(const std::string& dir, const std::string& optimizer, const std::string& codec, uint32_t seed) {
  std::mt19937 rng(seed);
  RunDefinition run{SpecOf(optimizer, codec), 1, {}};
  if (const absl::Status s = ValidateSpec(run.spec); !s.ok()) {
    std::fprintf(stderr, "%s\n", s.ToString().c_str());
    return 1;
  }
  run.layout = *MakeLayout(run.spec.tensors, kShards);
  std::vector<std::unique_ptr<Shard>> shards;
  for (uint32_t s = 0; s < kShards; ++s) shards.push_back(std::make_unique<Shard>(dir, run, s));
  uint64_t chain = 0, counter = 0, step = 0, version = 0;
  for (uint64_t index = 1; index <= 40; ++index) {
    Decision d;
    d.run = run.spec.name;
    d.index = index;
    d.kind = index == 1 ? DecisionKind::kInit : index % 10 == 0 ? DecisionKind::kCheckpoint : DecisionKind::kStep;
    d.kernel_id = KernelIdOf(run.spec.optimizer);
    const bool changes = d.kind != DecisionKind::kCheckpoint;
    for (size_t p = 0; changes && p < (index == 1 ? 1 : 1 + rng() % 3); ++p) {
      Part part{Uid{1 + rng() % 2, ++counter}, 1 + rng() % 8, {}, version, 0};
      for (auto& shard : shards) shard->Push(part.uid, index == 1, rng);
      d.parts.push_back(part);
    }
    if (d.kind == DecisionKind::kStep) {
      d.hyper = HyperOf(run.spec.optimizer, run.spec.schedule, ++step);
      d.divisor = static_cast<float>(1 + rng() % 9);
      d.clip_scale = 0.25f + static_cast<float>(rng() % 4) / 4;
    }
    d.step = step;
    d.version = version += changes ? 1 : 0;
    SealDecision(chain, d);
    chain = d.chain;
    for (auto& shard : shards) shard->Decide(d);
  }
  return 0;
}

}  // namespace
}  // namespace ballast

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: make_log DIR sgd|momentum|adam|adamw fp32|bf16|int8 SEED\n");
    return 2;
  }
  return ballast::Main(argv[1], argv[2], argv[3], static_cast<uint32_t>(std::stoul(argv[4])));
}
