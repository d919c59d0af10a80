// Every metric of ballast-server: names, help texts, units and labels are in this file and metrics.cc, nowhere else. Logic calls a method.
// Conventions: base units, `_total` for counters, histograms in seconds, labels of few values (method, codec, severity), never an id.
//
// Threads: every method from any thread. Observing a histogram takes a lock, so call it per chunk, step or request, never per row.
#ifndef BALLAST_SERVER_METRICS_H_
#define BALLAST_SERVER_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <array>
#include <cstdint>
#include <memory>

#include "core/types.h"

namespace ballast {

// Of all shards of this process together.
class ShardMetrics {
 public:
  explicit ShardMetrics(prometheus::Registry& registry);

  void PushDone(double seconds);         // first chunk of a contribution taken -> its receipt
  void PushRefused();                    // a contribution was refused, whatever the reason
  void Applied(double seconds);          // one decision that changed values
  void Synced(double seconds);           // one fdatasync of a log
  void LogWritten(uint64_t bytes);       // as written, padding included
  void AddLogDebt(int64_t bytes);        // log that a restart would read; negative when it is cut
  void AddDebtSeconds(double seconds);   // of replay, estimated; negative when a checkpoint covers it
  void RecoveryExpects(uint64_t bytes);  // of checkpoint and log, before they are read
  void RecoveryRead(uint64_t bytes);
  double RecoveryBytesExpected() const { return recovery_expected_.Value(); }
  double RecoveryBytesRead() const { return recovery_read_.Value(); }
  void AddQueueBytes(int64_t bytes);  // pushed chunks that wait for the owner thread
  void CheckpointDone(double seconds, uint64_t bytes, double unix_seconds);
  void CheckpointFailed();

 private:
  prometheus::Histogram& push_seconds_;
  prometheus::Counter& push_refused_;
  prometheus::Histogram& apply_seconds_;
  prometheus::Histogram& fsync_seconds_;
  prometheus::Counter& log_bytes_;
  prometheus::Gauge& log_debt_;
  prometheus::Gauge& log_debt_seconds_;
  prometheus::Gauge& recovery_expected_;
  prometheus::Gauge& recovery_read_;
  prometheus::Gauge& queue_bytes_;
  prometheus::Histogram& checkpoint_seconds_;
  prometheus::Counter& checkpoint_bytes_;
  prometheus::Counter& checkpoint_failures_;
  prometheus::Gauge& checkpoint_last_;
};

// The Push and Pull streams. "Wire" bytes are whole messages with gRPC's 5 bytes of framing; the others are payload by codec.
class DataPlaneMetrics {
 public:
  explicit DataPlaneMetrics(prometheus::Registry& registry);

  void PushMessage(uint64_t message_bytes);
  void PushBytes(Codec codec, uint64_t payload_bytes);
  void PushReplySent(uint64_t message_bytes);
  void PullMessage(uint64_t message_bytes);  // a Want
  void PullSent(uint64_t message_bytes);
  void PullBytes(Codec codec, uint64_t payload_bytes);
  void PullWaited(double seconds);  // Want taken -> version there
  void PullDone(double seconds);    // version there -> last chunk handed to the transport
  void AddPushStreams(int delta);
  void AddPullStreams(int delta);
  void SlowReader();    // a Pull stream was closed because nothing was taken of it
  void PushHeldBack();  // a stream stopped reading because the owner thread's queue was full

 private:
  using ByCodec = std::array<prometheus::Counter*, 5>;  // index: the codec's number

  prometheus::Counter& push_wire_in_;
  prometheus::Counter& push_wire_out_;
  prometheus::Counter& pull_wire_in_;
  prometheus::Counter& pull_wire_out_;
  ByCodec push_bytes_{};
  ByCodec pull_bytes_{};
  prometheus::Histogram& pull_wait_seconds_;
  prometheus::Histogram& pull_seconds_;
  prometheus::Gauge& push_streams_;
  prometheus::Gauge& pull_streams_;
  prometheus::Counter& push_held_back_;
  prometheus::Counter& slow_readers_;
};

// The coordinator role of server 0, all runs together.
class CoordinatorMetrics {
 public:
  explicit CoordinatorMetrics(prometheus::Registry& registry);

  void Steps(uint64_t steps, uint64_t part_full);
  void Rows(uint64_t trained, uint64_t skipped);
  void Duplicates(uint64_t batches);
  void Lag(uint64_t versions);     // of one contribution that was decided
  void Committed(double seconds);  // decision made -> durable
  void SetSessions(uint64_t sessions);
  void SetRuns(uint64_t runs);
  void SetWorkers(uint64_t workers);
  void SetFollowers(uint64_t servers);
  void SetMailbox(uint64_t messages);

 private:
  prometheus::Counter& steps_;
  prometheus::Counter& steps_part_full_;
  prometheus::Counter& rows_trained_;
  prometheus::Counter& rows_skipped_;
  prometheus::Counter& duplicates_;
  prometheus::Histogram& lag_;
  prometheus::Histogram& commit_seconds_;
  prometheus::Gauge& sessions_;
  prometheus::Gauge& runs_;
  prometheus::Gauge& workers_;
  prometheus::Gauge& followers_;
  prometheus::Gauge& mailbox_;
};

// Owns the registry that /metrics serves.
class Metrics {
 public:
  Metrics();

  const std::shared_ptr<prometheus::Registry>& registry() const { return registry_; }
  ShardMetrics& shard() { return shard_; }
  DataPlaneMetrics& data_plane() { return data_plane_; }
  CoordinatorMetrics& coordinator() { return coordinator_; }
  void CountLogLine(bool error);  // warnings and errors that were logged

 private:
  std::shared_ptr<prometheus::Registry> registry_;
  ShardMetrics shard_;
  DataPlaneMetrics data_plane_;
  CoordinatorMetrics coordinator_;
  prometheus::Counter& warnings_;
  prometheus::Counter& errors_;
};

}  // namespace ballast

#endif  // BALLAST_SERVER_METRICS_H_
