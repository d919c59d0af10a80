// Exit codes of ballastctl, stable for scripts, and their text in --help.
#ifndef BALLAST_TOOLS_BALLASTCTL_EXIT_CODE_H_
#define BALLAST_TOOLS_BALLASTCTL_EXIT_CODE_H_

#include "absl/status/status.h"

namespace ballast::ctl {

enum ExitCode : int {
  kExitOk = 0,
  kExitCheckFailed = 1,  // e.g. verify found damage
  kExitUsage = 2,
  kExitNotFound = 3,
  kExitUnreachable = 4,  // or timed out
  kExitRefused = 5,      // precondition or permission
};

inline constexpr char kExitCodesHelp[] =
    "Exit codes: 0 ok; 1 a check failed (damage found); 2 usage; 3 not found; 4 unreachable or timed out; 5 refused.";

inline int ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitOk;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return kExitUsage;
    case absl::StatusCode::kNotFound:
      return kExitNotFound;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kCancelled:
      return kExitUnreachable;
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kAborted:
      return kExitRefused;
    default:
      return kExitCheckFailed;
  }
}

}  // namespace ballast::ctl

#endif  // BALLAST_TOOLS_BALLASTCTL_EXIT_CODE_H_
