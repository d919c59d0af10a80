#include "server/coordinator/follower_registry.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/status.h"
#include "server/log.h"

namespace ballast {

FollowerRegistry::FollowerRegistry(v1::ServerInfo self, uint32_t servers, std::string cluster_id)
    : cluster_id_(std::move(cluster_id)), servers_(servers) {
  for (uint32_t i = 0; i < servers; ++i) servers_[i].info.set_index(i);
  self.set_index(0);
  self.set_connected(true);
  servers_[0].info = std::move(self);
}

absl::Status FollowerRegistry::Connect(StreamId stream, std::shared_ptr<Peer<v1::ShardDown>> peer, const v1::ShardUp::Open& open) {
  if (open.index() == 0 || open.index() >= servers_.size()) {
    return WithReason(
        absl::FailedPreconditionError(absl::StrCat("this cluster has the servers 0 to ", servers_.size() - 1, "; there is no server ",
                                                   open.index(), ": start it with the --servers of server 0")),
        "SERVER_INDEX");
  }
  if (!open.cluster_id().empty() && open.cluster_id() != cluster_id_) {
    return WithReason(absl::FailedPreconditionError(
                          absl::StrCat("server ", open.index(), " holds data of cluster ", open.cluster_id(), ", this is cluster ",
                                       cluster_id_, ": start it with the directory that belongs to this cluster, or with an empty one")),
                      "CLUSTER_DIFFERS");
  }
  Server& server = servers_[open.index()];
  if (open.incarnation() < server.info.incarnation()) {
    return WithReason(
        absl::FailedPreconditionError(absl::StrCat(
            "server ", open.index(), " has connected in a later life (", server.info.incarnation(), ") from ", server.info.address(),
            ": this process, life ", open.incarnation(),
            ", is a zombie, or its data directory was copied. Let one of them run only; started again it takes the other's place")),
        "OLD_INCARNATION");
  }
  if (server.peer != nullptr) server.peer->Close(WithReason(absl::AbortedError("the server connected again"), "REPLACED"));
  server.stream = stream;
  server.peer = std::move(peer);
  server.info.set_address(open.address());
  server.info.set_connected(true);
  server.info.set_incarnation(open.incarnation());
  server.info.set_release(open.hello().release());
  server.info.set_metrics_address(open.metrics_address());
  LogInfo("server connected",
          {{"server", absl::StrCat(open.index())}, {"address", open.address()}, {"incarnation", absl::StrCat(open.incarnation())}});
  return absl::OkStatus();
}

std::optional<uint32_t> FollowerRegistry::Disconnect(StreamId stream) {
  const std::optional<uint32_t> index = IndexOf(stream);
  if (!index) return std::nullopt;
  servers_[*index].peer = nullptr;
  servers_[*index].info.set_connected(false);
  LogWarning("server disconnected", {{"server", absl::StrCat(*index)}});
  return index;
}

std::optional<uint32_t> FollowerRegistry::IndexOf(StreamId stream) const {
  for (uint32_t i = 1; i < servers_.size(); ++i) {
    if (servers_[i].peer != nullptr && servers_[i].stream == stream) return i;
  }
  return std::nullopt;
}

bool FollowerRegistry::AllConnected() const {
  return std::all_of(servers_.begin(), servers_.end(), [](const Server& server) { return server.info.connected(); });
}

bool FollowerRegistry::AllKnown() const {
  return std::all_of(servers_.begin(), servers_.end(), [](const Server& server) { return !server.info.address().empty(); });
}

uint32_t FollowerRegistry::connected() const {
  return std::count_if(servers_.begin(), servers_.end(), [](const Server& server) { return server.peer != nullptr; });
}

void FollowerRegistry::Send(uint32_t index, v1::ShardDown message) {
  if (servers_[index].peer != nullptr) servers_[index].peer->Send(std::move(message));
}

std::vector<v1::ServerInfo> FollowerRegistry::Describe() const {
  std::vector<v1::ServerInfo> infos;
  for (const Server& server : servers_) infos.push_back(server.info);
  return infos;
}

std::string FollowerRegistry::FirstMissing() const {
  for (const Server& server : servers_) {
    if (!server.info.connected()) return absl::StrCat("server ", server.info.index());
  }
  return "";
}

}  // namespace ballast
