#include "server/control/service.h"

#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/status.h"
#include "proto/status.h"
#include "server/control/bidi_stream.h"
#include "server/control/disk_reactors.h"

namespace ballast {
namespace {

// Submits a unary call and finishes it with what comes back.
template <typename Request, typename Response>
grpc::ServerUnaryReactor* Submit(grpc::CallbackServerContext* context, const Request* request, Response* response, Runner* runner,
                                 void (Runner::*call)(Request, Callback<Response>)) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  (runner->*call)(*request, [reactor, response](absl::StatusOr<Response> answer) {
    if (answer.ok()) *response = *std::move(answer);
    reactor->Finish(ToGrpc(answer.status()));
  });
  return reactor;
}

// A stream whose messages go to the runner.
template <typename Up, typename Down>
class RunnerStream final : public BidiStream<Up, Down> {
 public:
  RunnerStream(Runner* runner, void (Runner::*gone)(StreamId)) : runner_(runner), gone_(gone), id_(NextId()) {}

 private:
  static StreamId NextId() {
    static std::atomic<StreamId> last{0};
    return ++last;
  }
  void OnMessage(std::shared_ptr<BidiStream<Up, Down>> self, std::shared_ptr<const Up> message) override {
    runner_->OnMessage(id_, std::move(self), std::move(message));
  }
  void OnClosed() override { (runner_->*gone_)(id_); }

  Runner* const runner_;
  void (Runner::*const gone_)(StreamId);
  const StreamId id_;
};

template <typename Up, typename Down>
grpc::ServerBidiReactor<Up, Down>* Open(Runner* runner, void (Runner::*gone)(StreamId)) {
  auto stream = std::make_shared<RunnerStream<Up, Down>>(runner, gone);
  stream->Start(stream);
  return stream.get();
}

}  // namespace

bool IsLoopbackPeer(const std::string& peer) {
  return absl::StartsWith(peer, "ipv4:127.") || absl::StartsWith(peer, "ipv6:[::1]") || absl::StartsWith(peer, "ipv6:%5B::1%5D") ||
         absl::StartsWith(peer, "unix:");
}

ControlService::ControlService(Runner* runner, Artifacts* artifacts, RunTable* runs, bool trust_models)
    : runner_(runner), artifacts_(artifacts), runs_(runs), trust_models_(trust_models), disk_("control-disk") {}

grpc::ServerUnaryReactor* ControlService::CreateRun(grpc::CallbackServerContext* context, const v1::RunSpec* request, v1::Run* response) {
  if (!request->model_sha256().empty() && !trust_models_ && !IsLoopbackPeer(context->peer())) {
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    reactor->Finish(
        ToGrpc(WithReason(absl::PermissionDeniedError(absl::StrCat("a model is executable code, and ", context->peer(),
                                                                   " is not this machine: create the run from here, or start server 0 with "
                                                                   "--trust-models=on")),
                          "MODEL_NOT_TRUSTED")));
    return reactor;
  }
  return Submit(context, request, response, runner_, &Runner::CreateRun);
}

grpc::ServerUnaryReactor* ControlService::ListRuns(grpc::CallbackServerContext* context, const v1::RunFilter* request,
                                                   v1::RunList* response) {
  return Submit(context, request, response, runner_, &Runner::ListRuns);
}
grpc::ServerUnaryReactor* ControlService::StopRun(grpc::CallbackServerContext* context, const v1::StopRequest* request, v1::Run* response) {
  return Submit(context, request, response, runner_, &Runner::StopRun);
}
grpc::ServerUnaryReactor* ControlService::DeleteRun(grpc::CallbackServerContext* context, const v1::RunRef* request, v1::Run* response) {
  return Submit(context, request, response, runner_, &Runner::DeleteRun);
}
grpc::ServerUnaryReactor* ControlService::BeginEpoch(grpc::CallbackServerContext* context, const v1::Epoch* request,
                                                     v1::EpochReport* response) {
  return Submit(context, request, response, runner_, &Runner::BeginEpoch);
}
grpc::ServerUnaryReactor* ControlService::OpenFeed(grpc::CallbackServerContext* context, const v1::FeedRef* request,
                                                   v1::FeedPlace* response) {
  return Submit(context, request, response, runner_, &Runner::OpenFeed);
}
grpc::ServerUnaryReactor* ControlService::CommitEpoch(grpc::CallbackServerContext* context, const v1::EpochCounts* request,
                                                      v1::EpochReport* response) {
  return Submit(context, request, response, runner_, &Runner::CommitEpoch);
}
grpc::ServerUnaryReactor* ControlService::Checkpoint(grpc::CallbackServerContext* context, const v1::RunRef* request,
                                                     v1::Manifest* response) {
  return Submit(context, request, response, runner_, &Runner::Checkpoint);
}
grpc::ServerUnaryReactor* ControlService::Rollback(grpc::CallbackServerContext* context, const v1::ManifestRef* request,
                                                   v1::Run* response) {
  return Submit(context, request, response, runner_, &Runner::Rollback);
}
grpc::ServerUnaryReactor* ControlService::ListManifests(grpc::CallbackServerContext* context, const v1::RunRef* request,
                                                        v1::ManifestList* response) {
  return Submit(context, request, response, runner_, &Runner::ListManifests);
}
grpc::ServerUnaryReactor* ControlService::Cluster(grpc::CallbackServerContext* context, const v1::ClusterRequest* request,
                                                  v1::ClusterState* response) {
  return Submit(context, request, response, runner_, &Runner::Cluster);
}

grpc::ServerReadReactor<v1::Piece>* ControlService::PutArtifact(grpc::CallbackServerContext*, v1::Artifact* response) {
  return NewPutArtifactReactor(artifacts_, &disk_, response);
}
grpc::ServerWriteReactor<v1::Piece>* ControlService::GetArtifact(grpc::CallbackServerContext*, const v1::ArtifactRef* request) {
  return NewGetArtifactReactor(artifacts_, &disk_, request->sha256());
}
grpc::ServerWriteReactor<v1::Decision>* ControlService::ListDecisions(grpc::CallbackServerContext*, const v1::DecisionRange* request) {
  return NewListDecisionsReactor(runs_, &disk_, *request);
}

grpc::ServerBidiReactor<v1::WorkerUp, v1::WorkerDown>* ControlService::Attach(grpc::CallbackServerContext*) {
  return Open<v1::WorkerUp, v1::WorkerDown>(runner_, &Runner::OnWorkerGone);
}
grpc::ServerBidiReactor<v1::WorkUp, v1::WorkDown>* ControlService::Work(grpc::CallbackServerContext*) {
  return Open<v1::WorkUp, v1::WorkDown>(runner_, &Runner::OnSessionGone);
}
grpc::ServerBidiReactor<v1::ShardUp, v1::ShardDown>* ControlService::Follow(grpc::CallbackServerContext*) {
  return Open<v1::ShardUp, v1::ShardDown>(runner_, &Runner::OnFollowerGone);
}

}  // namespace ballast
