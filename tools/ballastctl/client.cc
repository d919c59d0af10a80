#include "tools/ballastctl/client.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/support/channel_arguments.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/types.h"
#include "proto/status.h"
#include "tools/ballastctl/dev_cluster.h"

namespace ballast::ctl {
namespace {

constexpr auto kCallTimeout = std::chrono::seconds(30);
constexpr auto kCheckpointTimeout = std::chrono::minutes(10);

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address) {
  grpc::ChannelArguments args;
  args.SetMaxReceiveMessageSize(static_cast<int>(kMessageBytesMax));
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), args);
}

void SetDeadline(grpc::ClientContext& context, std::chrono::milliseconds timeout) {
  context.set_deadline(std::chrono::system_clock::now() + timeout);
}

template <typename Response, typename Call>
absl::StatusOr<Response> Unary(std::chrono::milliseconds timeout, Call call) {
  grpc::ClientContext context;
  SetDeadline(context, timeout);
  Response response;
  const grpc::Status status = call(&context, &response);
  if (!status.ok()) return FromGrpc(status);
  return response;
}

absl::Status CheckBlock(const v1::Run& run, uint32_t server, const v1::BlockHead& head, absl::string_view bytes) {
  if (XXH3_64bits(bytes.data(), bytes.size()) == head.checksum()) return absl::OkStatus();
  const int tensors = run.spec().tensors_size();
  const std::string name = tensors > 0 ? run.spec().tensors(static_cast<int>(head.tensor()) % tensors).name() : absl::StrCat(head.tensor());
  return absl::DataLossError(absl::StrCat("server ", server, ": tensor ", name, ", block at element ", head.first(), ": checksum differs"));
}

absl::Status VisitChunk(const v1::Run& run, uint32_t server, const v1::Chunk& chunk, const Client::BlockVisitor& visit) {
  absl::string_view payload = chunk.payload();
  for (const v1::BlockHead& head : chunk.blocks()) {
    if (head.bytes() > payload.size())
      return absl::DataLossError(absl::StrCat("server ", server, ": a chunk's payload ends inside a block"));
    const absl::string_view bytes = payload.substr(0, head.bytes());
    payload.remove_prefix(head.bytes());
    if (absl::Status s = CheckBlock(run, server, head, bytes); !s.ok()) return s;
    if (absl::Status s = visit(server, head, bytes); !s.ok()) return s;
  }
  return absl::OkStatus();
}

}  // namespace

Client::Client(std::string address, std::shared_ptr<grpc::Channel> channel)
    : address_(std::move(address)), control_(v1::Control::NewStub(channel)) {}

absl::StatusOr<Client> Client::Connect(std::string address, std::chrono::milliseconds timeout) {
  if (address.empty()) {
    if (const char* env = std::getenv("BALLAST_SERVER")) address = env;
  }
  if (address.empty()) address = DevServerAddress();
  if (address.empty()) {
    return absl::InvalidArgumentError(
        "no server: give --server HOST:PORT, set BALLAST_SERVER, or start a local cluster with `ballastctl dev up`");
  }
  auto channel = MakeChannel(address);
  if (!channel->WaitForConnected(std::chrono::system_clock::now() + timeout)) {
    return absl::UnavailableError(
        absl::StrCat("no server answers at ", address, " (waited ", timeout.count(), " ms; --timeout changes it)"));
  }
  return Client(std::move(address), std::move(channel));
}

absl::StatusOr<v1::RunList> Client::ListRuns(const v1::RunFilter& filter) {
  return Unary<v1::RunList>(kCallTimeout, [&](auto* context, auto* response) { return control_->ListRuns(context, filter, response); });
}

absl::StatusOr<v1::Run> Client::GetRun(const std::string& run) {
  v1::RunFilter filter;
  filter.set_name(run);
  filter.set_layout(true);
  filter.set_spec_tensors(true);
  auto list = ListRuns(filter);
  if (list.ok() && list->runs_size() == 1) return list->runs(0);
  if (!list.ok() && !absl::IsNotFound(list.status())) return list.status();
  auto all = ListRuns({});
  std::vector<std::string> names;
  if (all.ok()) {
    for (const v1::Run& r : all->runs()) names.push_back(r.spec().name());
  }
  return absl::NotFoundError(absl::StrCat("no run named \"", run, "\" at ", address_,
                                          names.empty() ? "; there are no runs" : "; runs: ", absl::StrJoin(names, ", ")));
}

absl::StatusOr<v1::Run> Client::StopRun(const std::string& run, const std::string& reason) {
  v1::StopRequest request;
  request.set_run(run);
  request.set_reason(reason);
  return Unary<v1::Run>(kCallTimeout, [&](auto* context, auto* response) { return control_->StopRun(context, request, response); });
}

absl::StatusOr<v1::Run> Client::DeleteRun(const std::string& run) {
  v1::RunRef request;
  request.set_run(run);
  return Unary<v1::Run>(kCallTimeout, [&](auto* context, auto* response) { return control_->DeleteRun(context, request, response); });
}

absl::StatusOr<v1::Run> Client::Rollback(const std::string& run, uint64_t version) {
  v1::ManifestRef request;
  request.set_run(run);
  request.set_version(version);
  return Unary<v1::Run>(kCheckpointTimeout, [&](auto* context, auto* response) { return control_->Rollback(context, request, response); });
}

absl::StatusOr<v1::Manifest> Client::Checkpoint(const std::string& run) {
  v1::RunRef request;
  request.set_run(run);
  return Unary<v1::Manifest>(kCheckpointTimeout,
                             [&](auto* context, auto* response) { return control_->Checkpoint(context, request, response); });
}

absl::StatusOr<v1::ManifestList> Client::ListManifests(const std::string& run) {
  v1::RunRef request;
  request.set_run(run);
  return Unary<v1::ManifestList>(kCallTimeout,
                                 [&](auto* context, auto* response) { return control_->ListManifests(context, request, response); });
}

absl::StatusOr<v1::ClusterState> Client::Cluster() {
  return Unary<v1::ClusterState>(kCallTimeout,
                                 [&](auto* context, auto* response) { return control_->Cluster(context, v1::ClusterRequest(), response); });
}

absl::Status Client::ListDecisions(const v1::DecisionRange& range, const std::function<void(const v1::Decision&)>& visit) {
  grpc::ClientContext context;
  SetDeadline(context, kCheckpointTimeout);
  auto reader = control_->ListDecisions(&context, range);
  v1::Decision decision;
  while (reader->Read(&decision)) visit(decision);
  return FromGrpc(reader->Finish());
}

absl::Status Client::ReadManifest(const v1::Run& run, uint64_t version, bool slots, const BlockVisitor& visit) {
  auto cluster = Cluster();
  if (!cluster.ok()) return cluster.status();
  for (uint32_t server = 0; server < cluster->servers_expected(); ++server) {
    const auto info =
        std::find_if(cluster->servers().begin(), cluster->servers().end(), [&](const auto& s) { return s.index() == server; });
    if (info == cluster->servers().end() || info->address().empty()) {
      return absl::UnavailableError(absl::StrCat("server ", server, " is not connected: its part of the checkpoint cannot be read"));
    }
    auto stub = v1::Shard::NewStub(MakeChannel(info->address()));
    grpc::ClientContext context;
    SetDeadline(context, kCheckpointTimeout);
    auto stream = stub->Pull(&context);
    v1::Want want;
    want.set_run(run.spec().name());
    want.set_generation(run.generation());
    want.set_number(1);
    want.set_manifest(version);
    want.set_codec(v1::CODEC_FP32);
    want.set_slots(slots);
    stream->Write(want);
    stream->WritesDone();
    v1::Chunk chunk;
    bool complete = false;
    absl::Status failed;
    while (failed.ok() && !complete && stream->Read(&chunk)) {
      failed = VisitChunk(run, server, chunk, visit);
      complete = chunk.last();
    }
    if (!failed.ok() || complete) context.TryCancel();
    const grpc::Status status = stream->Finish();
    if (!failed.ok()) return failed;
    if (!complete && !status.ok()) return FromGrpc(status);
    if (!complete) return absl::DataLossError(absl::StrCat("server ", server, " ended its answer early"));
  }
  return absl::OkStatus();
}

absl::StatusOr<RunVersion> ParseRunVersion(const std::string& text) {
  RunVersion out{text, 0};
  const size_t at = text.rfind('@');
  if (at == std::string::npos) return out;
  out.run = text.substr(0, at);
  if (!absl::SimpleAtoi(text.substr(at + 1), &out.version) || out.version == 0 || out.run.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("\"", text, "\": expected RUN or RUN@VERSION, e.g. demo@1842"));
  }
  return out;
}

}  // namespace ballast::ctl
