#include "core/status.h"

#include "absl/strings/cord.h"
#include "absl/strings/match.h"

namespace ballast {
namespace {

constexpr char kReasonUrl[] = "ballast.reason";
constexpr char kMetadataUrlPrefix[] = "ballast.metadata/";

}  // namespace

absl::Status WithReason(absl::Status status, absl::string_view reason, const StatusMetadata& metadata) {
  if (status.ok()) return status;
  status.SetPayload(kReasonUrl, absl::Cord(reason));
  for (const auto& [key, value] : metadata) status.SetPayload(kMetadataUrlPrefix + key, absl::Cord(value));
  return status;
}

std::string ReasonOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kReasonUrl);
  return payload ? std::string(*payload) : "";
}

StatusMetadata MetadataOf(const absl::Status& status) {
  StatusMetadata metadata;
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& value) {
    if (absl::StartsWith(url, kMetadataUrlPrefix)) metadata[std::string(url.substr(sizeof(kMetadataUrlPrefix) - 1))] = std::string(value);
  });
  return metadata;
}

}  // namespace ballast
