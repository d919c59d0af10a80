#include "proto/status.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "core/status.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace ballast {
namespace {

constexpr char kDomain[] = "ballast";
constexpr size_t kMessageEncodedMax = 2048;  // on the wire; it travels twice when there are details
constexpr size_t kTrailerEncodedMax = 7168;  // gRPC takes 8 KiB of headers by default, ours are not the only ones
constexpr absl::string_view kCut = " ...";

bool IsPlain(char c) { return c >= 0x20 && c <= 0x7e && c != '%'; }

// What fits the trailer, percent-encoded as gRPC does it, cut between two characters of UTF-8.
std::string Fitting(absl::string_view message) {
  size_t encoded = 0, end = 0;
  for (size_t i = 0; i < message.size(); ++i) {
    if ((static_cast<unsigned char>(message[i]) & 0xc0) != 0x80 && encoded + kCut.size() <= kMessageEncodedMax) end = i;
    encoded += IsPlain(message[i]) ? 1 : 3;
  }
  return encoded <= kMessageEncodedMax ? std::string(message) : absl::StrCat(message.substr(0, end), kCut);
}

size_t Base64Bytes(size_t bytes) { return (bytes + 2) / 3 * 4; }

std::string Details(const absl::Status& status, const std::string& message, const StatusMetadata& metadata) {
  google::rpc::ErrorInfo info;
  info.set_reason(ReasonOf(status));
  info.set_domain(kDomain);
  for (const auto& [key, value] : metadata) (*info.mutable_metadata())[key] = value;
  google::rpc::Status details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(message);
  details.add_details()->PackFrom(info);
  return details.SerializeAsString();
}

}  // namespace

// The canonical codes of Abseil and gRPC have the same numbers.
grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const auto code = static_cast<grpc::StatusCode>(status.code());
  const std::string message = Fitting(status.message());
  if (ReasonOf(status).empty()) return grpc::Status(code, message);

  // A client that gets more than it takes sees neither reason nor message, and gRPC 1.51 then ends other calls of the connection as well.
  StatusMetadata metadata = MetadataOf(status);
  std::string details = Details(status, message, metadata);
  while (Base64Bytes(details.size()) + kMessageEncodedMax > kTrailerEncodedMax && !metadata.empty()) {
    metadata.erase(std::max_element(metadata.begin(), metadata.end(), [](const auto& x, const auto& y) {
      return x.first.size() + x.second.size() < y.first.size() + y.second.size();
    }));
    details = Details(status, message, metadata);
  }
  return grpc::Status(code, message, details);
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const absl::Status plain(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  google::rpc::Status details;
  if (status.error_details().empty() || !details.ParseFromString(status.error_details())) return plain;
  for (const auto& any : details.details()) {
    google::rpc::ErrorInfo info;
    if (!any.UnpackTo(&info) || info.domain() != kDomain) continue;
    return WithReason(plain, info.reason(), StatusMetadata(info.metadata().begin(), info.metadata().end()));
  }
  return plain;
}

}  // namespace ballast
