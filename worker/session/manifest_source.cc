#include "worker/session/manifest_source.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ballast/v1/shard.grpc.pb.h"
#include "core/record/chunk.h"
#include "core/record/hash.h"
#include "proto/convert.h"
#include "proto/status.h"
#include "worker/model/safetensors.h"
#include "worker/session/chunk_values.h"

namespace ballast {
namespace {

constexpr std::chrono::seconds kCallLimit(10);
constexpr std::chrono::minutes kPullLimit(5);

void SetDeadline(grpc::ClientContext* context, std::chrono::system_clock::duration limit) {
  context->set_deadline(std::chrono::system_clock::now() + limit);
}

absl::StatusOr<RunDefinition> FindRun(Cluster* cluster, const std::string& run) {
  grpc::ClientContext context;
  SetDeadline(&context, kCallLimit);
  v1::RunFilter filter;
  filter.set_name(run);
  filter.set_layout(true);
  filter.set_spec_tensors(true);
  v1::RunList runs;
  const grpc::Status status = v1::Control::NewStub(cluster->control())->ListRuns(&context, filter, &runs);
  if (!status.ok()) return FromGrpc(status);
  if (runs.runs().empty()) return absl::NotFoundError(absl::StrCat("there is no run ", run));
  return FromProto(runs.runs(0));
}

// A checkpoint travels exactly: fp32 and I64.
absl::Status PullShard(Cluster* cluster, uint32_t shard, const RunDefinition& run, uint64_t version, ParameterStore* store) {
  auto channel = cluster->Shard(shard);
  if (!channel.ok()) return channel.status();
  grpc::ClientContext context;
  SetDeadline(&context, kPullLimit);
  const auto stub = v1::Shard::NewStub(*channel);
  const auto stream = stub->Pull(&context);
  v1::Want want;
  want.set_run(run.spec.name);
  want.set_generation(run.generation);
  want.set_number(1);
  want.set_codec(v1::CODEC_FP32);
  want.set_manifest(version);
  size_t left =
      static_cast<size_t>(std::count_if(run.layout.begin(), run.layout.end(), [shard](const Block& b) { return b.shard == shard; }));
  absl::Status status;
  bool last = !stream->Write(want);
  v1::Chunk chunk;
  while (!last && status.ok() && stream->Read(&chunk)) {
    const std::string bytes = chunk.SerializeAsString();
    const absl::StatusOr<ChunkView> view = ParseChunk(bytes);
    status = view.ok() ? ReadValues(*view, run.spec.tensors, store) : view.status();
    left -= std::min<size_t>(left, static_cast<size_t>(chunk.blocks_size()));
    last = chunk.last();
  }
  if (!last || !status.ok()) context.TryCancel();
  stream->WritesDone();
  const grpc::Status end = stream->Finish();
  if (!status.ok()) return absl::DataLossError(absl::StrCat("server ", shard, ": ", std::string(status.message())));
  if (!end.ok() && !(last && left == 0)) return FromGrpc(end);
  if (left > 0)
    return absl::DataLossError(
        absl::StrCat("server ", shard, " left out ", left, " blocks of version ", version, " of run ", run.spec.name));
  return absl::OkStatus();
}

absl::Status CopyByName(const ModelParts& from, const RunSpec& spec, ParameterStore* out) {
  std::map<std::string, size_t> index;
  for (size_t i = 0; i < from.tensors.size(); ++i) index[from.tensors[i].name] = i;
  for (size_t i = 0; i < spec.tensors.size(); ++i) {
    const TensorSpec& tensor = spec.tensors[i];
    const auto it = index.find(tensor.name);
    if (it == index.end() || from.tensors[it->second].shape != tensor.shape || from.tensors[it->second].dtype != tensor.dtype) {
      return absl::InvalidArgumentError(absl::StrCat("run ", spec.init.run, " has no tensor ", tensor.name, " of the same shape"));
    }
    if (tensor.dtype == DType::kI64) {
      const absl::Span<const int64_t> values = from.values->I64(it->second);
      std::copy(values.begin(), values.end(), out->I64(i).begin());
    } else {
      const absl::Span<const float> values = from.values->F32(it->second);
      std::copy(values.begin(), values.end(), out->F32(i).begin());
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<ManifestKey>> ManifestSource::Manifests(const std::string& run) {
  grpc::ClientContext context;
  SetDeadline(&context, kCallLimit);
  v1::RunRef ref;
  ref.set_run(run);
  v1::ManifestList list;
  const grpc::Status status = v1::Control::NewStub(cluster_->control())->ListManifests(&context, ref, &list);
  if (!status.ok()) return FromGrpc(status);
  std::vector<ManifestKey> manifests;
  for (const v1::Manifest& manifest : list.manifests()) {
    Hasher identity;
    identity.AddU64(manifest.generation()).AddU64(manifest.chain()).AddU64(static_cast<uint64_t>(manifest.created_unix_ms()));
    manifests.push_back({manifest.version(), identity.Value()});
  }
  return manifests;
}

absl::StatusOr<ModelParts> ManifestSource::Fetch(const std::string& run, uint64_t version) {
  absl::StatusOr<RunDefinition> definition = FindRun(cluster_, run);
  if (!definition.ok()) return definition.status();
  absl::StatusOr<std::string> archive = files_->Get(definition->spec.model_sha256);
  if (!archive.ok()) return archive.status();
  auto values = std::make_shared<ParameterStore>(definition->spec.tensors);
  uint32_t shards = 0;
  for (const Block& block : definition->layout) shards = std::max(shards, block.shard + 1);
  for (uint32_t shard = 0; shard < shards; ++shard) {
    if (absl::Status status = PullShard(cluster_, shard, *definition, version, values.get()); !status.ok()) return status;
  }
  return ModelParts{*std::move(archive), std::move(definition->spec.tensors), std::move(values)};
}

absl::Status InitialValues(const RunSpec& spec, const Model& model, ModelFiles* files, ModelSource* source, ParameterStore* out) {
  if (!spec.init.weights_sha256.empty()) {
    const absl::StatusOr<std::string> file = files->Get(spec.init.weights_sha256);
    return file.ok() ? LoadSafetensors(*file, spec.tensors, out) : file.status();
  }
  if (spec.init.run.empty()) return model.InitialValues(out);
  uint64_t version = spec.init.version;
  if (version == 0) {
    const absl::StatusOr<std::vector<ManifestKey>> manifests = source->Manifests(spec.init.run);
    if (!manifests.ok()) return manifests.status();
    if (manifests->empty()) return absl::FailedPreconditionError(absl::StrCat("run ", spec.init.run, " has no checkpoint to start from"));
    version = manifests->front().version;
  }
  const absl::StatusOr<ModelParts> parts = source->Fetch(spec.init.run, version);
  return parts.ok() ? CopyByName(*parts, spec, out) : parts.status();
}

}  // namespace ballast
