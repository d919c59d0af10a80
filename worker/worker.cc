#include "worker/worker.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <prometheus/exposer.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "ballast/v1/control.grpc.pb.h"
#include "steady.h"
#include "version.h"
#include "worker/feed/feed_queue.h"
#include "worker/feed/worker_service.h"
#include "worker/metrics.h"
#include "worker/model/model.h"
#include "worker/serve/inference_service.h"
#include "worker/serve/model_cache.h"
#include "worker/session/cluster.h"
#include "worker/session/duplex_stream.h"
#include "worker/session/mailbox.h"
#include "worker/session/manifest_source.h"
#include "worker/session/model_files.h"
#include "worker/session/session.h"

namespace ballast {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(200);
constexpr absl::Duration kAttachAgain = absl::Milliseconds(500);
constexpr absl::Duration kLogEvery = absl::Seconds(5);
constexpr absl::Duration kUnservedMax = absl::Seconds(30);  // a feed waits so long for a session of its run
// A run that leaves the list may be back soon (next epoch, restarted coordinator): its session keeps model, values and residual meanwhile.
constexpr absl::Duration kLinger = absl::Seconds(10);
constexpr absl::Duration kAwayMax = absl::Minutes(10);    // further, while server 0 cannot be reached
constexpr absl::Duration kAudit = absl::Minutes(10);      // the residuals of an ended session can be read for so long
constexpr absl::Duration kServeAgain = absl::Seconds(2);  // after a session ended
constexpr size_t kRunsMax = 1024;                         // with feeds or a session
constexpr uint64_t kModelDirBytesMax = uint64_t{16} << 30;
constexpr absl::Duration kDrain = absl::Seconds(2);

using AttachStream = DuplexStream<v1::WorkerUp, v1::WorkerDown>;

std::string HostName() {
  char name[256] = "";
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "localhost";
}

std::string HostOf(const std::string& address) { return address.substr(0, address.rfind(':')); }

bool IsAnyHost(const std::string& host) { return host == "0.0.0.0" || host == "[::]" || host.empty(); }

class WorkerImpl final : public Worker, WorkerRuns {
 public:
  explicit WorkerImpl(WorkerConfig config)
      : config_(WithDefaults(std::move(config))),
        cluster_(config_.server),
        files_((std::filesystem::path(config_.dir) / "models").string(), kModelDirBytesMax, &cluster_),
        source_(std::make_shared<ManifestSource>(&cluster_, &files_)),
        control_(v1::Control::NewStub(cluster_.control())),
        mailbox_(std::make_shared<Mailbox>()) {
    SetLogCounter([this](bool error) { metrics_.CountLogLine(error); });
    ModelCacheOptions cache;
    cache.bytes_max = config_.model_cache_bytes;
    InferenceOptions inference;
    inference.server_version = kVersion;
    InferenceProbe probe;
    probe.on_infer = [this](double seconds, int64_t rows, bool ok) {
      metrics_.Inferred(seconds, static_cast<uint64_t>(std::max<int64_t>(rows, 0)), ok);
    };
    inference_ = std::make_unique<InferenceService>(inference, std::make_shared<ModelCache>(cache, source_), std::move(probe));
    feeds_ = MakeWorkerService(this, &metrics_);
  }

  ~WorkerImpl() override {
    Stop();
    SetLogCounter(nullptr);
  }

  absl::Status Listen() {
    if (absl::Status status = ListenForMetrics(); !status.ok()) return status;
    grpc::EnableDefaultHealthCheckService(true);
    if (config_.reflection) grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(config_.listen, grpc::InsecureServerCredentials(), &port);
    builder.SetMaxReceiveMessageSize(std::max(kInferenceMessageBytesMax, kFeedMessageBytesMax));
    builder.SetMaxSendMessageSize(kInferenceMessageBytesMax);
    // As on the servers: inflating knows no bound.
    builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
    builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
    builder.AddChannelArgument(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0);
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 30'000);
    builder.RegisterService(feeds_.get());
    builder.RegisterService(inference_.get());
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port == 0)
      return absl::UnavailableError(absl::StrCat("cannot listen on ", config_.listen, ": is the port in use?"));
    if (!config_.advertise.empty()) {
      address_ = config_.advertise;
    } else {
      const std::string host = HostOf(config_.listen);
      address_ = absl::StrCat(IsAnyHost(host) ? HostName() : host, ":", port);
    }
    SetHealth(true);
    return absl::OkStatus();
  }

  void Run() {
    manager_ = std::thread([this] { Manage(); });
  }

  const std::string& address() const override { return address_; }
  const std::string& metrics_address() const override { return metrics_address_; }

  void Stop() override {
    if (server_ == nullptr) return;
    SetHealth(false);
    {
      absl::MutexLock lock(&mu_);
      stopping_ = true;
    }
    if (manager_.joinable()) {
      mailbox_->Post([this] { stop_ = true; });
      manager_.join();
    }
    mailbox_->Close();
    server_->Shutdown(std::chrono::system_clock::now() + absl::ToChronoSeconds(kDrain));
    inference_->Stop();
    server_->Wait();
    server_ = nullptr;
    exposer_ = nullptr;
  }

  // ---- WorkerRuns, gRPC's threads
  absl::StatusOr<std::shared_ptr<FeedQueue>> QueueOf(const std::string& run) override {
    absl::MutexLock lock(&mu_);
    if (stopping_) return absl::UnavailableError(absl::StrCat("worker ", config_.name, " stops"));
    if (runs_.count(run) == 0 && runs_.size() >= kRunsMax)
      return absl::ResourceExhaustedError(absl::StrCat("this worker has ", kRunsMax, " runs"));
    Entry& entry = runs_[run];
    if (entry.queue == nullptr) entry.queue = std::make_shared<FeedQueue>(run, config_.feed_bytes);
    return entry.queue;
  }

  absl::StatusOr<std::unique_ptr<ResidualReader>> ResidualsOf(const std::string& run) override {
    absl::MutexLock lock(&mu_);
    const auto it = runs_.find(run);
    if (it == runs_.end()) return absl::NotFoundError(absl::StrCat("worker ", config_.name, " has no session of run ", run));
    auto residuals = it->second.session == nullptr ? it->second.residuals : it->second.session->residuals();
    if (residuals == nullptr) return absl::NotFoundError(absl::StrCat("the session of run ", run, " is not open yet"));
    return MakeResidualReader(std::move(residuals));
  }

 private:
  struct Entry {
    std::shared_ptr<FeedQueue> queue;
    std::shared_ptr<Session> session;                   // manager thread starts and stops it
    std::shared_ptr<const SessionResiduals> residuals;  // of the last session, for audits
    absl::Time residuals_until = absl::InfiniteFuture();
    absl::Time wanted_until = absl::InfinitePast();  // by the list of server 0, lingering included
    absl::Time not_before = absl::InfinitePast();    // no new session earlier
  };

  static WorkerConfig WithDefaults(WorkerConfig config) {
    if (config.name.empty()) config.name = absl::StrCat(HostName(), ":", getpid());
    if (config.dir.empty()) {
      std::error_code error;
      config.dir = (std::filesystem::temp_directory_path(error) / absl::StrCat("ballast-worker-", getuid())).string();
    }
    if (config.threads == 0) config.threads = std::max(1u, std::thread::hardware_concurrency());
    return config;
  }

  absl::Status ListenForMetrics() {
    if (config_.metrics_listen.empty()) return absl::OkStatus();
    try {
      exposer_ = std::make_unique<prometheus::Exposer>(config_.metrics_listen, 1);
      exposer_->RegisterCollectable(metrics_.registry());
    } catch (const std::exception& error) {
      return absl::UnavailableError(
          absl::StrCat("cannot serve metrics on ", config_.metrics_listen, ": is the port in use? (", error.what(), ")"));
    }
    const std::string host = HostOf(config_.metrics_listen);
    metrics_address_ = absl::StrCat(IsAnyHost(host) ? HostName() : host, ":", exposer_->GetListeningPorts().front());
    return absl::OkStatus();
  }

  void SetHealth(bool serving) {
    grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
    if (health == nullptr) return;
    for (const char* name : {"", "liveness", "readiness", "ballast.v1.Worker", "inference.GRPCInferenceService"})
      health->SetServingStatus(name, serving);
  }

  // ---- manager thread
  void Manage() {
    absl::Time next_tick = SteadyNow();
    while (!stop_) {
      for (const std::function<void()>& closure : mailbox_->Take(next_tick)) closure();
      if (SteadyNow() < next_tick) continue;
      next_tick = SteadyNow() + kTick;
      if (attach_ == nullptr && SteadyNow() >= attach_at_) Attach();
      ServeRuns();
      CheckFeeds();
    }
    if (attach_ != nullptr) attach_->Close(/*now=*/false);  // no feed is placed here any more
    StopSessions();
  }

  void Attach() {
    const uint64_t number = ++attach_number_;
    const auto mailbox = mailbox_;
    AttachStream::Callbacks callbacks;
    callbacks.on_message = [this, mailbox, number](v1::WorkerDown down) {
      mailbox->Post([this, number, down = std::move(down)] { OnDown(number, down); });
    };
    callbacks.on_done = [this, mailbox, number](const grpc::Status& status) {
      mailbox->Post([this, number, status] { OnAttachDone(number, status); });
    };
    attach_ = AttachStream::Start([this](grpc::ClientContext* context, auto* reactor) { control_->async()->Attach(context, reactor); },
                                  std::move(callbacks));
    v1::WorkerUp up = FeedCounts();
    up.mutable_hello()->set_protocol(kProtocol);
    up.mutable_hello()->set_release(kVersion);
    up.set_name(config_.name);
    up.set_address(address_);
    up.set_metrics_address(metrics_address_);
    up.set_threads(config_.threads);
    attach_->Send(std::move(up));
  }

  void OnAttachDone(uint64_t number, const grpc::Status& status) {
    if (number != attach_number_) return;
    attach_ = nullptr;
    attach_at_ = SteadyNow() + kAttachAgain;
    if (SteadyNow() - attach_log_ < kLogEvery) return;
    attach_log_ = SteadyNow();
    LogWarning("not attached to server 0; trying again", {{"server", config_.server}, {"error", status.error_message()}});
  }

  void OnDown(uint64_t number, const v1::WorkerDown& down) {
    if (number != attach_number_) return;
    if (down.has_hello()) {
      if (down.hello().protocol() != kProtocol) {
        LogError("server 0 speaks another protocol: install the same major release everywhere",
                 {{"server_protocol", absl::StrCat(down.hello().protocol())},
                  {"server_release", down.hello().release()},
                  {"release", kVersion}});
        return;
      }
      LogInfo("attached", {{"server", config_.server}, {"address", address_}, {"name", config_.name}});
      WriteReadyFile();
    }
    cluster_.Update(down.servers());
    serve_.clear();
    serve_.insert(down.serve().begin(), down.serve().end());
    ServeRuns();
  }

  // Whole or not at all: whoever waits for the file reads it at once.
  void WriteReadyFile() {
    if (config_.ready_file.empty()) return;
    nlohmann::ordered_json ready = {
        {"address", address_}, {"metrics_address", metrics_address_}, {"pid", getpid()}, {"name", config_.name}};
    const std::string part = config_.ready_file + ".part";
    std::ofstream(part) << ready.dump() << "\n";
    std::error_code error;
    std::filesystem::rename(part, config_.ready_file, error);
    if (error) LogError("the ready file cannot be written", {{"file", config_.ready_file}, {"error", error.message()}});
  }

  void ServeRuns() {
    const absl::Time now = SteadyNow();
    for (const std::string& run : serve_) {
      if (!QueueOf(run).ok()) continue;
      absl::MutexLock lock(&mu_);
      runs_[run].wanted_until = now + kLinger;
    }
    std::vector<std::shared_ptr<Session>> stopped;
    {
      absl::MutexLock lock(&mu_);
      for (auto& [run, entry] : runs_) {
        if (entry.session != nullptr && IsOver(entry, now)) {
          entry.residuals = entry.session->residuals();
          stopped.push_back(std::exchange(entry.session, nullptr));
          entry.not_before = now + kServeAgain;
          entry.residuals_until = now + kAudit;
        }
        if (entry.session != nullptr || serve_.count(run) == 0 || now < entry.not_before) continue;
        entry.residuals = nullptr;
        entry.session = StartSession({run, config_.name, entry.queue, &cluster_, &files_, source_.get(), &metrics_});
      }
    }
    for (const auto& session : stopped) session->Stop();
  }

  // A restarted coordinator may list a run late: a session that waits for it keeps what it holds.
  static bool IsOver(const Entry& entry, absl::Time now) {
    return entry.session->ended() || now > entry.wanted_until + (entry.session->connected() ? absl::ZeroDuration() : kAwayMax);
  }

  void CheckFeeds() {
    const absl::Time now = SteadyNow();
    uint64_t feeds = 0, bytes = 0, sessions = 0;
    {
      absl::MutexLock lock(&mu_);
      for (auto it = runs_.begin(); it != runs_.end();) {
        Entry& entry = it->second;
        feeds += entry.queue->feeds();
        bytes += entry.queue->bytes();
        sessions += entry.session != nullptr ? 1 : 0;
        const auto waiting = entry.queue->waiting_since();
        if (entry.session == nullptr && waiting.has_value() && now - *waiting > kUnservedMax) {
          entry.queue->FaultAll({"NO_SESSION", absl::StrCat("worker ", config_.name, " was not told to serve run ", it->first), true, {}});
        }
        if (now > entry.residuals_until) entry.residuals = nullptr;
        // Another holder of the queue is a feed that is just being opened.
        const bool unused = entry.session == nullptr && entry.residuals == nullptr && entry.queue->empty() && entry.queue.use_count() == 1;
        it = unused && serve_.count(it->first) == 0 ? runs_.erase(it) : std::next(it);
      }
    }
    metrics_.SetFeeds(feeds);
    metrics_.SetQueueBytes(bytes);
    metrics_.SetSessions(sessions);
    v1::WorkerUp up = FeedCounts();
    const std::map<std::string, uint32_t> counts(up.feeds().begin(), up.feeds().end());
    if (attach_ == nullptr || counts == told_) return;
    told_ = counts;
    attach_->Send(std::move(up));
  }

  v1::WorkerUp FeedCounts() {
    v1::WorkerUp up;
    absl::MutexLock lock(&mu_);
    for (const auto& [run, entry] : runs_) {
      if (const uint32_t feeds = entry.queue->feeds(); feeds > 0) (*up.mutable_feeds())[run] = feeds;
    }
    return up;
  }

  void StopSessions() {
    std::vector<std::shared_ptr<Session>> sessions;
    std::vector<std::shared_ptr<FeedQueue>> queues;
    {
      absl::MutexLock lock(&mu_);
      for (auto& [run, entry] : runs_) {
        queues.push_back(entry.queue);
        if (entry.session != nullptr) sessions.push_back(entry.session);
      }
    }
    std::vector<std::thread> stops;  // at once: each takes its time
    for (const auto& session : sessions) stops.emplace_back([session] { session->Stop(); });
    for (std::thread& stop : stops) stop.join();
    for (const auto& queue : queues) queue->FaultAll({"WORKER_LEAVES", absl::StrCat("worker ", config_.name, " stops"), true, {}});
  }

  const WorkerConfig config_;
  WorkerMetrics metrics_;
  Cluster cluster_;
  ModelFiles files_;
  const std::shared_ptr<ManifestSource> source_;
  const std::unique_ptr<v1::Control::Stub> control_;
  const std::shared_ptr<Mailbox> mailbox_;
  std::unique_ptr<InferenceService> inference_;
  std::unique_ptr<v1::Worker::CallbackService> feeds_;
  std::unique_ptr<prometheus::Exposer> exposer_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  std::string metrics_address_;

  absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::map<std::string, Entry> runs_ ABSL_GUARDED_BY(mu_);

  // ---- manager thread only
  bool stop_ = false;
  std::shared_ptr<AttachStream> attach_;
  uint64_t attach_number_ = 0;
  absl::Time attach_at_ = absl::InfinitePast();
  absl::Time attach_log_ = absl::InfinitePast();
  std::set<std::string> serve_;
  std::map<std::string, uint32_t> told_;
  std::thread manager_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Worker>> Worker::Start(WorkerConfig config) {
  SetComputeThreads(config.threads == 0 ? static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))
                                        : static_cast<int>(config.threads));
  auto worker = std::make_unique<WorkerImpl>(std::move(config));
  if (absl::Status status = worker->Listen(); !status.ok()) return status;
  worker->Run();
  return worker;
}

}  // namespace ballast
