// `ballast-server --replay DIR --print-hash`: replays every run's retained log below a data directory and prints the state hashes.
#ifndef BALLAST_SERVER_REPLAY_COMMAND_H_
#define BALLAST_SERVER_REPLAY_COMMAND_H_

#include <string>

namespace ballast {

// DIR is a data directory, one run's directory or one shard's. Prints one line for each shard, by run and shard, to stdout; problems to
// stderr. The server of the directory must be stopped. Returns the exit code: kExitOk, or kExitFailed when nothing was found or a log is
// bad.
int ReplayAndPrint(const std::string& dir, bool json);

}  // namespace ballast

#endif  // BALLAST_SERVER_REPLAY_COMMAND_H_
