#include "worker/metrics.h"

#include <map>
#include <string>
#include <vector>

#include "version.h"

namespace ballast {
namespace {

using Labels = std::map<std::string, std::string>;
using prometheus::Registry;

constexpr double kFrameBytes = 5;  // gRPC's prefix of every message: flag and length

prometheus::Counter& Counter(Registry& registry, const char* name, const char* help, const Labels& labels = {}) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(labels);
}

prometheus::Gauge& Gauge(Registry& registry, const char* name, const char* help, const Labels& labels = {}) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add(labels);
}

prometheus::Histogram& Histogram(Registry& registry, const char* name, const char* help, const Labels& labels = {}) {
  // 100 us to 60 s: from a receipt on a fast disk to the step of a large model on a CPU.
  static const std::vector<double>* const kBounds =
      new std::vector<double>{100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60};
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(labels, *kBounds);
}

}  // namespace

const char* PhaseName(Phase phase) {
  static constexpr const char* kNames[kPhases] = {"wait_rows", "wait_grant", "pull", "compute", "push", "commit"};
  return kNames[static_cast<size_t>(phase)];
}

WorkerMetrics::WorkerMetrics()
    : registry_(std::make_shared<Registry>()),
      feed_rows_(Counter(*registry_, "ballast_feed_received_rows_total", "Rows that tasks sent, duplicates included.")),
      feed_bytes_(Counter(*registry_, "ballast_feed_received_bytes_total", "Bytes of columns that tasks sent.")),
      feed_faults_(Counter(*registry_, "ballast_feed_faults_total", "Feeds that ended with a fault.")),
      feeds_(Gauge(*registry_, "ballast_feed_streams", "Open feeds.")),
      queue_bytes_(Gauge(*registry_, "ballast_feed_queue_bytes", "Bytes of rows that wait for their step to be decided.")),
      sessions_(Gauge(*registry_, "ballast_worker_sessions", "Open sessions.")),
      sessions_lost_(Counter(*registry_, "ballast_worker_sessions_lost_total", "Sessions that ended without this worker's wish.")),
      rows_trained_(Counter(*registry_, "ballast_worker_rows_trained_total", "Rows whose contribution was decided.")),
      contributions_(Counter(*registry_, "ballast_worker_contributions_total", "Contributions submitted.")),
      recomputed_(Counter(*registry_, "ballast_worker_recomputed_total", "Contributions computed again after a refusal.")),
      residual_norm_(Gauge(*registry_, "ballast_worker_residual_norm", "L2 norm of the error-feedback residuals of the last session.")),
      push_fp32_bytes_(Counter(*registry_, "ballast_push_fp32_bytes_total", "What the pushed payload would be in fp32 and i64.")),
      infer_seconds_(Histogram(*registry_, "ballast_infer_seconds", "One inference request.")),
      infer_rows_(Counter(*registry_, "ballast_infer_rows_total", "Rows scored.")),
      infer_failures_(Counter(*registry_, "ballast_infer_failures_total", "Inference requests that failed.")),
      warnings_(Counter(*registry_, "ballast_log_lines_total", "Log lines by severity.", {{"severity", "warning"}})),
      errors_(Counter(*registry_, "ballast_log_lines_total", "Log lines by severity.", {{"severity", "error"}})) {
  Gauge(*registry_, "ballast_build_info", "Always 1.", {{"version", kVersion}}).Set(1);
  static constexpr const char* kOutcomes[] = {"", "trained", "duplicate", "skipped"};
  for (size_t i = 1; i < batches_.size(); ++i) {
    batches_[i] =
        &Counter(*registry_, "ballast_feed_acknowledged_batches_total", "Batches acknowledged to tasks.", {{"outcome", kOutcomes[i]}});
  }
  for (size_t i = 0; i < kPhases; ++i) {
    phases_[i] = &Histogram(*registry_, "ballast_worker_phase_seconds", "Stretches of a session's time.",
                            {{"phase", PhaseName(static_cast<Phase>(i))}});
  }
  static constexpr const char* kMethods[] = {"push", "pull", "work", "feed"};
  for (size_t i = 0; i < sent_.size(); ++i) {
    sent_[i] = &Counter(*registry_, "ballast_wire_sent_bytes_total", "Message bytes sent.", {{"method", kMethods[i]}});
    received_[i] = &Counter(*registry_, "ballast_wire_received_bytes_total", "Message bytes received.", {{"method", kMethods[i]}});
  }
  static constexpr const char* kCodecs[] = {"", "fp32", "bf16", "int8", "i64"};
  for (size_t i = 1; i < push_bytes_.size(); ++i) {
    push_bytes_[i] = &Counter(*registry_, "ballast_push_sent_bytes_total", "Payload bytes of contributions sent.", {{"codec", kCodecs[i]}});
    pull_bytes_[i] =
        &Counter(*registry_, "ballast_pull_received_bytes_total", "Payload bytes of values received.", {{"codec", kCodecs[i]}});
  }
}

void WorkerMetrics::RowsReceived(uint64_t rows, uint64_t bytes) {
  feed_rows_.Increment(static_cast<double>(rows));
  feed_bytes_.Increment(static_cast<double>(bytes));
}
void WorkerMetrics::BatchAcknowledged(Outcome outcome) { batches_[static_cast<size_t>(outcome)]->Increment(); }
void WorkerMetrics::FeedFaulted() { feed_faults_.Increment(); }
void WorkerMetrics::SetFeeds(uint64_t feeds) { feeds_.Set(static_cast<double>(feeds)); }
void WorkerMetrics::SetQueueBytes(uint64_t bytes) { queue_bytes_.Set(static_cast<double>(bytes)); }
void WorkerMetrics::SetSessions(uint64_t sessions) { sessions_.Set(static_cast<double>(sessions)); }
void WorkerMetrics::SessionLost() { sessions_lost_.Increment(); }
void WorkerMetrics::Trained(uint64_t rows) { rows_trained_.Increment(static_cast<double>(rows)); }
void WorkerMetrics::Contribution(uint64_t recomputed) {
  contributions_.Increment();
  recomputed_.Increment(static_cast<double>(recomputed));
}
void WorkerMetrics::PhaseDone(Phase phase, double seconds) { phases_[static_cast<size_t>(phase)]->Observe(seconds); }
void WorkerMetrics::SetResidualNorm(double norm) { residual_norm_.Set(norm); }
void WorkerMetrics::Sent(WireMethod method, uint64_t bytes) {
  sent_[static_cast<size_t>(method)]->Increment(kFrameBytes + static_cast<double>(bytes));
}
void WorkerMetrics::Received(WireMethod method, uint64_t bytes) {
  received_[static_cast<size_t>(method)]->Increment(kFrameBytes + static_cast<double>(bytes));
}
void WorkerMetrics::PushBytes(Codec codec, uint64_t payload_bytes, uint64_t fp32_bytes) {
  push_bytes_[static_cast<size_t>(codec)]->Increment(static_cast<double>(payload_bytes));
  push_fp32_bytes_.Increment(static_cast<double>(fp32_bytes));
}
void WorkerMetrics::PullBytes(Codec codec, uint64_t bytes) {
  pull_bytes_[static_cast<size_t>(codec)]->Increment(static_cast<double>(bytes));
}
void WorkerMetrics::Inferred(double seconds, uint64_t rows, bool ok) {
  infer_seconds_.Observe(seconds);
  if (ok) {
    infer_rows_.Increment(static_cast<double>(rows));
  } else {
    infer_failures_.Increment();
  }
}
void WorkerMetrics::CountLogLine(bool error) { (error ? errors_ : warnings_).Increment(); }

}  // namespace ballast
