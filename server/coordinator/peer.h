// The far end of one stream, as the runner sees it. server/control implements it over gRPC; tests implement it with a vector.
// Threads: any. Nothing blocks.
#ifndef BALLAST_SERVER_COORDINATOR_PEER_H_
#define BALLAST_SERVER_COORDINATOR_PEER_H_

#include <cstdint>

#include "absl/status/status.h"

namespace ballast {

using StreamId = uint64_t;  // of this process; never reused

template <typename Down>
class Peer {
 public:
  virtual ~Peer() = default;
  // Queued in order. A reader that falls too far behind is closed (RESOURCE_EXHAUSTED).
  virtual void Send(Down message) = 0;
  // After what is queued; the first call counts.
  virtual void Close(const absl::Status& status) = 0;
  // One message of this stream has been dealt with: the stream may read on.
  virtual void Handled() = 0;
};

}  // namespace ballast

#endif  // BALLAST_SERVER_COORDINATOR_PEER_H_
