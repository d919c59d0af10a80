#include "server/coordinator/plan.h"

#include <google/protobuf/util/message_differencer.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/codec/codec.h"
#include "core/layout/layout.h"
#include "core/optimizer/optimizer.h"
#include "core/status.h"

namespace ballast {
namespace {

std::string Megabytes(uint64_t bytes) { return absl::StrFormat("%.2f MB", static_cast<double>(bytes) * 1e-6); }

constexpr uint64_t kLargeBytes = 64u << 20;  // of a contribution on one server: its disk is worth a look

// Of the server that has most of it.
struct Share {
  uint64_t memory = 0;  // weights, slots, and the weights encoded for readers
  uint64_t pushed = 0;  // of one contribution
};

Share LargestShare(const RunDefinition& run, uint32_t servers) {
  std::vector<Share> shares(servers);
  Share most;
  for (const Block& block : run.layout) {
    if (block.shard >= servers) continue;
    const TensorSpec& tensor = run.spec.tensors[block.tensor];
    const uint64_t bytes = block.count * ElementBytes(tensor.dtype);
    Share& share = shares[block.shard];
    share.memory += bytes * (2 + (tensor.rule == UpdateRule::kOpt ? SlotsOf(run.spec.optimizer) : 0));
    share.pushed += EncodedBytes(PushCodecOf(run.spec, tensor), block.count);
    most.memory = std::max(most.memory, share.memory);
    most.pushed = std::max(most.pushed, share.pushed);
  }
  return most;
}

absl::Status Impossible(const RunDefinition& run, const std::string& why) {
  return WithReason(absl::FailedPreconditionError(absl::StrCat("run \"", run.spec.name, "\" cannot work here: ", why)), "PLAN_IMPOSSIBLE",
                    {{"run", run.spec.name}});
}

constexpr size_t kDifferenceBytesMax = 200;  // of one line: a changed model description is long

}  // namespace

uint64_t StateBytes(const RunSpec& spec) {
  uint64_t bytes = 0;
  for (const TensorSpec& tensor : spec.tensors) {
    bytes += tensor.Elements() * ElementBytes(tensor.dtype) * (tensor.rule == UpdateRule::kOpt ? 1 + SlotsOf(spec.optimizer) : 1);
  }
  return bytes;
}

std::vector<std::string> PlanLines(const RunDefinition& run, uint32_t servers) {
  const RunSpec& spec = run.spec;
  uint64_t pushed = 0, exact = 0, values = 0;
  const uint64_t memory = StateBytes(spec);
  std::vector<uint64_t> held(servers, 0);
  for (const Block& block : run.layout) {
    const TensorSpec& tensor = spec.tensors[block.tensor];
    const uint64_t bytes = block.count * ElementBytes(tensor.dtype);
    pushed += EncodedBytes(PushCodecOf(spec, tensor), block.count);
    exact += bytes;
    values += bytes;
    if (block.shard < servers) held[block.shard] += bytes;
  }
  const auto [least, most] = std::minmax_element(held.begin(), held.end());
  std::vector<std::string> lines;
  lines.push_back(absl::StrFormat("layout: %d blocks of %d tensors, %s over %d server(s); one server holds %s to %s", run.layout.size(),
                                  spec.tensors.size(), Megabytes(values), servers, Megabytes(*least), Megabytes(*most)));
  if (spec.durability == Durability::kLog) {
    lines.push_back(
        absl::StrFormat("log: %s for each contribution (%s uncompressed), on all servers together", Megabytes(pushed), Megabytes(exact)));
  } else {
    lines.push_back("log: no contributions; a crash of any server takes the run back to its newest checkpoint");
  }
  lines.push_back(absl::StrFormat("memory: %s of weights and optimizer state on all servers together", Megabytes(memory)));
  std::string interval = spec.checkpoint_versions > 0 ? absl::StrCat("every ", spec.checkpoint_versions, " versions") : "";
  if (spec.checkpoint_seconds > 0)
    absl::StrAppend(&interval, interval.empty() ? "" : " or ", "every ", spec.checkpoint_seconds, " seconds");
  lines.push_back(absl::StrFormat("checkpoints: %s%sat the end of each epoch; %s each, two are kept", interval,
                                  interval.empty() ? "" : " and ", Megabytes(memory)));
  return lines;
}

absl::Status CheckPlan(const RunDefinition& run, uint32_t servers, const Machine& machine) {
  const Share share = LargestShare(run, servers);
  if (share.memory > machine.free_memory) {
    return Impossible(run, absl::StrCat("one server needs ", Megabytes(share.memory), " of memory for its weights and optimizer state, ",
                                        Megabytes(machine.free_memory), " are free. Use more servers, or more memory"));
  }
  if (share.pushed > machine.staged_bytes_max / kInFlightMax) {
    return Impossible(
        run, absl::StrCat("one contribution is ", Megabytes(share.pushed), " on one server, which takes ", kInFlightMax,
                          " of a session and ", Megabytes(machine.staged_bytes_max), " in all. Use more servers, or codec \"int8\""));
  }
  if (share.pushed < kLargeBytes || machine.recovery_target_s <= 0 || run.spec.durability != Durability::kLog) return absl::OkStatus();
  const double speed = machine.disk_bytes_per_s ? machine.disk_bytes_per_s() : 0;
  const double seconds = speed > 0 ? static_cast<double>(share.pushed) / speed : 0;
  if (seconds <= machine.recovery_target_s) return absl::OkStatus();
  return Impossible(
      run, absl::StrFormat("one contribution is %s on one server, whose disk takes %.0f MB/s: logging it takes %.0f s, and a restart "
                           "that reads it more than the %.0f s of --recovery-target. Use more servers, codec \"int8\", or "
                           "durability \"checkpoint\"",
                           Megabytes(share.pushed), speed * 1e-6, seconds, machine.recovery_target_s));
}

std::vector<std::string> SpecDifferences(const RunSpec& before, const RunSpec& after, size_t lines_max) {
  std::string report;
  google::protobuf::util::MessageDifferencer differencer;
  differencer.ReportDifferencesToString(&report);
  (void)differencer.Compare(ToProto(before), ToProto(after));
  std::vector<std::string> lines;
  size_t more = 0;
  for (absl::string_view line : absl::StrSplit(report, '\n', absl::SkipEmpty())) {
    if (lines.size() == lines_max) {
      ++more;
      continue;
    }
    absl::ConsumePrefix(&line, "modified: ");
    lines.push_back(line.size() > kDifferenceBytesMax ? absl::StrCat(line.substr(0, kDifferenceBytesMax), "...") : std::string(line));
  }
  if (more > 0) lines.push_back(absl::StrCat("and ", more, " more"));
  return lines;
}

}  // namespace ballast
