// ballastctl ckpt verify|diff|rm on data directories of stopped servers (stopped_server.h).
#ifndef BALLAST_TOOLS_BALLASTCTL_STORED_CHECKPOINTS_H_
#define BALLAST_TOOLS_BALLASTCTL_STORED_CHECKPOINTS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tools/ballastctl/commands.h"

namespace ballast::ctl {

// All checkpoints below `dirs`, or those of "RUN", or "RUN@VERSION". Every damage is a line on stderr; the status is the first.
absl::Status VerifyStored(Globals& globals, const std::vector<std::string>& dirs, const std::string& which);

// How far two checkpoints of one layout are apart, tensor by tensor, over the blocks that `dirs` hold.
absl::Status DiffStored(Globals& globals, const std::vector<std::string>& dirs, const std::string& before, const std::string& after);

// `dir`: of server 0.
absl::Status RemoveStored(Globals& globals, const std::string& dir, const std::string& which);

}  // namespace ballast::ctl

#endif  // BALLAST_TOOLS_BALLASTCTL_STORED_CHECKPOINTS_H_
