// The three calls of Control that read or write the disk: PutArtifact, GetArtifact, ListDecisions. Each takes one message at a time and
// does its disk work on the mailbox `disk`, which must run until the gRPC server is down. A reactor deletes itself.
#ifndef BALLAST_SERVER_CONTROL_DISK_REACTORS_H_
#define BALLAST_SERVER_CONTROL_DISK_REACTORS_H_

#include <grpcpp/grpcpp.h>

#include <string>

#include "ballast/v1/control.pb.h"
#include "server/control/artifacts.h"
#include "server/mailbox.h"
#include "server/run_table.h"

namespace ballast {

grpc::ServerReadReactor<v1::Piece>* NewPutArtifactReactor(Artifacts* artifacts, Mailbox* disk, v1::Artifact* response);
grpc::ServerWriteReactor<v1::Piece>* NewGetArtifactReactor(Artifacts* artifacts, Mailbox* disk, std::string sha256);
grpc::ServerWriteReactor<v1::Decision>* NewListDecisionsReactor(RunTable* runs, Mailbox* disk, v1::DecisionRange range);

}  // namespace ballast

#endif  // BALLAST_SERVER_CONTROL_DISK_REACTORS_H_
