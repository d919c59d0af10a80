#include "worker/session/session.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "ballast/v1/control.grpc.pb.h"
#include "proto/convert_control.h"
#include "proto/status.h"
#include "steady.h"
#include "version.h"
#include "worker/log.h"
#include "worker/session/compute.h"
#include "worker/session/duplex_stream.h"
#include "worker/session/encoder.h"
#include "worker/session/grpc_param_client.h"
#include "worker/session/mailbox.h"
#include "worker/session/manifest_source.h"
#include "worker/session/session_core.h"

namespace ballast {
namespace {

constexpr absl::Duration kBackoffMin = absl::Milliseconds(100);
constexpr absl::Duration kBackoffMax = absl::Seconds(2);
constexpr absl::Duration kLived = absl::Seconds(5);  // a session that lived so long was a good one: the back-off begins anew
constexpr absl::Duration kLogEvery = absl::Seconds(5);
constexpr absl::Duration kDrain = absl::Seconds(5);  // when the worker stops
constexpr uint64_t kResidualPieceElems = uint64_t{1} << 18;

using WorkStream = DuplexStream<v1::WorkUp, v1::WorkDown>;

class ResidualReaderImpl final : public ResidualReader {
 public:
  explicit ResidualReaderImpl(std::shared_ptr<const SessionResiduals> residuals) : residuals_(std::move(residuals)) {}

  bool Next(v1::ResidualTensor* piece) override {
    const RunSpec& spec = *residuals_->spec;
    while (tensor_ < spec.tensors.size() && first_ >= residuals_->values->Elements(tensor_)) {
      ++tensor_;
      first_ = 0;
    }
    if (tensor_ >= spec.tensors.size()) return false;
    std::vector<float> values(kResidualPieceElems);
    const uint64_t count = residuals_->values->Read(tensor_, first_, absl::MakeSpan(values));
    piece->set_tensor(spec.tensors[tensor_].name);
    piece->set_first(first_);
    piece->set_data(reinterpret_cast<const char*>(values.data()), count * sizeof(float));
    first_ += count;
    piece->set_complete(first_ >= residuals_->values->Elements(tensor_));
    return true;
  }

 private:
  const std::shared_ptr<const SessionResiduals> residuals_;
  uint32_t tensor_ = 0;
  uint64_t first_ = 0;
};

class SessionImpl final : public Session, public SessionPorts, public ParamEvents {
 public:
  explicit SessionImpl(SessionOptions options)
      : options_(std::move(options)), stub_(v1::Control::NewStub(options_.cluster->control())), mailbox_(std::make_shared<Mailbox>()) {
    options_.queue->Listen([this, mailbox = mailbox_] {
      if (!queue_changed_.exchange(true)) mailbox->Post([this] { OnQueueChanged(); });
    });
    thread_ = std::thread([this] { Loop(); });
  }

  ~SessionImpl() override { Stop(); }

  void Stop() override {
    if (!thread_.joinable()) return;
    stopping_.Set();
    mailbox_->Post([this] { stop_ = true; });
    thread_.join();
    options_.queue->Listen(nullptr);
    mailbox_->Close();
    compute_.reset();  // it pushes through the encoder, which pushes through the client
    encoder_.reset();
    params_.reset();
  }

  bool ended() const override { return ended_; }
  bool connected() const override { return welcomed_; }

  std::shared_ptr<const SessionResiduals> residuals() const override {
    absl::MutexLock lock(&mu_);
    return residuals_;
  }

 private:
  // ---- control thread
  void Loop() {
    reopen_at_ = SteadyNow();
    while (!stop_) {
      for (const std::function<void()>& closure : mailbox_->Take(reopen_at_)) closure();
      if (SteadyNow() >= reopen_at_ && !stop_) OpenStream();
    }
    options_.queue->Suspend();
    if (!ended_)
      options_.queue->FaultAll({"WORKER_LEAVES", absl::StrCat("worker ", options_.worker, " does not serve this run any more"), true, {}});
    Drain();
    Hang(/*leave=*/true);
    if (leaving_ != nullptr) leaving_->Close(/*now=*/false);
    options_.queue->UnclaimAll({});
  }

  // What is granted is computed and decided still, so that nobody has to do it again. The feeds have moved: whoever sends these batches
  // again learns that they are trained. What is not decided within kDrain goes back with the session, as if it had not been computed.
  void Drain() {
    if (core_ == nullptr || !loaded_ || !welcomed_) return;
    const absl::Time until = SteadyNow() + kDrain;
    core_->Drain();
    while (welcomed_ && core_->busy() && SteadyNow() < until) {
      for (const std::function<void()>& closure : mailbox_->Take(until)) closure();
    }
  }

  void OpenStream() {
    reopen_at_ = absl::InfiniteFuture();
    if (leaving_ != nullptr) std::exchange(leaving_, nullptr)->Close(/*now=*/true);
    const uint64_t number = ++stream_number_;
    const auto mailbox = mailbox_;
    WorkStream::Callbacks callbacks;
    callbacks.on_message = [this, mailbox, number](v1::WorkDown down) {
      mailbox->Post([this, number, down = std::move(down)] { OnDown(number, down); });
    };
    callbacks.on_done = [this, mailbox, number](const grpc::Status& status) {
      mailbox->Post([this, number, status] { OnStreamDone(number, status); });
    };
    stream_ = WorkStream::Start([this](grpc::ClientContext* context, auto* reactor) { stub_->async()->Work(context, reactor); },
                                std::move(callbacks));
    v1::WorkUp up;
    up.mutable_open()->mutable_hello()->set_protocol(kProtocol);
    up.mutable_open()->mutable_hello()->set_release(kVersion);
    up.mutable_open()->set_run(options_.run);
    up.mutable_open()->set_worker(options_.worker);
    up.mutable_open()->set_resume_session(resume_);
    Send(std::move(up));
  }

  // Leaves the stream behind; nothing that it says counts any more.
  void Hang(bool leave) {
    ++stream_number_;
    welcomed_ = false;
    if (stream_ == nullptr) return;
    if (leave) {
      v1::WorkUp up;
      up.mutable_leave();
      Send(std::move(up));
    }
    stream_->Close(/*now=*/!leave);
    leaving_ = std::move(stream_);
    stream_ = nullptr;
  }

  void Send(v1::WorkUp up) {
    if (stream_ == nullptr) return;
    options_.metrics->Sent(WireMethod::kWork, up.ByteSizeLong());
    stream_->Send(std::move(up));
  }

  void Later() {
    if (SteadyNow() - welcomed_at_ > kLived) backoff_ = kBackoffMin;
    reopen_at_ = SteadyNow() + backoff_;
    backoff_ = std::min(2 * backoff_, kBackoffMax);
  }

  void OnStreamDone(uint64_t number, const grpc::Status& status) {
    if (number != stream_number_) return;
    const absl::Time now = SteadyNow();
    if (now - last_log_ >= kLogEvery) {
      last_log_ = now;
      LogWarning(
          "no Work stream to server 0; it is opened again",
          {{"run", options_.run}, {"server", options_.cluster->control_address()}, {"error", std::string(FromGrpc(status).message())}});
    }
    stream_ = nullptr;
    if (welcomed_.exchange(false) && core_ != nullptr && loaded_) {
      core_->OnStreamLost();  // asks for another one when it has settled
    } else {
      pending_welcome_.reset();
      Later();
    }
  }

  void OnDown(uint64_t number, const v1::WorkDown& down) {
    if (number != stream_number_) return;
    options_.metrics->Received(WireMethod::kWork, down.ByteSizeLong());
    if (down.kind_case() == v1::WorkDown::kWelcome) return OnWelcome(down.welcome());
    if (!welcomed_ || !loaded_) {
      if (down.kind_case() == v1::WorkDown::kClose) ClosedEarly(down.close());
      return;
    }
    if (down.kind_case() == v1::WorkDown::kDecided && !down.decided().accepted()) return;  // not yet by every shard
    const absl::StatusOr<SessionMessage> message = FromProto(down);
    if (!message.ok()) {
      LogError("a message of the coordinator is not understood",
               {{"run", options_.run}, {"error", std::string(message.status().message())}});
      return;
    }
    core_->OnMessage(*message);
  }

  void ClosedEarly(const v1::WorkDown::Close& close) {
    LogWarning("the coordinator refused the session", {{"run", options_.run}, {"reason", close.reason()}});
    Hang(/*leave=*/false);
    if (close.final()) return Ended(close.reason());
    Later();
  }

  void OnWelcome(const v1::WorkDown::Welcome& welcome) {
    if (welcome.hello().protocol() != kProtocol) {
      return Ended(absl::StrCat("server 0 (release ", welcome.hello().release(), ") speaks protocol ", welcome.hello().protocol(),
                                ", this worker (release ", kVersion, ") protocol ", kProtocol,
                                ": install the same major release on both sides"));
    }
    absl::StatusOr<RunDefinition> run = FromProto(welcome.run());
    if (!run.ok()) return Ended(absl::StrCat("the run's definition is not usable: ", std::string(run.status().message())));
    options_.cluster->Update(welcome.servers());
    welcomed_at_ = SteadyNow();
    if (core_ == nullptr) {
      Build(*std::move(run), static_cast<uint32_t>(welcome.servers_size()));
    } else if (run->generation != definition_->generation || run->spec != definition_->spec || run->layout != definition_->layout) {
      LogInfo("the run is another one now; the session begins anew", {{"run", options_.run}});
      Hang(/*leave=*/true);
      ended_ = true;
      return;
    }
    LogInfo("session opened", {{"run", options_.run},
                               {"session", absl::StrCat(welcome.session())},
                               {"resumed", welcome.resumed() ? "yes" : "no"},
                               {"version", absl::StrCat(welcome.run().version())}});
    welcomed_ = true;
    pending_welcome_ = Pending{welcome.session(), welcome.resumed(), welcome.run().version()};
    if (loaded_) Welcomed();
  }

  void Welcomed() {
    const Pending pending = *std::exchange(pending_welcome_, std::nullopt);
    core_->OnWelcome(pending.session, pending.resumed, pending.version);
  }

  void Build(RunDefinition run, uint32_t shards) {
    definition_ = std::move(run);
    spec_ = std::make_shared<const RunSpec>(definition_->spec);
    const auto residuals = std::make_shared<SessionResiduals>();
    residuals->spec = spec_;
    residuals->values = std::make_unique<Residuals>(*spec_, definition_->layout);
    Residuals* const values = residuals->values.get();
    {
      absl::MutexLock lock(&mu_);
      residuals_ = residuals;
    }
    for (const Block& block : definition_->layout) shards = std::max(shards, block.shard + 1);
    params_ = MakeGrpcParamClient({spec_, definition_->generation, definition_->layout, shards}, options_.cluster, this, options_.metrics);
    encoder_ = std::make_unique<ContributionEncoder>(
        spec_.get(), definition_->generation, definition_->layout, shards, values, options_.metrics,
        [this](const std::shared_ptr<Outgoing>& contribution, uint32_t shard) { params_->Push(contribution, shard); });
    core_ = std::make_unique<SessionCore>(SessionCore::Config{spec_, definition_->layout, shards}, this, options_.queue.get(),
                                          params_.get(), values, options_.metrics);
    Compute::Options compute;
    compute.spec = spec_;
    compute.load = [this] { return LoadModel(); };
    compute.initial = [this](const Model& model, ParameterStore* out) {
      return Patiently("the initial values", [&] { return InitialValues(*spec_, model, options_.files, options_.source, out); });
    };
    compute.encoder = encoder_.get();
    compute.residuals = values;
    compute.loaded = [this](const absl::Status& status) { mailbox_->Post([this, status] { OnLoaded(status); }); };
    compute.done = [this](const ComputeResult& result) { mailbox_->Post([this, result] { core_->OnComputed(result); }); };
    compute_ = std::make_unique<ballast::Compute>(std::move(compute));
    options_.queue->Serve(spec_);
  }

  // Compute thread. A server that is away is waited for; anything else is final. Cancelled: the session stops.
  absl::Status Patiently(absl::string_view what, const std::function<absl::Status()>& fetch) {
    while (true) {
      const absl::Status status = fetch();
      if (!absl::IsUnavailable(status) && !absl::IsDeadlineExceeded(status)) return status;
      LogWarning(absl::StrCat(what, " cannot be fetched yet"), {{"run", options_.run}, {"error", std::string(status.message())}});
      if (stopping_.WaitFor(absl::Seconds(1))) return absl::CancelledError("the worker stops");
    }
  }

  absl::StatusOr<std::unique_ptr<Model>> LoadModel() {
    std::string archive;
    const absl::Status fetched = Patiently("the model file", [&] {
      absl::StatusOr<std::string> file = options_.files->Get(spec_->model_sha256);
      if (file.ok()) archive = *std::move(file);
      return file.status();
    });
    if (!fetched.ok()) return fetched;
    return Model::Load(archive, spec_->tensors);
  }

  void OnLoaded(const absl::Status& status) {
    if (absl::IsCancelled(status)) return;  // the session stops: nothing is wrong with the model
    loaded_ = true;
    if (!status.ok()) {
      LogError("the model cannot be used; its batches are skipped", {{"run", options_.run}, {"error", std::string(status.message())}});
      core_->OnModelUnusable(absl::StrCat("the model cannot be used: ", std::string(status.message())));
    }
    if (pending_welcome_.has_value()) Welcomed();
  }

  void OnQueueChanged() {
    queue_changed_ = false;
    if (core_ != nullptr && loaded_ && welcomed_) core_->OnQueueChanged();
  }

  // ---- SessionPorts
  void Claim(const Batch& batch, std::optional<Uid> uid) override {
    v1::WorkUp up;
    *up.mutable_claim()->mutable_batch() = ToProto(batch);
    if (uid.has_value()) *up.mutable_claim()->mutable_uid() = ToProto(*uid);
    Send(std::move(up));
  }
  void Submit(const Submission& submission) override {
    v1::WorkUp up;
    *up.mutable_submit() = ToProto(submission);
    Send(std::move(up));
  }
  void Skip(const Batch& batch, const std::string& reason) override {
    v1::WorkUp up;
    *up.mutable_skip()->mutable_batch() = ToProto(batch);
    up.mutable_skip()->set_reason(reason);
    Send(std::move(up));
  }
  void Status(bool blocked, uint64_t rows_done) override {
    v1::WorkUp up;
    up.mutable_status()->set_blocked(blocked);
    up.mutable_status()->set_rows_done(rows_done);
    Send(std::move(up));
  }
  void Reopen(uint64_t resume, bool leave) override {
    resume_ = resume;
    Hang(leave);
    Later();
  }
  void Ended(const std::string& reason) override {
    LogWarning("the session is over", {{"run", options_.run}, {"reason", reason}});
    options_.queue->Suspend();
    options_.queue->FaultAll({"RUN_STOPPED", absl::StrCat("run ", options_.run, ": ", reason), false, {{"run", options_.run}}});
    Hang(/*leave=*/false);
    ended_ = true;
  }
  void Compute(ComputeJob job) override { compute_->Run(std::move(job)); }
  absl::Time Now() override { return SteadyNow(); }

  // ---- ParamEvents, any thread
  void OnPushReply(const PushReply& reply) override {
    mailbox_->Post([this, reply] { core_->OnPushReply(reply); });
  }
  void OnPulled(uint32_t shard, uint64_t version) override {
    mailbox_->Post([this, shard, version] { core_->OnPulled(shard, version); });
  }

  const SessionOptions options_;
  const std::unique_ptr<v1::Control::Stub> stub_;
  const std::shared_ptr<Mailbox> mailbox_;
  std::atomic<bool> queue_changed_{false};
  std::atomic<bool> ended_{false};
  Signal stopping_;
  mutable absl::Mutex mu_;
  std::shared_ptr<const SessionResiduals> residuals_ ABSL_GUARDED_BY(mu_);

  // ---- control thread only
  struct Pending {
    uint64_t session;
    bool resumed;
    uint64_t version;
  };
  bool stop_ = false;
  std::atomic<bool> welcomed_{false};  // written by control only
  bool loaded_ = false;
  std::optional<Pending> pending_welcome_;
  uint64_t resume_ = 0;
  uint64_t stream_number_ = 0;
  std::shared_ptr<WorkStream> stream_;
  std::shared_ptr<WorkStream> leaving_;
  absl::Time reopen_at_;
  absl::Duration backoff_ = kBackoffMin;
  absl::Time welcomed_at_ = absl::InfiniteFuture();
  absl::Time last_log_ = absl::InfinitePast();
  std::optional<RunDefinition> definition_;
  std::shared_ptr<const RunSpec> spec_;
  std::unique_ptr<ParamClient> params_;
  std::unique_ptr<ContributionEncoder> encoder_;
  std::unique_ptr<SessionCore> core_;
  std::unique_ptr<ballast::Compute> compute_;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<ResidualReader> MakeResidualReader(std::shared_ptr<const SessionResiduals> residuals) {
  return std::make_unique<ResidualReaderImpl>(std::move(residuals));
}

std::unique_ptr<Session> StartSession(SessionOptions options) { return std::make_unique<SessionImpl>(std::move(options)); }

}  // namespace ballast
