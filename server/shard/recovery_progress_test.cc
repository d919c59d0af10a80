#include "server/shard/recovery_progress.h"

#include <gtest/gtest.h>

#include <string>

#include "server/metrics.h"

namespace ballast {
namespace {

double Sample(const Metrics& metrics, const std::string& name) {
  for (const prometheus::MetricFamily& family : metrics.registry()->Collect()) {
    if (family.name == name) return family.metric.at(0).gauge.value;
  }
  return -1;
}

TEST(RecoveryProgress, SaysHowFarItIsEveryFewSeconds) {
  RecoveryProgress progress("r", nullptr, [] { return 100.0; });
  progress.Expect(4000);
  progress.Read(1000, 7);
  EXPECT_FALSE(progress.Due(102.9).has_value());
  const auto report = progress.Due(105);
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->bytes, 1000u);
  EXPECT_EQ(report->bytes_total, 4000u);
  EXPECT_EQ(report->records, 7u);
  EXPECT_EQ(report->seconds, 5);
  EXPECT_EQ(report->seconds_left, 15);  // 3000 bytes at 200 a second
  EXPECT_FALSE(progress.Due(107).has_value());
}

TEST(RecoveryProgress, NothingReadYetHasNoEstimateAndNoDivision) {
  RecoveryProgress progress("r", nullptr, [] { return 0.0; });
  EXPECT_EQ(progress.Due(4)->seconds_left, 0);
}

TEST(RecoveryProgress, MetricsEndAtTheWhole) {
  Metrics metrics;
  {
    RecoveryProgress progress("r", &metrics.shard(), [] { return 0.0; });
    progress.Expect(500);
    progress.Read(100);
    EXPECT_EQ(Sample(metrics, "ballast_recovery_expected_bytes"), 500);
    EXPECT_EQ(Sample(metrics, "ballast_recovery_read_bytes"), 100);
  }
  EXPECT_EQ(Sample(metrics, "ballast_recovery_read_bytes"), 500);
}

}  // namespace
}  // namespace ballast
