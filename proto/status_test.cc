#include "proto/status.h"

#include <gtest/gtest.h>

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
