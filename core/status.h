// Machine-readable reasons on absl::Status: UPPER_SNAKE words that clients switch on, with details as key-value pairs.
// proto/status.h turns them into google.rpc.ErrorInfo at the wire. Pure functions.
#ifndef BALLAST_CORE_STATUS_H_
#define BALLAST_CORE_STATUS_H_

#include <initializer_list>
#include <map>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace ballast {

using StatusMetadata = std::map<std::string, std::string>;

// `status` with a reason; an OK status stays as it is.
absl::Status WithReason(absl::Status status, absl::string_view reason, const StatusMetadata& metadata = {});

// Empty when there is none.
std::string ReasonOf(const absl::Status& status);
StatusMetadata MetadataOf(const absl::Status& status);

}  // namespace ballast

#endif  // BALLAST_CORE_STATUS_H_
