#include "core/status.h"

#include <gtest/gtest.h>

namespace ballast {
namespace {

TEST(StatusReason, ReasonAndMetadataComeBack) {
  const absl::Status status = WithReason(absl::NotFoundError("no run named x"), "RUN_NOT_FOUND", {{"run", "x"}, {"known", "y,z"}});
  EXPECT_EQ(ReasonOf(status), "RUN_NOT_FOUND");
  EXPECT_EQ(MetadataOf(status), (StatusMetadata{{"run", "x"}, {"known", "y,z"}}));
  EXPECT_EQ(status.message(), "no run named x");
}

TEST(StatusReason, StatusWithoutReasonHasNone) {
  EXPECT_EQ(ReasonOf(absl::InternalError("x")), "");
  EXPECT_TRUE(MetadataOf(absl::InternalError("x")).empty());
}

TEST(StatusReason, OkStaysOk) { EXPECT_TRUE(WithReason(absl::OkStatus(), "NEVER").ok()); }

}  // namespace
}  // namespace ballast
