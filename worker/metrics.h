// Every metric of ballast-worker: names, help texts, units and labels are in this file and metrics.cc, nowhere else. Logic calls a method.
// Conventions: base units, `_total` for counters, histograms in seconds, labels of few values (method, codec, phase, outcome), never an id.
//
// Threads: every method from any thread. Observing a histogram takes a lock, so call it per chunk, step or request, never per row.
#ifndef BALLAST_WORKER_METRICS_H_
#define BALLAST_WORKER_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <array>
#include <cstdint>
#include <memory>

#include "core/types.h"
#include "worker/feed/row_batch.h"

namespace ballast {

// Where the time of a session goes; the names of StepTiming.
enum class Phase : uint8_t { kWaitRows = 0, kWaitGrant, kPull, kCompute, kPush, kCommit };
inline constexpr size_t kPhases = 6;
const char* PhaseName(Phase phase);

enum class WireMethod : uint8_t { kPush = 0, kPull, kWork, kFeed };

class WorkerMetrics {
 public:
  WorkerMetrics();
  const std::shared_ptr<prometheus::Registry>& registry() const { return registry_; }

  // ---- feeds
  void RowsReceived(uint64_t rows, uint64_t bytes);
  void BatchAcknowledged(Outcome outcome);
  void FeedFaulted();
  void SetFeeds(uint64_t feeds);
  void SetQueueBytes(uint64_t bytes);

  // ---- sessions, all runs together
  void SetSessions(uint64_t sessions);
  void SessionLost();                      // closed by the coordinator, or its stream broke
  void Trained(uint64_t rows);             // decided
  void Contribution(uint64_t recomputed);  // one was submitted; recomputed: 1 when it replaces a refused one
  void PhaseDone(Phase phase, double seconds);
  void SetResidualNorm(double norm);

  // ---- the wire. Message bytes; gRPC's 5 bytes of framing are added here.
  void Sent(WireMethod method, uint64_t message_bytes);
  void Received(WireMethod method, uint64_t message_bytes);
  void PushBytes(Codec codec, uint64_t payload_bytes, uint64_t fp32_bytes);
  void PullBytes(Codec codec, uint64_t payload_bytes);

  // ---- serving
  void Inferred(double seconds, uint64_t rows, bool ok);

  void CountLogLine(bool error);

 private:
  std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Counter& feed_rows_;
  prometheus::Counter& feed_bytes_;
  prometheus::Counter& feed_faults_;
  std::array<prometheus::Counter*, 4> batches_{};  // index: Outcome
  prometheus::Gauge& feeds_;
  prometheus::Gauge& queue_bytes_;
  prometheus::Gauge& sessions_;
  prometheus::Counter& sessions_lost_;
  prometheus::Counter& rows_trained_;
  prometheus::Counter& contributions_;
  prometheus::Counter& recomputed_;
  std::array<prometheus::Histogram*, kPhases> phases_{};
  prometheus::Gauge& residual_norm_;
  std::array<prometheus::Counter*, 4> sent_{};
  std::array<prometheus::Counter*, 4> received_{};
  std::array<prometheus::Counter*, 5> push_bytes_{};  // index: the codec's number
  std::array<prometheus::Counter*, 5> pull_bytes_{};
  prometheus::Counter& push_fp32_bytes_;
  prometheus::Histogram& infer_seconds_;
  prometheus::Counter& infer_rows_;
  prometheus::Counter& infer_failures_;
  prometheus::Counter& warnings_;
  prometheus::Counter& errors_;
};

}  // namespace ballast

#endif  // BALLAST_WORKER_METRICS_H_
