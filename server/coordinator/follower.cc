#include "server/coordinator/follower.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <variant>

#include "absl/random/random.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "core/status.h"
#include "proto/convert.h"
#include "proto/convert_control.h"
#include "proto/status.h"
#include "server/failpoint.h"
#include "server/log.h"
#include "steady.h"
#include "version.h"

namespace ballast {
namespace {

constexpr absl::Duration kBackOffFirst = absl::Milliseconds(100);
constexpr absl::Duration kBackOffMax = absl::Seconds(2);
constexpr char kClusterKey[] = "cluster/id";
constexpr char kIncarnationKey[] = "coordinator/incarnation";  // highest ever seen

std::shared_ptr<grpc::Channel> Dial(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 60000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20000);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  arguments.SetMaxReceiveMessageSize(64 << 20);  // decisions and layouts, from the server that this one trusts with everything
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

// Of a status that server 0 gave: another try cannot help.
bool Refused(const absl::Status& status) { return absl::IsFailedPrecondition(status); }

}  // namespace

// The events of this server's shard of one run.
class Follower::Events : public ShardEvents {
 public:
  Events(Follower* follower, std::string run, uint64_t generation) : follower_(follower), run_(std::move(run)), generation_(generation) {}

  void OnAccepted(uint64_t index) override {
    v1::ShardUp message;
    message.mutable_accepted()->set_run(run_);
    message.mutable_accepted()->set_generation(generation_);
    message.mutable_accepted()->set_index(index);
    follower_->Report(run_, std::move(message));
  }
  void OnApplied(uint64_t index, uint64_t version) override {
    v1::ShardUp message;
    message.mutable_applied()->set_run(run_);
    message.mutable_applied()->set_generation(generation_);
    message.mutable_applied()->set_index(index);
    message.mutable_applied()->set_version(version);
    follower_->Report(run_, std::move(message));
  }
  void OnNorm(uint64_t query, double norm2) override {
    v1::ShardUp message;
    message.mutable_norm()->set_run(run_);
    message.mutable_norm()->set_query(query);
    message.mutable_norm()->set_norm2(norm2);
    follower_->Report(run_, std::move(message));
  }
  void OnCheckpointed(uint64_t version, const ShardDigest& digest) override {
    v1::ShardUp message;
    message.mutable_checkpointed()->set_run(run_);
    message.mutable_checkpointed()->set_generation(generation_);
    message.mutable_checkpointed()->set_version(version);
    *message.mutable_checkpointed()->mutable_digest() = ToProto(digest);
    follower_->Report(run_, std::move(message));
  }
  void OnDisk(bool low, const std::string& reason) override {
    v1::ShardUp message;
    message.mutable_disk()->set_run(run_);
    message.mutable_disk()->set_low(low);
    message.mutable_disk()->set_reason(reason);
    follower_->Report(run_, std::move(message));
  }
  void OnOwnLog(const Uid&) override {}         // of server 0 only
  void OnDecisionDurable(uint64_t) override {}  // of server 0 only
  void OnFailed(const absl::Status& status) override { follower_->options_.fatal(status); }

 private:
  Follower* const follower_;
  const std::string run_;
  const uint64_t generation_;
};

Follower::Follower(Options options, Store* store, RunOpener* opener, RunTable* runs)
    : options_(std::move(options)),
      store_(store),
      opener_(opener),
      runs_(runs),
      stub_(v1::Control::NewStub(Dial(options_.coordinator))),
      writer_("follow-writer"),
      opener_thread_("follow-opener") {}

Follower::~Follower() { Stop(); }

void Follower::Start() {
  loop_ = std::thread([this] { Loop(); });
}

void Follower::Stop() {
  stopping_.Set();
  {
    absl::MutexLock lock(&mu_);
    if (call_ != nullptr) call_->TryCancel();
  }
  if (loop_.joinable()) loop_.join();
  writer_.Stop();
  opener_thread_.Stop();
}

void Follower::Loop() {
  absl::BitGen random;
  absl::Duration back_off = kBackOffFirst;
  while (!stopping_.IsSet()) {
    const absl::Time start = SteadyNow();
    const absl::Status status = FollowOnce();
    if (stopping_.IsSet()) return;
    if (Refused(status)) return options_.fatal(status);
    if (status.code() != said_) {  // once for each kind of trouble
      LogWarning(absl::IsAborted(status) ? "server 0 is not followed; trying on" : "server 0 is not reachable; trying on",
                 {{"coordinator", options_.coordinator}, {"reason", std::string(status.message())}});
      said_ = status.code();
    }
    if (SteadyNow() - start > kBackOffMax) back_off = kBackOffFirst;  // it was up
    stopping_.WaitFor(back_off * absl::Uniform(random, 0.5, 1.0));
    back_off = std::min(back_off * 2, kBackOffMax);
  }
}

absl::Status Follower::FollowOnce() {
  grpc::ClientContext call;
  std::shared_ptr<Stream> stream;
  uint64_t connection = 0;
  {
    absl::MutexLock lock(&mu_);
    if (stopping_.IsSet()) return absl::OkStatus();
    stream = stub_->Follow(&call);
    stream_ = stream;
    call_ = &call;
    connection = ++connection_;
    announced_.clear();
  }
  BALLAST_FAILPOINT("follow-open");
  v1::ShardUp first;
  v1::ShardUp::Open* const open = first.mutable_open();
  open->mutable_hello()->set_protocol(kProtocol);
  open->mutable_hello()->set_release(kVersion);
  open->set_index(options_.index);
  open->set_address(options_.address);
  open->set_incarnation(options_.incarnation);
  open->set_metrics_address(options_.metrics_address);
  open->set_cluster_id(store_->Get(kClusterKey).value_or(""));
  absl::Status welcomed;
  v1::ShardDown message;
  if (stream->Write(first) && stream->Read(&message)) {
    welcomed = OnWelcome(message);
    if (welcomed.ok()) {
      while (stream->Read(&message)) OnMessage(connection, message);
    } else {
      call.TryCancel();
    }
  }
  {
    absl::MutexLock lock(&mu_);
    stream_ = nullptr;
    call_ = nullptr;
    announced_.clear();
  }
  absl::Notification written;  // the writer may still hold the stream
  writer_.Post([&] { written.Notify(); });
  written.WaitForNotification();
  const grpc::Status end = stream->Finish();
  return welcomed.ok() ? FromGrpc(end) : welcomed;
}

absl::Status Follower::OnWelcome(const v1::ShardDown& message) {
  const v1::ShardDown::Welcome& welcome = message.welcome();
  if (welcome.hello().protocol() != kProtocol) {
    return absl::FailedPreconditionError(absl::StrCat("server 0 (release \"", welcome.hello().release(), "\") speaks protocol ",
                                                      welcome.hello().protocol(), ", this server (release ", kVersion, ") protocol ",
                                                      kProtocol, ": install the same release on both"));
  }
  if (welcome.servers() != options_.servers) {
    return absl::FailedPreconditionError(
        absl::StrCat("server 0 was started with --servers ", welcome.servers(), ", this server with --servers ", options_.servers));
  }
  const std::string cluster = store_->Get(kClusterKey).value_or("");
  if (!cluster.empty() && cluster != welcome.cluster_id()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the data directory belongs to cluster ", cluster, ", server 0 to cluster ", welcome.cluster_id()));
  }
  uint64_t highest = 0;
  if (const auto stored = store_->Get(kIncarnationKey); stored.ok()) (void)absl::SimpleAtoi(*stored, &highest);
  if (welcome.coordinator_incarnation() < highest) {
    return absl::AbortedError(
        absl::StrCat("server 0 answered in life ", welcome.coordinator_incarnation(), ", but life ", highest,
                     " was followed before: it is a zombie, or its data directory was copied. Nothing that it decides ",
                     "is acknowledged; let one of them run only"));
  }
  BALLAST_FAILPOINT("follow-welcome");
  if (absl::Status put = store_->Put(kIncarnationKey, absl::StrCat(welcome.coordinator_incarnation())); !put.ok()) return put;
  if (absl::Status put = cluster.empty() ? store_->Put(kClusterKey, welcome.cluster_id()) : absl::OkStatus(); !put.ok()) return put;
  {
    absl::MutexLock lock(&mu_);
    coordinator_incarnation_ = welcome.coordinator_incarnation();
  }
  BALLAST_FAILPOINT("follow-welcomed");
  LogInfo("following server 0", {{"coordinator", options_.coordinator}, {"incarnation", absl::StrCat(welcome.coordinator_incarnation())}});
  said_ = absl::StatusCode::kOk;
  opener_thread_.Post([this, runs = welcome.runs()] {
    runs_due_ = runs;
    if (runs == 0) SayReady();
  });
  return absl::OkStatus();
}

void Follower::OnMessage(uint64_t connection, const v1::ShardDown& message) {
  std::string run;
  switch (message.kind_case()) {
    case v1::ShardDown::kOpenRun:
      return opener_thread_.Post([this, connection, run = message.open_run().run()] { Open(connection, run); });
    case v1::ShardDown::kCloseRun:
      return opener_thread_.Post([this, close = message.close_run()] { Close(close.run(), close.remove()); });
    case v1::ShardDown::kRuns:
      return opener_thread_.Post([this, runs = message.runs()] { RemoveOthers({runs.run().begin(), runs.run().end()}); });
    case v1::ShardDown::kDecision:
      run = message.decision().run();
      break;
    case v1::ShardDown::kNormQuery:
      run = message.norm_query().run();
      break;
    case v1::ShardDown::kManifest:
      run = message.manifest().run();
      break;
    default:
      return;
  }
  const std::shared_ptr<ballast::OpenRun> open = runs_->Find(run);
  auto converted = FromProto(message);
  if (!converted.ok()) return options_.fatal(converted.status());
  if (open == nullptr) return;  // closed meanwhile
  if (auto* decision = std::get_if<std::shared_ptr<const Decision>>(&*converted)) {
    BALLAST_FAILPOINT("follow-decision");
    open->shard->Deliver(std::move(*decision));
  } else if (auto* query = std::get_if<NormQuery>(&*converted)) {
    open->shard->QueryNorm(std::move(*query));
  } else {
    open->shard->OnManifestCommitted(std::move(std::get<ManifestCommitted>(*converted)));
  }
}

void Follower::Open(uint64_t connection, const v1::Run& proto) {
  const std::string name = proto.spec().name();
  // One that was removed and created again while this server was away.
  const auto is_old = [&] {
    const std::shared_ptr<ballast::OpenRun> open = runs_->Find(name);
    return open != nullptr && open->generation != proto.generation();
  };
  if (is_old()) Close(name, /*remove=*/true);
  if (runs_->Find(name) == nullptr) {
    auto run = FromProto(proto);
    absl::Status opened = run.status();
    if (opened.ok()) opened = opener_->Open(*run, std::make_unique<Events>(this, name, run->generation)).status();
    if (!opened.ok()) {
      v1::ShardUp failed;
      failed.mutable_failed()->set_run(name);
      failed.mutable_failed()->set_reason(std::string(opened.message()));
      {
        absl::MutexLock lock(&mu_);
        Write(std::move(failed));
      }
      return options_.fatal(opened);
    }
  }
  Announce(connection, name);
  if (runs_due_ > 0 && --runs_due_ == 0) SayReady();
}

void Follower::SayReady() {
  if (!std::exchange(said_ready_, true)) options_.ready();
}

void Follower::Close(const std::string& run, bool remove) {
  {
    absl::MutexLock lock(&mu_);
    announced_.erase(run);
  }
  if (!remove) return runs_->Close(run);
  if (absl::Status removed = opener_->Remove(run); !removed.ok()) options_.fatal(removed);
}

void Follower::RemoveOthers(const std::set<std::string>& known) {
  if (absl::Status removed = opener_->RemoveOthers(known); !removed.ok()) options_.fatal(removed);
}

void Follower::Announce(uint64_t connection, const std::string& run) {
  BALLAST_FAILPOINT("follow-announce");
  const std::shared_ptr<ballast::OpenRun> open = runs_->Find(run);
  {
    absl::MutexLock lock(&mu_);
    if (connection != connection_ || stream_ == nullptr || open == nullptr) return;
    announced_[run] = {};
  }
  v1::ShardUp message;
  *message.mutable_position() = ToProto(run, open->generation, open->shard->Position());
  {
    absl::MutexLock lock(&mu_);
    if (connection != connection_ || stream_ == nullptr) return;
    Announced& announced = announced_[run];
    Write(std::move(message));
    for (v1::ShardUp& event : announced.waiting) Write(std::move(event));
    announced = {false, {}};
  }
  BALLAST_FAILPOINT("follow-announced");
  open->shard->ReportAgain();
}

void Follower::Report(const std::string& run, v1::ShardUp message) {
  absl::MutexLock lock(&mu_);
  const auto it = announced_.find(run);
  if (it == announced_.end()) return;  // the next position says it
  if (message.has_accepted()) message.mutable_accepted()->set_coordinator_incarnation(coordinator_incarnation_);
  if (it->second.taking) {
    it->second.waiting.push_back(std::move(message));
  } else {
    Write(std::move(message));
  }
}

void Follower::Write(v1::ShardUp message) {
  writer_.Post([this, connection = connection_, message = std::move(message)] {
    std::shared_ptr<Stream> stream;
    {
      absl::MutexLock lock(&mu_);
      if (connection == connection_) stream = stream_;
    }
    if (stream != nullptr) stream->Write(message);
  });
}

}  // namespace ballast
