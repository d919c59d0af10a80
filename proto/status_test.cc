#include "proto/status.h"

#include <gtest/gtest.h>

#include <string>

#include "core/status.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace ballast {
namespace {

TEST(StatusTest, ReasonAndMetadataSurviveTheWire) {
  const absl::Status sent = WithReason(absl::NotFoundError("no run \"r\""), "NO_RUN", {{"run", "r"}, {"server", "0"}});
  const absl::Status got = FromGrpc(ToGrpc(sent));
  EXPECT_EQ(got.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(got.message(), "no run \"r\"");
  EXPECT_EQ(ReasonOf(got), "NO_RUN");
  EXPECT_EQ(MetadataOf(got), (StatusMetadata{{"run", "r"}, {"server", "0"}}));
}

TEST(StatusTest, DetailsAreWhatStandardClientsExpect) {
  const grpc::Status wire = ToGrpc(WithReason(absl::UnavailableError("wait"), "NO_WORKER"));
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(wire.error_details()));
  EXPECT_EQ(details.code(), 14);
  ASSERT_EQ(details.details_size(), 1);
  EXPECT_EQ(details.details(0).type_url(), "type.googleapis.com/google.rpc.ErrorInfo");
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(details.details(0).UnpackTo(&info));
  EXPECT_EQ(info.domain(), "ballast");
  EXPECT_EQ(info.reason(), "NO_WORKER");
}

// Clients take 8 KiB of headers. What was larger came as "received initial metadata size exceeds limit", and gRPC ended other calls too.
TEST(StatusTest, GiantTextsFitTheTrailer) {
  for (const std::string& text : {std::string(5000, 'x'), std::string(5000, '\n'), std::string(2500, '%')}) {
    StatusMetadata metadata = {{"small", "1"}};
    for (int i = 0; i < 20; ++i) metadata["line_" + std::to_string(i)] = text.substr(0, 200 + static_cast<size_t>(i));
    metadata["giant"] = text;
    const grpc::Status wire = ToGrpc(WithReason(absl::NotFoundError(text), "NO_ARTIFACT", metadata));
    size_t encoded = (wire.error_details().size() + 2) / 3 * 4;
    for (char c : wire.error_message()) encoded += c == 'x' || c == ' ' || c == '.' ? 1 : 3;
    EXPECT_LE(encoded, 7168u);
    const absl::Status got = FromGrpc(wire);
    EXPECT_EQ(ReasonOf(got), "NO_ARTIFACT");
    EXPECT_EQ(MetadataOf(got).at("small"), "1");
    EXPECT_GT(got.message().size(), 600u);
    EXPECT_EQ(got.message().substr(got.message().size() - 4), " ...");
  }
}

TEST(StatusTest, ALongMessageIsCutBetweenCharacters) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "\xc3\xbc";  // U+00FC
  const grpc::Status wire = ToGrpc(absl::NotFoundError(text));
  EXPECT_EQ((wire.error_message().size() - 4) % 2, 0u);
  EXPECT_LE(3 * (wire.error_message().size() - 4) + 4, 2048u);
  EXPECT_EQ(ToGrpc(absl::NotFoundError("short \xc3\xbc")).error_message(), "short \xc3\xbc");
}

TEST(StatusTest, PlainStatusStaysPlain) {
  EXPECT_TRUE(ToGrpc(absl::OkStatus()).ok());
  EXPECT_TRUE(FromGrpc(grpc::Status::OK).ok());
  EXPECT_TRUE(ToGrpc(absl::InternalError("x")).error_details().empty());
  for (int code = 1; code <= 16; ++code) {
    const grpc::Status wire(static_cast<grpc::StatusCode>(code), "text");
    EXPECT_EQ(ToGrpc(FromGrpc(wire)).error_code(), code);
  }
}

TEST(StatusTest, ForeignOrDamagedDetailsAreIgnored) {
  const absl::Status damaged = FromGrpc(grpc::Status(grpc::StatusCode::ABORTED, "a", "\xff\xff\xff"));
  EXPECT_EQ(damaged.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(ReasonOf(damaged), "");

  google::rpc::ErrorInfo info;
  info.set_domain("example.org");
  info.set_reason("OTHER");
  google::rpc::Status details;
  details.add_details()->PackFrom(info);
  EXPECT_EQ(ReasonOf(FromGrpc(grpc::Status(grpc::StatusCode::ABORTED, "a", details.SerializeAsString()))), "");
}

}  // namespace
}  // namespace ballast
