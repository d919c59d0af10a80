// Server s > 0: one Follow stream to server 0, kept up with back-off for as long as the process lives. Opens and removes runs as it is
// told, hands decisions to the shards, sends their events.
//
// A new connection starts with the position of each run; events that a shard had before are covered by it. Events that happen while a
// position is being taken are sent after it, so server 0 never hears of something older than what it knows.
//
// Threads: one that dials and reads, one that writes, one that opens runs. Any shard thread may report an event.
#ifndef BALLAST_SERVER_COORDINATOR_FOLLOWER_H_
#define BALLAST_SERVER_COORDINATOR_FOLLOWER_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "ballast/v1/control.grpc.pb.h"
#include "server/mailbox.h"
#include "server/run_opener.h"
#include "server/run_table.h"
#include "server/storage/store.h"
#include "steady.h"

namespace ballast {

class Follower {
 public:
  struct Options {
    std::string coordinator;  // host:port of server 0
    uint32_t index = 1;
    uint32_t servers = 2;
    uint64_t incarnation = 1;
    std::string address;  // of this server, for workers
    std::string metrics_address;
    std::function<void()> ready;  // every run that server 0 named at its welcome is open; called once, from the opener thread
    std::function<void(const absl::Status&)>
        fatal;  // refused by the cluster (FailedPrecondition), or a shard failed: the process must stop
  };
  Follower(Options options, Store* store, RunOpener* opener, RunTable* runs);
  ~Follower();  // Stop()

  void Start();
  // Ends the stream and the threads; the shards stay open.
  void Stop();

 private:
  using Stream = grpc::ClientReaderWriter<v1::ShardUp, v1::ShardDown>;
  class Events;

  void Loop();
  absl::Status FollowOnce();
  absl::Status OnWelcome(const v1::ShardDown& message);
  void OnMessage(uint64_t connection, const v1::ShardDown& message);
  void Open(uint64_t connection, const v1::Run& run);  // opener thread, as the next four
  void SayReady();
  void Close(const std::string& run, bool remove);
  void RemoveOthers(const std::set<std::string>& known);
  void Announce(uint64_t connection, const std::string& run);
  void Report(const std::string& run, v1::ShardUp message) ABSL_LOCKS_EXCLUDED(mu_);
  void Write(v1::ShardUp message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);  // on the connection of now

  const Options options_;
  Store* const store_;
  RunOpener* const opener_;
  RunTable* const runs_;

  std::unique_ptr<v1::Control::Stub> stub_;
  absl::StatusCode said_ = absl::StatusCode::kOk;  // loop thread: why there is no connection, when it was last said
  uint32_t runs_due_ = 0;  // opener thread, as the next: OpenRun messages that are missing until this server is ready
  bool said_ready_ = false;

  absl::Mutex mu_;
  uint64_t connection_ ABSL_GUARDED_BY(mu_) = 0;               // grows with each; 0: none was made yet
  std::shared_ptr<Stream> stream_ ABSL_GUARDED_BY(mu_);        // null: not connected
  grpc::ClientContext* call_ ABSL_GUARDED_BY(mu_) = nullptr;   // of stream_, to cancel it
  uint64_t coordinator_incarnation_ ABSL_GUARDED_BY(mu_) = 0;  // highest ever seen; stored before it counts
  // Runs announced on this connection. While the position is being taken their events wait here.
  struct Announced {
    bool taking = true;
    std::vector<v1::ShardUp> waiting;
  };
  std::map<std::string, Announced> announced_ ABSL_GUARDED_BY(mu_);

  Signal stopping_;
  Mailbox writer_;
  Mailbox opener_thread_;
  std::thread loop_;
};

}  // namespace ballast

#endif  // BALLAST_SERVER_COORDINATOR_FOLLOWER_H_
