// The Control service over gRPC's callback API. Reactors convert, submit and finish; the answers come from server/coordinator. Only the two
// artifact calls and ListDecisions are answered here, on a thread of their own, because they read the disk.
#ifndef BALLAST_SERVER_CONTROL_SERVICE_H_
#define BALLAST_SERVER_CONTROL_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include "ballast/v1/control.grpc.pb.h"
#include "server/control/artifacts.h"
#include "server/coordinator/runner.h"
#include "server/mailbox.h"
#include "server/run_table.h"

namespace ballast {

// Whether a gRPC peer name ("ipv4:127.0.0.1:5555") is on this machine.
bool IsLoopbackPeer(const std::string& peer);

// Serves until the gRPC server is shut down; must outlive it. Threads: gRPC's.
class ControlService final : public v1::Control::CallbackService {
 public:
  // `trust_models`: accept models from callers on other machines too.
  ControlService(Runner* runner, Artifacts* artifacts, RunTable* runs, bool trust_models);

  grpc::ServerUnaryReactor* CreateRun(grpc::CallbackServerContext*, const v1::RunSpec*, v1::Run*) override;
  grpc::ServerUnaryReactor* ListRuns(grpc::CallbackServerContext*, const v1::RunFilter*, v1::RunList*) override;
  grpc::ServerUnaryReactor* StopRun(grpc::CallbackServerContext*, const v1::StopRequest*, v1::Run*) override;
  grpc::ServerUnaryReactor* DeleteRun(grpc::CallbackServerContext*, const v1::RunRef*, v1::Run*) override;
  grpc::ServerReadReactor<v1::Piece>* PutArtifact(grpc::CallbackServerContext*, v1::Artifact*) override;
  grpc::ServerWriteReactor<v1::Piece>* GetArtifact(grpc::CallbackServerContext*, const v1::ArtifactRef*) override;
  grpc::ServerUnaryReactor* BeginEpoch(grpc::CallbackServerContext*, const v1::Epoch*, v1::EpochReport*) override;
  grpc::ServerUnaryReactor* OpenFeed(grpc::CallbackServerContext*, const v1::FeedRef*, v1::FeedPlace*) override;
  grpc::ServerUnaryReactor* CommitEpoch(grpc::CallbackServerContext*, const v1::EpochCounts*, v1::EpochReport*) override;
  grpc::ServerUnaryReactor* Checkpoint(grpc::CallbackServerContext*, const v1::RunRef*, v1::Manifest*) override;
  grpc::ServerUnaryReactor* Rollback(grpc::CallbackServerContext* context, const v1::ManifestRef* request, v1::Run* response) override;
  grpc::ServerUnaryReactor* ListManifests(grpc::CallbackServerContext*, const v1::RunRef*, v1::ManifestList*) override;
  grpc::ServerWriteReactor<v1::Decision>* ListDecisions(grpc::CallbackServerContext*, const v1::DecisionRange*) override;
  grpc::ServerUnaryReactor* Cluster(grpc::CallbackServerContext*, const v1::ClusterRequest*, v1::ClusterState*) override;
  grpc::ServerBidiReactor<v1::WorkerUp, v1::WorkerDown>* Attach(grpc::CallbackServerContext*) override;
  grpc::ServerBidiReactor<v1::WorkUp, v1::WorkDown>* Work(grpc::CallbackServerContext*) override;
  grpc::ServerBidiReactor<v1::ShardUp, v1::ShardDown>* Follow(grpc::CallbackServerContext*) override;

 private:
  Runner* const runner_;
  Artifacts* const artifacts_;
  RunTable* const runs_;
  const bool trust_models_;
  Mailbox disk_;
};

}  // namespace ballast

#endif  // BALLAST_SERVER_CONTROL_SERVICE_H_
