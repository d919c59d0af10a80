#include "server/shard/recovery_progress.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/log.h"
#include "server/metrics.h"

namespace ballast {

RecoveryProgress::RecoveryProgress(std::string run, ShardMetrics* metrics, std::function<double()> clock)
    : run_(std::move(run)), metrics_(metrics), clock_(std::move(clock)), start_(clock_()), said_(start_) {}

RecoveryProgress::~RecoveryProgress() {
  if (metrics_ != nullptr && bytes_total_ > bytes_) metrics_->RecoveryRead(bytes_total_ - bytes_);
}

void RecoveryProgress::Expect(uint64_t bytes) {
  bytes_total_ += bytes;
  if (metrics_ != nullptr) metrics_->RecoveryExpects(bytes);
}

void RecoveryProgress::Read(uint64_t bytes, uint64_t records) {
  bytes_ += bytes;
  records_ += records;
  if (metrics_ != nullptr) metrics_->RecoveryRead(bytes);
  const std::optional<Report> report = Due(clock_());
  if (!report) return;
  LogInfo("recovering", {{"run", run_},
                         {"mib", absl::StrCat(report->bytes >> 20)},
                         {"mib_total", absl::StrCat(report->bytes_total >> 20)},
                         {"records", absl::StrCat(report->records)},
                         {"seconds_left", absl::StrFormat("%.0f", report->seconds_left)}});
}

std::optional<RecoveryProgress::Report> RecoveryProgress::Due(double now) {
  {
    absl::MutexLock lock(&mu_);
    if (now - said_ < kProgressSeconds) return std::nullopt;
    said_ = now;
  }
  Report report{bytes_, bytes_total_, records_, now - start_, 0};
  if (report.bytes > 0) {
    const uint64_t left = report.bytes_total - std::min(report.bytes_total, report.bytes);
    report.seconds_left = report.seconds * static_cast<double>(left) / static_cast<double>(report.bytes);
  }
  return report;
}

}  // namespace ballast
