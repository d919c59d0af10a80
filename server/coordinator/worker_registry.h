// The attached worker processes: who they are, how many feeds each has, which runs they were told to serve.
// Threads: the runner's only. Time is an argument.
#ifndef BALLAST_SERVER_COORDINATOR_WORKER_REGISTRY_H_
#define BALLAST_SERVER_COORDINATOR_WORKER_REGISTRY_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "ballast/v1/control.pb.h"
#include "core/coordinator/coordinator.h"
#include "server/coordinator/peer.h"

namespace ballast {

class WorkerRegistry {
 public:
  // The first message of an Attach stream. A worker of the same name is replaced: its old stream is a lost connection.
  void Attach(StreamId stream, std::shared_ptr<Peer<v1::WorkerDown>> peer, const v1::WorkerUp& first);
  void OnFeeds(StreamId stream, const v1::WorkerUp& update);
  void Detach(StreamId stream);
  bool Knows(StreamId stream) const { return workers_.contains(stream); }
  size_t size() const { return workers_.size(); }

  // Tells every worker what changed since it was last told. Cheap when nothing did.
  void Tell(const std::vector<v1::ServerInfo>& servers, const std::vector<std::string>& serve);

  // The worker for a new feed of `run`; null when there is none. A placed feed counts until its worker reports it, at most kPlacedMs.
  const v1::WorkerInfo* Place(const std::string& run, absl::Span<const std::string> avoid, int64_t now_ms);

  void AddSession(const std::string& worker, int delta);
  std::vector<v1::WorkerInfo> Describe() const;

 private:
  static constexpr int64_t kPlacedMs = 5000;

  struct Placed {
    std::string run;
    int64_t at_ms;
  };
  struct Worker {
    std::shared_ptr<Peer<v1::WorkerDown>> peer;
    v1::WorkerInfo info;
    std::map<std::string, uint32_t> feeds;  // as reported
    std::vector<Placed> placed;             // oldest first, not reported yet
    bool told = false;
    std::string told_servers;  // what it was told last, serialized
    std::vector<std::string> told_serve;
  };

  std::map<StreamId, Worker> workers_;
  std::map<std::string, int> sessions_;  // by worker name
};

}  // namespace ballast

#endif  // BALLAST_SERVER_COORDINATOR_WORKER_REGISTRY_H_
