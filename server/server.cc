#include "server/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/addresses.h"
#include "server/failpoint.h"
#include "server/log.h"
#include "server/machine.h"
#include "server/storage/files.h"
#include "server/storage/rocks_store.h"
#include "version.h"

namespace ballast {
namespace {

constexpr char kClusterName[] = "ballast";  // of the data directory; which cluster it is says the record cluster/id
constexpr char kClusterKey[] = "cluster/id";
constexpr int kGrpcThreadsMax = 64;
constexpr uint64_t kGrpcBaseBytes = 512u << 20;  // of gRPC's memory quota, beside the pushes
constexpr int kLifeRandomBits = 12;              // 2^20 lives are left: session ids have 32 bits for a life (core/coordinator/sessions.h)
constexpr absl::Duration kDrainMax = absl::Seconds(20);

// Services that grpc.health.v1 answers for; unset names are NOT_FOUND there.
const std::vector<std::string>& HealthNames(bool coordinator) {
  static const auto* const kOthers = new std::vector<std::string>{"", "readiness", "ballast.v1.Shard", "grpc.health.v1.Health",
                                                                  "grpc.reflection.v1alpha.ServerReflection"};
  static const auto* const kServer0 = [] {
    auto* names = new std::vector<std::string>(*kOthers);
    names->push_back("ballast.v1.Control");
    return names;
  }();
  return coordinator ? *kServer0 : *kOthers;
}

std::string RandomId() {
  std::random_device device;
  return absl::StrFormat("%08x%08x%08x%08x", device(), device(), device(), device());
}

// What server 0 and the others know this life by: it grows with each, and two processes that count on from copies of one data directory do
// not come to the same number, so that a receipt or an acceptance of one is never taken for the other's.
uint64_t LifeOf(uint64_t incarnation) {
  std::random_device device;
  return incarnation << kLifeRandomBits | (device() & ((1u << kLifeRandomBits) - 1));
}

// Reflection is a plug-in of the process: it cannot be taken away from a second server.
void SetUpProcess(const ServerConfig& config) {
  grpc::EnableDefaultHealthCheckService(true);
  if (config.reflection) grpc::reflection::InitProtoReflectionServerBuilderPlugin();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(ServerConfig config) {
  SetUpProcess(config);
  auto server = std::unique_ptr<Server>(new Server(std::move(config)));
  absl::Status status = server->Open();
  if (status.ok()) status = server->StartMetrics();
  if (status.ok()) status = server->Listen();
  if (status.ok()) status = server->StartRole();
  if (!status.ok()) return status;
  return server;
}

// The port is tried before the directory is touched: a second start of the same command says "port in use" and changes nothing.
absl::Status Server::Open() {
  const auto listen = ParseHostPort(config_.listen);
  if (!listen.ok()) return listen.status();
  if (absl::Status free = CheckCanListen(*listen); !free.ok()) return free;
  if (!IsLoopback(listen->host)) {
    LogWarning("the port is open to whoever reaches it: there is no TLS and no access control yet", {{"listen", config_.listen}});
  }
#ifdef BALLAST_MUTATIONS
  if (!config_.mutate.empty()) {
    if (!Mutate(config_.mutate, rules_))
      return absl::InvalidArgumentError(absl::StrCat("BALLAST_MUTATE: no rule is called \"", config_.mutate, "\""));
    LogWarning("a rule of the protocol is taken away", {{"mutate", config_.mutate}});
  }
#endif
  auto dir = DataDir::Open(config_.dir, {kClusterName, config_.index, config_.servers});
  if (!dir.ok()) return dir.status();
  dir_ = *std::move(dir);
  life_ = LifeOf(dir_->incarnation());
  auto store = OpenRocksStore(dir_->StoreDir(), [this](const absl::Status& failed) { Fatal(failed); });
  if (!store.ok()) return store.status();
  store_ = *std::move(store);
  LogInfo("data directory opened", {{"dir", config_.dir},
                                    {"server", absl::StrCat(config_.index, " of ", config_.servers)},
                                    {"incarnation", absl::StrCat(dir_->incarnation())},
                                    {"life", absl::StrCat(life_)}});
  SetLogCounter([this](bool error) { metrics_.CountLogLine(error); });

  artifacts_ = std::make_unique<Artifacts>(store_.get(), [this](uint64_t bytes) { return opener_->CheckDisk(bytes); });
  runs_ = std::make_unique<RunTable>();
  data_plane_ = std::make_unique<DataPlane>(runs_.get(), &metrics_.data_plane(), config_.index, absl::Seconds(config_.reader_timeout_s));
  RunOpener::Options options;
  options.retain_all = config_.log_retain_all;
  options.incarnation = life_;
  options.queue_bytes_max = config_.queue_bytes;
  options.disk_reserve_bytes = config_.disk_reserve;
  options.rules = rules_;
  opener_ = std::make_unique<RunOpener>(options, dir_.get(), store_.get(), runs_.get(), &metrics_.shard());
  return absl::OkStatus();
}

absl::Status Server::StartMetrics() {
  if (config_.metrics_listen.empty()) return absl::OkStatus();
  auto listen = ParseHostPort(config_.metrics_listen);
  if (!listen.ok()) return listen.status();
  if (absl::Status free = CheckCanListen(*listen); !free.ok()) return free;
  try {  // the one library here that throws
    exposer_ = std::make_unique<prometheus::Exposer>(config_.metrics_listen, 1);
    exposer_->RegisterCollectable(metrics_.registry());
    listen->port = exposer_->GetListeningPorts().at(0);
  } catch (const std::exception& error) {
    return absl::UnavailableError(absl::StrCat("cannot serve metrics on ", config_.metrics_listen, ": ", error.what()));
  }
  if (IsWildcard(listen->host)) listen->host = Hostname();
  metrics_address_ = listen->Text();
  return absl::OkStatus();
}

absl::Status Server::Listen() {
  BALLAST_FAILPOINT_STATUS("listen-begin");
  auto listen = ParseHostPort(config_.listen);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(listen->Text(), grpc::InsecureServerCredentials(), &port);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // else a second server would silently share the port
  builder.SetMaxReceiveMessageSize(kMessageBytesMax);
  // Inflating knows no bound. Without the algorithms a caller is told so, without the filter nothing is inflated before that.
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  builder.AddChannelArgument(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 20000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20000);
  grpc::ResourceQuota quota("ballast");
  quota.Resize(config_.queue_bytes + kGrpcBaseBytes);
  quota.SetMaxThreads(kGrpcThreadsMax);
  builder.SetResourceQuota(quota);
  data_plane_->Register(builder);
  // Every other server is registered without Control: its callers learn UNIMPLEMENTED and ask server 0.
  if (config_.index == 0) {
    const auto cluster = ClusterId();
    if (!cluster.ok()) return cluster.status();
    Runner::Options options;
    options.servers = config_.servers;
    options.incarnation = life_;
    options.cluster_id = *cluster;
    options.self.set_incarnation(life_);
    options.self.set_release(kVersion);
    options.self.set_metrics_address(metrics_address_);
    options.rules = rules_;
    options.recovery_target_s = config_.recovery_target_s;
    options.log_target = config_.log_target;
    options.machine = [this] {
      return Machine{FreeMemory(), RunShardOptions().staged_bytes_max, config_.recovery_target_s,
                     [this] { return DiskBytesPerSecond(config_.dir); }};
    };
    options.fatal = [this](const absl::Status& status) { Fatal(status); };
    options.has_artifact = [this](const std::string& sha256) { return artifacts_->Has(sha256); };
    runner_ = std::make_unique<Runner>(std::move(options), store_.get(), opener_.get(), &metrics_.coordinator());
    control_ = std::make_unique<ControlService>(runner_.get(), artifacts_.get(), runs_.get(), config_.trust_models);
    builder.RegisterService(control_.get());
  }
  grpc_server_ = builder.BuildAndStart();
  if (grpc_server_ == nullptr || port == 0) return absl::UnavailableError(absl::StrCat("cannot listen on ", config_.listen));
  SetServing(false);
  data_plane_->Start();
  BALLAST_FAILPOINT_STATUS("listen-done");

  listen->port = port;
  address_ = listen->Text();
  return absl::OkStatus();
}

absl::StatusOr<std::string> Server::ClusterId() {
  auto id = store_->Get(kClusterKey);
  if (!absl::IsNotFound(id.status())) return id;
  const std::string made = RandomId();
  if (absl::Status put = store_->Put(kClusterKey, made); !put.ok()) return put;
  return made;
}

absl::Status Server::StartRole() {
  HostPort advertised = *ParseHostPort(address_);
  if (IsWildcard(advertised.host)) advertised.host = Hostname();
  const std::string advertise = config_.advertise.empty() ? advertised.Text() : config_.advertise;
  LogInfo("listening", {{"address", address_}, {"advertised", advertise}, {"metrics", metrics_address_}});
  if (config_.index == 0) {
    runner_->SetAddress(advertise);
    if (absl::Status recovered = runner_->Recover(); !recovered.ok()) return recovered;
    OnReady();
    return absl::OkStatus();
  }
  Follower::Options options;
  options.coordinator = config_.coordinator;
  options.index = config_.index;
  options.servers = config_.servers;
  options.incarnation = life_;
  options.address = advertise;
  options.metrics_address = metrics_address_;
  options.ready = [this] { OnReady(); };
  options.fatal = [this](const absl::Status& status) { Fatal(status); };
  follower_ = std::make_unique<Follower>(std::move(options), store_.get(), opener_.get(), runs_.get());
  follower_->Start();
  return absl::OkStatus();
}

void Server::SetServing(bool serving) {
  grpc::HealthCheckServiceInterface* const health = grpc_server_->GetHealthCheckService();
  health->SetServingStatus("liveness", true);
  for (const std::string& name : HealthNames(config_.index == 0)) health->SetServingStatus(name, serving);
}

void Server::OnReady() {
  BALLAST_FAILPOINT("serve-begin");
  SetServing(true);
  LogInfo("serving", {{"address", address_}});
  if (config_.ready_file.empty()) return;
  const nlohmann::json ready = {{"address", address_}, {"metrics_address", metrics_address_}, {"pid", getpid()}};
  if (absl::Status written = WriteFileAtomically(config_.ready_file, ready.dump() + "\n"); !written.ok()) Fatal(written);
}

void Server::Fatal(const absl::Status& status) {
  LogError("the server must stop", {{"reason", status.ToString()}});
  if (runner_ != nullptr) runner_->AbandonDrain();
  absl::MutexLock lock(&mu_);
  if (fatal_.ok()) fatal_ = status;
  if (!std::exchange(done_said_, true)) done_.Notify();
}

void Server::RequestStop() {
  absl::MutexLock lock(&mu_);
  if (!std::exchange(done_said_, true)) done_.Notify();
}

absl::Status Server::Wait() {
  done_.WaitForNotification();
  absl::MutexLock lock(&mu_);
  return fatal_;
}

absl::Status Server::Drain() {
  LogInfo("stopping: closing sessions, taking checkpoints");
  SetServing(false);
  if (runner_ != nullptr) runner_->Drain(kDrainMax);
  absl::MutexLock lock(&mu_);
  return fatal_;
}

// gRPC first, so that nobody calls in; then the threads that use the shards; the shards; what they call back.
void Server::StopServing() {
  if (runner_ != nullptr) runner_->FailPending();
  if (grpc_server_ != nullptr) grpc_server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(500));
  if (data_plane_ != nullptr) data_plane_->Stop();
  if (follower_ != nullptr) follower_->Stop();
  control_.reset();
  if (runner_ != nullptr) runner_->Stop();
  runs_.reset();
  grpc_server_.reset();
}

Server::~Server() {
  StopServing();
  SetLogCounter(nullptr);
}

}  // namespace ballast
