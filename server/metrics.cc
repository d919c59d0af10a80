#include "server/metrics.h"

#include <map>
#include <string>
#include <vector>

#include "version.h"

namespace ballast {
namespace {

using Labels = std::map<std::string, std::string>;

prometheus::Counter& Counter(prometheus::Registry& registry, const char* name, const char* help, const Labels& labels = {}) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(labels);
}

prometheus::Gauge& Gauge(prometheus::Registry& registry, const char* name, const char* help, const Labels& labels = {}) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add(labels);
}

prometheus::Histogram& Histogram(prometheus::Registry& registry, const char* name, const char* help, const std::vector<double>& bounds) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, bounds);
}

// 50 us to 30 s: from one fdatasync on a fast disk to a checkpoint of a large run.
const std::vector<double>& SecondsBounds() {
  static const std::vector<double>* const kBounds =
      new std::vector<double>{50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30};
  return *kBounds;
}

const char* CodecLabel(size_t codec) {
  static constexpr const char* kNames[] = {"", "fp32", "bf16", "int8", "i64"};
  return kNames[codec];
}

}  // namespace

ShardMetrics::ShardMetrics(prometheus::Registry& r)
    : push_seconds_(Histogram(r, "ballast_push_seconds", "From the first chunk of a contribution to its receipt.", SecondsBounds())),
      push_refused_(Counter(r, "ballast_push_failures_total", "Contributions that were refused.")),
      apply_seconds_(Histogram(r, "ballast_shard_apply_seconds", "Decode, sum and optimizer of one decision.", SecondsBounds())),
      fsync_seconds_(Histogram(r, "ballast_log_fsync_seconds", "One fdatasync of a log segment.", SecondsBounds())),
      log_bytes_(Counter(r, "ballast_log_written_bytes_total", "Bytes written to logs, padding included.")),
      log_debt_(Gauge(r, "ballast_log_debt_bytes", "Bytes of log that a restart would have to replay.")),
      log_debt_seconds_(Gauge(r, "ballast_log_debt_seconds", "Estimated seconds that a restart would replay the log for.")),
      recovery_expected_(
          Gauge(r, "ballast_recovery_expected_bytes", "Bytes of checkpoints and logs that this start has to read, as far as known.")),
      recovery_read_(Gauge(r, "ballast_recovery_read_bytes", "Of them, read. Equal: every run that was begun is recovered.")),
      queue_bytes_(Gauge(r, "ballast_push_queue_bytes", "Pushed bytes that wait for the owner threads.")),
      checkpoint_seconds_(Histogram(r, "ballast_checkpoint_seconds", "One shard's part of a checkpoint.", SecondsBounds())),
      checkpoint_bytes_(Counter(r, "ballast_checkpoint_written_bytes_total", "Bytes of checkpoint blocks written.")),
      checkpoint_failures_(Counter(r, "ballast_checkpoint_failures_total", "Checkpoints that could not be written.")),
      checkpoint_last_(
          Gauge(r, "ballast_checkpoint_last_success_timestamp_seconds", "Unix time of the newest checkpoint on this server.")) {}

void ShardMetrics::PushDone(double seconds) { push_seconds_.Observe(seconds); }
void ShardMetrics::PushRefused() { push_refused_.Increment(); }
void ShardMetrics::Applied(double seconds) { apply_seconds_.Observe(seconds); }
void ShardMetrics::Synced(double seconds) { fsync_seconds_.Observe(seconds); }
void ShardMetrics::LogWritten(uint64_t bytes) { log_bytes_.Increment(static_cast<double>(bytes)); }
void ShardMetrics::AddLogDebt(int64_t bytes) { log_debt_.Increment(static_cast<double>(bytes)); }
void ShardMetrics::AddDebtSeconds(double seconds) { log_debt_seconds_.Increment(seconds); }
void ShardMetrics::RecoveryExpects(uint64_t bytes) { recovery_expected_.Increment(static_cast<double>(bytes)); }
void ShardMetrics::RecoveryRead(uint64_t bytes) { recovery_read_.Increment(static_cast<double>(bytes)); }
void ShardMetrics::AddQueueBytes(int64_t bytes) { queue_bytes_.Increment(static_cast<double>(bytes)); }
void ShardMetrics::CheckpointDone(double seconds, uint64_t bytes, double unix_seconds) {
  checkpoint_seconds_.Observe(seconds);
  checkpoint_bytes_.Increment(static_cast<double>(bytes));
  checkpoint_last_.Set(unix_seconds);
}
void ShardMetrics::CheckpointFailed() { checkpoint_failures_.Increment(); }

DataPlaneMetrics::DataPlaneMetrics(prometheus::Registry& r)
    : push_wire_in_(
          Counter(r, "ballast_wire_received_bytes_total", "Message bytes received on Push and Pull streams.", {{"method", "push"}})),
      push_wire_out_(Counter(r, "ballast_wire_sent_bytes_total", "Message bytes sent on Push and Pull streams.", {{"method", "push"}})),
      pull_wire_in_(
          Counter(r, "ballast_wire_received_bytes_total", "Message bytes received on Push and Pull streams.", {{"method", "pull"}})),
      pull_wire_out_(Counter(r, "ballast_wire_sent_bytes_total", "Message bytes sent on Push and Pull streams.", {{"method", "pull"}})),
      pull_wait_seconds_(Histogram(r, "ballast_pull_wait_seconds", "From a want to the version that it asked for.", SecondsBounds())),
      pull_seconds_(Histogram(r, "ballast_pull_seconds", "From the version being there to its last chunk being sent.", SecondsBounds())),
      push_streams_(Gauge(r, "ballast_push_streams", "Open Push streams.")),
      pull_streams_(Gauge(r, "ballast_pull_streams", "Open Pull streams.")),
      push_held_back_(Counter(r, "ballast_push_held_back_total", "Times a Push stream was not read because its run's queue was full.")),
      slow_readers_(Counter(r, "ballast_pull_slow_readers_total", "Pull streams that were closed because their reader took nothing.")) {
  for (size_t codec = 1; codec < push_bytes_.size(); ++codec) {
    const Labels label = {{"codec", CodecLabel(codec)}};
    push_bytes_[codec] = &Counter(r, "ballast_push_received_bytes_total", "Payload bytes of contributions received.", label);
    pull_bytes_[codec] = &Counter(r, "ballast_pull_sent_bytes_total", "Payload bytes of values sent.", label);
  }
}

namespace {
constexpr double kFrameBytes = 5;  // gRPC's prefix of every message: flag and length
}  // namespace

void DataPlaneMetrics::PushMessage(uint64_t message_bytes) { push_wire_in_.Increment(kFrameBytes + static_cast<double>(message_bytes)); }
void DataPlaneMetrics::PushReplySent(uint64_t message_bytes) { push_wire_out_.Increment(kFrameBytes + static_cast<double>(message_bytes)); }
void DataPlaneMetrics::PullMessage(uint64_t message_bytes) { pull_wire_in_.Increment(kFrameBytes + static_cast<double>(message_bytes)); }
void DataPlaneMetrics::PullSent(uint64_t message_bytes) { pull_wire_out_.Increment(kFrameBytes + static_cast<double>(message_bytes)); }
void DataPlaneMetrics::PushBytes(Codec codec, uint64_t bytes) {
  push_bytes_[static_cast<size_t>(codec)]->Increment(static_cast<double>(bytes));
}
void DataPlaneMetrics::PullBytes(Codec codec, uint64_t bytes) {
  pull_bytes_[static_cast<size_t>(codec)]->Increment(static_cast<double>(bytes));
}
void DataPlaneMetrics::PullWaited(double seconds) { pull_wait_seconds_.Observe(seconds); }
void DataPlaneMetrics::PullDone(double seconds) { pull_seconds_.Observe(seconds); }
void DataPlaneMetrics::AddPushStreams(int delta) { push_streams_.Increment(delta); }
void DataPlaneMetrics::AddPullStreams(int delta) { pull_streams_.Increment(delta); }
void DataPlaneMetrics::SlowReader() { slow_readers_.Increment(); }
void DataPlaneMetrics::PushHeldBack() { push_held_back_.Increment(); }

CoordinatorMetrics::CoordinatorMetrics(prometheus::Registry& r)
    : steps_(Counter(r, "ballast_coordinator_steps_total", "STEP decisions.")),
      steps_part_full_(Counter(r, "ballast_coordinator_steps_part_full_total", "Steps that closed with fewer rows than step_rows.")),
      rows_trained_(Counter(r, "ballast_coordinator_rows_trained_total", "Rows whose contribution was decided.")),
      rows_skipped_(Counter(r, "ballast_coordinator_rows_skipped_total", "Rows that were skipped on the record.")),
      duplicates_(Counter(r, "ballast_coordinator_duplicates_total", "Batches that were answered DUPLICATE.")),
      lag_(Histogram(r, "ballast_coordinator_staleness_versions", "Versions between what a contribution was computed from and its step.",
                     {0, 1, 2, 4, 8, 16, 32, 64})),
      commit_seconds_(
          Histogram(r, "ballast_coordinator_commit_seconds", "From a decision being made to it being durable.", SecondsBounds())),
      sessions_(Gauge(r, "ballast_coordinator_sessions", "Live sessions.")),
      runs_(Gauge(r, "ballast_coordinator_runs", "Runs.")),
      workers_(Gauge(r, "ballast_coordinator_workers", "Attached workers.")),
      followers_(Gauge(r, "ballast_coordinator_followers", "Other servers that are connected.")),
      mailbox_(Gauge(r, "ballast_coordinator_queue_messages", "Messages that wait for the coordinator thread.")) {}

void CoordinatorMetrics::Steps(uint64_t steps, uint64_t part_full) {
  steps_.Increment(static_cast<double>(steps));
  steps_part_full_.Increment(static_cast<double>(part_full));
}
void CoordinatorMetrics::Rows(uint64_t trained, uint64_t skipped) {
  rows_trained_.Increment(static_cast<double>(trained));
  rows_skipped_.Increment(static_cast<double>(skipped));
}
void CoordinatorMetrics::Duplicates(uint64_t batches) { duplicates_.Increment(static_cast<double>(batches)); }
void CoordinatorMetrics::Lag(uint64_t versions) { lag_.Observe(static_cast<double>(versions)); }
void CoordinatorMetrics::Committed(double seconds) { commit_seconds_.Observe(seconds); }
void CoordinatorMetrics::SetSessions(uint64_t sessions) { sessions_.Set(static_cast<double>(sessions)); }
void CoordinatorMetrics::SetRuns(uint64_t runs) { runs_.Set(static_cast<double>(runs)); }
void CoordinatorMetrics::SetWorkers(uint64_t workers) { workers_.Set(static_cast<double>(workers)); }
void CoordinatorMetrics::SetFollowers(uint64_t servers) { followers_.Set(static_cast<double>(servers)); }
void CoordinatorMetrics::SetMailbox(uint64_t messages) { mailbox_.Set(static_cast<double>(messages)); }

Metrics::Metrics()
    : registry_(std::make_shared<prometheus::Registry>()),
      shard_(*registry_),
      data_plane_(*registry_),
      coordinator_(*registry_),
      warnings_(
          Counter(*registry_, "ballast_messages_logged_total", "Log lines of severity warning and error.", {{"severity", "warning"}})),
      errors_(Counter(*registry_, "ballast_messages_logged_total", "Log lines of severity warning and error.", {{"severity", "error"}})) {
  Gauge(*registry_, "ballast_build_info", "1, with the release as a label.", {{"version", kVersion}}).Set(1);
}

void Metrics::CountLogLine(bool error) { (error ? errors_ : warnings_).Increment(); }

}  // namespace ballast
