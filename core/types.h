// The nouns of Ballast as plain values: runs, tensors, blocks, batches, contributions, decisions, manifests. Words: docs/ARCHITECTURE.md.
// The .proto files say what each field means; proto/convert.h is the only place that knows both sides. Values: safe to copy and to share
// between threads as const.
#ifndef BALLAST_CORE_TYPES_H_
#define BALLAST_CORE_TYPES_H_

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace ballast {

// ---- limits (docs/ARCHITECTURE.md lists all of them) -------------------------------------------------------------------------------
inline constexpr uint32_t kProtocol = 1;                                // first message of every stream
inline constexpr uint64_t kBlockElemsMax = uint64_t{1} << 18;           // elements of a block
inline constexpr uint64_t kChunkPayloadMax = (1u << 20) + (64u << 10);  // bytes of a chunk's payload
inline constexpr uint64_t kMessageBytesMax = 4u << 20;                  // any other gRPC message, unless its service says otherwise
inline constexpr uint64_t kBatchBytesMax = 16u << 20;                   // one FeedUp.Rows
inline constexpr uint32_t kTensorsMax = 1u << 16;                       // of a run
inline constexpr uint32_t kPartitionsMax = 1u << 20;                    // of an epoch
inline constexpr uint32_t kInitPartition = 0xffffffffu;                 // batch (0, kInitPartition, 0): the initial weights
inline constexpr uint32_t kStalenessUnbounded = 0xffffffffu;
inline constexpr int kInFlightMax = 2;                          // contributions of a session that are not decided
inline constexpr uint64_t kStepBatchesMax = uint64_t{1} << 15;  // of a step: the decision that lists them is one message

// The numbers are those of proto/ballast/v1/run.proto.
enum class DType : uint8_t { kF32 = 1, kI64 = 2 };
enum class UpdateRule : uint8_t { kOpt = 1, kSum = 2, kMean = 3, kSet = 4 };
enum class Codec : uint8_t { kFp32 = 1, kBf16 = 2, kInt8 = 3, kI64 = 4 };
enum class Durability : uint8_t { kLog = 1, kCheckpoint = 2 };
enum class Reduction : uint8_t { kMean = 1, kSum = 2 };
enum class OptimizerKind : uint8_t { kSgd = 1, kAdam = 2, kAdamW = 3 };
enum class ScheduleKind : uint8_t { kConstant = 1, kWarmupCosine = 2 };
enum class DecisionKind : uint8_t { kStep = 1, kInit = 2, kCheckpoint = 3, kEvict = 4, kRollback = 5, kSkip = 6 };

struct TensorSpec {
  std::string name;
  std::vector<int64_t> shape;
  DType dtype = DType::kF32;
  UpdateRule rule = UpdateRule::kOpt;
  uint32_t group = 0;
  std::vector<std::string> aliases;
  std::string source_dtype;
  bool persistent = true;

  uint64_t Elements() const {  // REQUIRES a validated shape (core/layout/layout.h): no overflow
    uint64_t n = 1;
    for (int64_t d : shape) n *= static_cast<uint64_t>(d);
    return n;
  }
  bool operator==(const TensorSpec&) const = default;
};

struct ParamGroup {
  float lr_scale = 1;
  float weight_decay = 0;
  bool operator==(const ParamGroup&) const = default;
};

struct OptimizerSpec {
  OptimizerKind kind = OptimizerKind::kSgd;
  double lr = 0.01;
  double momentum = 0;
  bool nesterov = false;
  double dampening = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  std::vector<ParamGroup> groups = {ParamGroup{}};
  bool operator==(const OptimizerSpec&) const = default;
};

struct ScheduleSpec {
  ScheduleKind kind = ScheduleKind::kConstant;
  uint64_t warmup_steps = 0;
  uint64_t total_steps = 0;
  double min_lr = 0;
  bool operator==(const ScheduleSpec&) const = default;
};

struct InitSpec {
  std::string weights_sha256;
  std::string run;
  uint64_t version = 0;
  bool operator==(const InitSpec&) const = default;
};

// Defaults are already resolved here (no "0 means ..."): proto/convert.h does that.
struct RunSpec {
  std::string name;
  std::string model_sha256;
  std::string model_json;
  std::vector<TensorSpec> tensors;
  OptimizerSpec optimizer;
  ScheduleSpec schedule;
  Reduction reduction = Reduction::kMean;
  double clip_norm = 0;
  Codec push_codec = Codec::kFp32;
  Codec pull_codec = Codec::kFp32;
  uint64_t step_rows = 0;  // 0: every contribution is a step of its own
  uint64_t batch_rows = 0;
  uint64_t contribution_rows = 0;
  uint32_t staleness_max = 0;
  uint32_t linger_ms = 2000;
  Durability durability = Durability::kLog;
  uint32_t partitions = 8;
  uint64_t seed = 0;
  uint32_t epochs = 1;
  uint64_t checkpoint_versions = 0;
  uint32_t checkpoint_seconds = 0;
  InitSpec init;
  uint32_t skips_max = 8;
  uint32_t lease_ms = 30000;
  std::string schema;
  bool at_least_once = false;
  bool operator==(const RunSpec&) const = default;
};

struct Block {
  uint32_t tensor = 0;
  uint64_t first = 0;
  uint64_t count = 0;
  uint32_t shard = 0;
  bool operator==(const Block&) const = default;
};
using Layout = std::vector<Block>;  // ordered by (tensor, first); covers every tensor without gap or overlap

struct BatchId {
  uint32_t epoch = 0;
  uint32_t partition = 0;
  uint64_t seq = 0;
  auto operator<=>(const BatchId&) const = default;
  template <typename H>
  friend H AbslHashValue(H h, const BatchId& b) {
    return H::combine(std::move(h), b.epoch, b.partition, b.seq);
  }
};
inline constexpr BatchId kInitBatch{0, kInitPartition, 0};

struct Batch {
  BatchId id;
  uint32_t rows = 0;
  uint64_t fingerprint = 0;
  bool operator==(const Batch&) const = default;
};

struct Uid {
  uint64_t session = 0;
  uint64_t counter = 0;
  auto operator<=>(const Uid&) const = default;
  template <typename H>
  friend H AbslHashValue(H h, const Uid& u) {
    return H::combine(std::move(h), u.session, u.counter);
  }
};

struct Part {
  Uid uid;
  uint64_t rows = 0;
  std::vector<Batch> batches;
  uint64_t base_version = 0;
  double loss_sum = 0;
  bool operator==(const Part&) const = default;
};

struct SkippedBatch {
  Batch batch;
  std::string reason;
  bool operator==(const SkippedBatch&) const = default;
};

struct Decision {
  std::string run;
  uint64_t generation = 1;
  uint64_t index = 0;
  uint64_t chain = 0;
  DecisionKind kind = DecisionKind::kStep;
  std::vector<Part> parts;
  std::vector<SkippedBatch> skipped;
  float divisor = 1;
  float clip_scale = 1;
  std::vector<float> hyper;
  uint32_t kernel_id = 1;
  uint64_t sessions_closed_below = 0;
  uint64_t version = 0;
  uint64_t step = 0;
  uint64_t rollback_version = 0;
  bool operator==(const Decision&) const = default;
};

struct Receipt {
  uint32_t shard = 0;
  uint64_t incarnation = 0;
  uint64_t checksum = 0;
  double norm2 = 0;
  uint64_t proof = 0;  // that the shard gave it: core/coordinator/receipt.h
  bool operator==(const Receipt&) const = default;
};

struct ShardDigest {
  uint32_t shard = 0;
  uint64_t digest = 0;
  uint64_t bytes = 0;
  uint64_t nonfinite = 0;
  bool operator==(const ShardDigest&) const = default;
};

struct Manifest {
  std::string run;
  uint64_t generation = 1;
  uint64_t version = 0;
  uint64_t index = 0;
  std::vector<ShardDigest> shards;
  std::string ledger;
  int64_t created_unix_ms = 0;
  bool healthy = true;
  double loss = std::numeric_limits<double>::quiet_NaN();
  uint64_t step = 0;
  uint64_t chain = 0;
  uint64_t rolled_back_to = 0;
};

struct StepTiming {
  std::string phase;
  double seconds = 0;
};

struct MissingBatches {
  uint32_t partition = 0;
  std::vector<uint64_t> seqs;
};

struct EpochReport {
  uint32_t epoch = 0;
  bool committed = false;
  uint64_t batches = 0;
  uint64_t rows_trained = 0;
  uint64_t rows_skipped = 0;
  uint64_t duplicates = 0;
  std::vector<MissingBatches> missing;
  uint64_t manifest_version = 0;
  uint64_t rows_in = 0;
};

struct SeqRange {
  uint64_t first = 0;
  uint64_t count = 0;
  bool operator==(const SeqRange&) const = default;
};

}  // namespace ballast

#endif  // BALLAST_CORE_TYPES_H_
