// host:port texts and the sockets behind them, as far as gRPC and the metrics server do not say what is wrong. Any thread.
#ifndef BALLAST_SERVER_ADDRESSES_H_
#define BALLAST_SERVER_ADDRESSES_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ballast {

struct HostPort {
  std::string host;  // without brackets
  int port = 0;
  std::string Text() const;  // with brackets around an IPv6 address
};

// "127.0.0.1:7070", "[::1]:7070", "host:0". Errors: InvalidArgument.
absl::StatusOr<HostPort> ParseHostPort(const std::string& text);

bool IsLoopback(const std::string& host);
bool IsWildcard(const std::string& host);  // 0.0.0.0 or ::
std::string Hostname();

// Tries to listen, and lets go. Errors: Unavailable naming address and reason ("Address already in use").
absl::Status CheckCanListen(const HostPort& address);

}  // namespace ballast

#endif  // BALLAST_SERVER_ADDRESSES_H_
