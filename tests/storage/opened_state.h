// Everything that a server of index 0 takes from its data directory when it starts, through the code that ballast-server itself uses
// (data directory, store, run records, shards, coordinator), as something to compare. Blocks; one thread.
#ifndef BALLAST_TESTS_STORAGE_OPENED_STATE_H_
#define BALLAST_TESTS_STORAGE_OPENED_STATE_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"

namespace ballast::testing {

struct OpenedState {
  uint64_t incarnation = 0;
  std::map<std::string, std::string> facts;     // run definitions, positions, state hashes, manifests, epochs, rows trained, small records
  std::map<std::string, uint64_t> checkpoints;  // "run@version" -> hash of all its bytes
  uint64_t unreadable = 0;                      // checkpoints that are listed and refuse to be read
};

// Errors: those with which ballast-server would refuse to start, or stop soon after.
absl::StatusOr<OpenedState> OpenState(const std::string& dir);

}  // namespace ballast::testing

#endif  // BALLAST_TESTS_STORAGE_OPENED_STATE_H_
