// The Shard service: Push and Pull as raw completion-queue streams over byte buffers, all on one polling thread (the fastest set-up that
// was measured: reference figures in docs/PERFORMANCE). Bulk bytes never pass through a protobuf object.
//
//   DataPlane plane(...);
//   plane.Register(builder);  server = builder.BuildAndStart();  plane.Start();
//   server->Shutdown(...);  plane.Stop();
//
// Limits: a Push stream whose run's queue is full is not read until there is room, so HTTP/2 flow control holds the sender back and nothing
// is refused in the middle of a contribution; a stream that names a run that is not open yet waits kUnknownRunWait for it; a Pull stream
// takes kWantsMax wants at a time; one chunk at a time is on its way per stream.
//
// Threads: Register, Start, Stop from the server's main thread. Callbacks of shards may come from any thread and after Stop: the data plane
// must outlive the shards.
#ifndef BALLAST_SERVER_DATA_PLANE_DATA_PLANE_H_
#define BALLAST_SERVER_DATA_PLANE_DATA_PLANE_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <set>
#include <thread>

#include "absl/time/time.h"
#include "ballast/v1/shard.grpc.pb.h"
#include "server/data_plane/cq_inbox.h"
#include "server/mailbox.h"
#include "server/metrics.h"
#include "server/run_table.h"

namespace ballast {

// A run that this server does not hold may be on its way: created a moment ago, or still being recovered. A stream that names it is held
// back for so long before it hears NO_RUN.
inline constexpr absl::Duration kUnknownRunWait = absl::Seconds(5);

using RawShardService = v1::Shard::WithRawMethod_Push<v1::Shard::WithRawMethod_Pull<v1::Shard::Service>>;

// What the streams share. Polling thread only, but for `inbox` and `checkpoint_reader`.
class StreamBase;
struct DataPlaneContext {
  RawShardService service;
  grpc::ServerCompletionQueue* cq = nullptr;
  CqInbox* inbox = nullptr;
  RunTable* runs = nullptr;
  DataPlaneMetrics* metrics = nullptr;
  Mailbox* checkpoint_reader = nullptr;  // reads of manifests, which wait for the disk
  uint32_t server = 0;
  absl::Duration reader_timeout;
  std::set<std::shared_ptr<StreamBase>> streams;
};

// A stream is kept by the context until gRPC has returned every operation that it started.
class StreamBase : public std::enable_shared_from_this<StreamBase> {
 public:
  explicit StreamBase(DataPlaneContext* plane) : plane_(plane) {}
  virtual ~StreamBase() = default;
  virtual void CancelAlarms() {}  // the long ones: a queue that is shut down waits for them

 protected:
  void OperationStarted() { ++operations_; }
  // Call last in every event: the object may be gone after it.
  void OperationDone() {
    if (--operations_ == 0) plane_->streams.erase(shared_from_this());
  }

  DataPlaneContext* const plane_;

 private:
  int operations_ = 0;
};

class DataPlane {
 public:
  // `reader_timeout`: a Pull stream of which nothing is taken for so long is closed.
  DataPlane(RunTable* runs, DataPlaneMetrics* metrics, uint32_t server, absl::Duration reader_timeout);
  ~DataPlane();

  void Register(grpc::ServerBuilder& builder);
  void Start();
  void Stop();  // after the gRPC server's Shutdown; idempotent

 private:
  void Poll();

  Mailbox checkpoint_reader_;
  DataPlaneContext context_;
  std::unique_ptr<grpc::ServerCompletionQueue> cq_;
  std::unique_ptr<CqInbox> inbox_;
  std::thread thread_;
  bool stopping_ = false;  // polling thread
  bool stopped_ = false;
};

}  // namespace ballast

#endif  // BALLAST_SERVER_DATA_PLANE_DATA_PLANE_H_
