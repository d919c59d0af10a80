// Named points in the server where a test build can end its own process, fail, wait or lose time. They sit on both sides of whatever a
// crash may cut in two; server/failpoint_list.h has the table. In other builds the macros are empty.
//
//   BALLAST_FAILPOINT("segment-written");
//   BALLAST_FAILPOINT_STATUS("segment-sync");   in a function that returns Status or StatusOr: may return an error there
//
// Environment of a test build (--config=mutate or the -mutable binaries):
//   BALLAST_FAILPOINTS           plans, "name=action[:argument][@nth][*count][%percent]", separated by ";"
//   BALLAST_FAILPOINTS_FILE      a file with plans, read again when it changes; its plans replace those of the variable
//   BALLAST_FAILPOINTS_SEED      of the coin behind %percent; default 1
//   BALLAST_FAILPOINTS_COVERAGE  a file that counts passes and firings over all lives of the process; written through a shared mapping, so
//                                nothing is lost when it is killed. kFailpoints records of CoverageLine
// Actions: kill (SIGKILL), exit[:status], error[:text] (Internal), pause:FILE (while FILE exists), delay:MILLISECONDS.
// @nth: fires from the nth pass after the plan was read on (default the first); *count: at most so often (default: always).
// Whatever fires says "failpoint NAME" on stderr first. A plan that cannot be read ends the process with status 2.
// Threads: any.
#ifndef BALLAST_SERVER_FAILPOINT_H_
#define BALLAST_SERVER_FAILPOINT_H_

#ifdef BALLAST_MUTATIONS

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/failpoint_list.h"

namespace ballast {

struct FailpointPlan {
  enum class Action { kKill, kExit, kError, kPause, kDelay };
  size_t point = 0;
  Action action = Action::kKill;
  std::string argument;
  uint64_t nth = 1;
  uint64_t count = UINT64_MAX;
  uint64_t percent = 100;
};

// InvalidArgument names what cannot be read.
[[nodiscard]] absl::StatusOr<std::vector<FailpointPlan>> ParseFailpointPlans(absl::string_view text);

// One record of the coverage file, in the order of the table.
struct CoverageLine {
  char name[48];
  uint64_t passes;
  uint64_t fired;
};

// Counts the pass and does what the plans say. Not OK: an error was planned.
[[nodiscard]] absl::Status PassFailpoint(size_t point);
// The same where no error can be returned: one that was planned there ends the process with status 2.
void PassPlainFailpoint(size_t point);

}  // namespace ballast

#define BALLAST_FAILPOINT(name)                                                                         \
  do {                                                                                                  \
    static_assert(::ballast::FailpointIndex(name) < ::ballast::kFailpoints, "not in failpoint_list.h"); \
    ::ballast::PassPlainFailpoint(::ballast::FailpointIndex(name));                                     \
  } while (false)
#define BALLAST_FAILPOINT_STATUS(name)                                                                                   \
  do {                                                                                                                   \
    static_assert(::ballast::FailpointIndex(name) < ::ballast::kFailpoints, "not in failpoint_list.h");                  \
    if (absl::Status planned = ::ballast::PassFailpoint(::ballast::FailpointIndex(name)); !planned.ok()) return planned; \
  } while (false)
#else
#define BALLAST_FAILPOINT(name) static_cast<void>(0)
#define BALLAST_FAILPOINT_STATUS(name) static_cast<void>(0)
#endif

#endif  // BALLAST_SERVER_FAILPOINT_H_
