#include "worker/session/cluster.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace ballast {
namespace {

constexpr int kMessageMax = 64 << 20;  // the largest answer: a run with its tensors and layout

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments args;
  args.SetMaxReceiveMessageSize(kMessageMax);
  args.SetMaxSendMessageSize(kMessageMax);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);  // a server restarts within a second or so
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  args.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);  // pushes are repeated by uid, never by the transport
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), args);
}

}  // namespace

Cluster::Cluster(std::string control_address) : control_address_(std::move(control_address)), control_(Connect(control_address_)) {}

void Cluster::Update(const google::protobuf::RepeatedPtrField<v1::ServerInfo>& servers) {
  absl::MutexLock lock(&mu_);
  for (const v1::ServerInfo& server : servers) {
    if (server.address().empty() || server.index() >= 1024) continue;
    if (addresses_.size() <= server.index()) addresses_.resize(server.index() + 1);
    addresses_[server.index()] = server.address();
  }
}

size_t Cluster::size() const {
  absl::MutexLock lock(&mu_);
  return addresses_.size();
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> Cluster::Shard(uint32_t index) {
  absl::MutexLock lock(&mu_);
  if (index >= addresses_.size() || addresses_[index].empty()) {
    return absl::UnavailableError(absl::StrCat("the address of server ", index, " is not known yet"));
  }
  std::shared_ptr<grpc::Channel>& channel = channels_[addresses_[index]];
  if (channel == nullptr) channel = Connect(addresses_[index]);
  return channel;
}

std::string Cluster::AddressOf(uint32_t index) const {
  absl::MutexLock lock(&mu_);
  return index < addresses_.size() ? addresses_[index] : "";
}

}  // namespace ballast
