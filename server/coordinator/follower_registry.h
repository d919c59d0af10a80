// The other servers of the cluster, as server 0 sees them: connected or not, where, in which life.
// Threads: the runner's only.
#ifndef BALLAST_SERVER_COORDINATOR_FOLLOWER_REGISTRY_H_
#define BALLAST_SERVER_COORDINATOR_FOLLOWER_REGISTRY_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "ballast/v1/control.pb.h"
#include "server/coordinator/peer.h"

namespace ballast {

class FollowerRegistry {
 public:
  // `self`: server 0, always connected. `servers`: all of them.
  FollowerRegistry(v1::ServerInfo self, uint32_t servers, std::string cluster_id);

  void SetOwnAddress(const std::string& address) { servers_[0].info.set_address(address); }

  // Checks the first message of a Follow stream and takes the server in. A stream that the same server had before is closed: it is a lost
  // connection. Errors (to close the new stream with): FailedPrecondition when index or cluster is not ours, and for an older life: that
  // process must stop.
  absl::Status Connect(StreamId stream, std::shared_ptr<Peer<v1::ShardDown>> peer, const v1::ShardUp::Open& open);
  // The index of the server whose stream it was; nullopt when another stream took its place.
  std::optional<uint32_t> Disconnect(StreamId stream);
  // The index of the server that this stream belongs to.
  std::optional<uint32_t> IndexOf(StreamId stream) const;

  bool Connected(uint32_t index) const { return index == 0 || servers_[index].peer != nullptr; }
  bool AllConnected() const;
  // Every address is known: since this process started each server has connected at least once.
  bool AllKnown() const;
  uint32_t connected() const;  // others than server 0
  uint64_t incarnation(uint32_t index) const { return servers_[index].info.incarnation(); }
  void Send(uint32_t index, v1::ShardDown message);  // dropped when it is not connected: a new connection starts with its position
  std::vector<v1::ServerInfo> Describe() const;
  std::string FirstMissing() const;  // "server 1", for messages

 private:
  struct Server {
    v1::ServerInfo info;
    StreamId stream = 0;
    std::shared_ptr<Peer<v1::ShardDown>> peer;
  };

  const std::string cluster_id_;
  std::vector<Server> servers_;
};

}  // namespace ballast

#endif  // BALLAST_SERVER_COORDINATOR_FOLLOWER_REGISTRY_H_
