// What a session does next: claims what its feeds bring, computes what is granted, pushes, submits, recomputes or gives up, acknowledges.
// A state machine without threads, clock or network: events come in as calls, actions leave through SessionPorts, FeedQueue, ParamClient.
// The rules of a step are the coordinator's (core/coordinator); here is the worker's side of them.
//
//   feeds --queued--> Claim --Grant--> train (compute thread) --chunks--> ParamClient --receipts--> Submit --Decided--> acknowledge
//
// - One contribution is computed at a time; it takes the granted batches of one step until the coordinator says Flush, which it always does
//   when contribution_rows are granted: that one is not waited for, so that the last batch is known while it is computed.
// - Values are double-buffered: a pull fills one store while the Model computes from the other. Pull is asked for as soon as a contribution
//   is closed, and parks at the shard. A contribution carries the oldest version it was computed from.
// - A lost stream keeps what is encoded: it is claimed again under its uid (never encoded again). A contribution that is refused takes its
//   share of the residual back; STALE: it is computed again under a new uid from newer values; FENCED: its batches are claimed again.
//
// Threads: one owner (the session's control thread). Errors end up in logs, skips on the record, and faults of feeds.
#ifndef BALLAST_WORKER_SESSION_SESSION_CORE_H_
#define BALLAST_WORKER_SESSION_SESSION_CORE_H_

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "core/coordinator/coordinator.h"
#include "core/record/chunk.h"
#include "core/types.h"
#include "worker/feed/feed_queue.h"
#include "worker/metrics.h"
#include "worker/session/param_client.h"
#include "worker/session/residuals.h"

namespace ballast {

// For the compute thread, in this order: begin, train, finish.
struct ComputeJob {
  std::shared_ptr<const ParameterStore> begin;  // not null: a contribution from these values begins
  std::shared_ptr<const RowBatch> batch;        // not null: train it
  std::shared_ptr<Outgoing> finish;             // not null: `batch`, if any, is the last one; encode and push into these bytes
  bool initial = false;                         // instead of all that: push the run's initial values into `finish`
};

struct ComputeResult {
  absl::Status status;    // of the batch (skip it), or of the initial values
  absl::Status finish;    // of the contribution as a whole (skip all of it)
  bool given_up = false;  // either failed when a part was encoded already: the residual is as before, the uid is void
  double loss_sum = 0;
  double residual_norm = 0;  // after `finish`
};

class SessionPorts {
 public:
  virtual ~SessionPorts() = default;
  // ---- the Work stream
  virtual void Claim(const Batch& batch, std::optional<Uid> uid) = 0;
  virtual void Submit(const Submission& submission) = 0;
  virtual void Skip(const Batch& batch, const std::string& reason) = 0;
  virtual void Status(bool blocked, uint64_t rows_done) = 0;
  virtual void Reopen(uint64_t resume,
                      bool leave) = 0;  // leave: say so on the stream that is still open. With back-off; answered by OnWelcome
  virtual void Ended(const std::string& reason) = 0;  // the run stopped; nothing is sent any more
  // ---- compute; one job at a time, answered by OnComputed
  virtual void Compute(ComputeJob job) = 0;
  virtual absl::Time Now() = 0;
};

class SessionCore {
 public:
  struct Config {
    std::shared_ptr<const RunSpec> spec;
    Layout layout;
    uint32_t shards = 1;
  };
  // `residuals` are those that the encoder of the jobs uses. All outlive the core; metrics may be null.
  SessionCore(Config config, SessionPorts* ports, FeedQueue* queue, ParamClient* params, Residuals* residuals, WorkerMetrics* metrics);

  // ---- events
  void OnWelcome(uint64_t session, bool resumed, uint64_t run_version);
  void OnMessage(const SessionMessage& message);
  void OnStreamLost();
  void OnQueueChanged() { Advance(); }
  void OnComputed(const ComputeResult& result);
  void OnPushReply(const PushReply& reply);
  void OnPulled(uint32_t shard, uint64_t version);
  void OnModelUnusable(const std::string& reason);  // every batch that is granted is skipped for this reason
  void Drain();                                     // claims nothing any more; what is granted goes on

  uint64_t session() const { return session_; }
  // Something is granted, computed or not decided yet.
  bool busy() const { return !works_.empty() || !steps_.empty() || initial_grant_.has_value() || computing_; }
  size_t in_flight() const { return works_.size(); }

 private:
  struct Work {  // a contribution
    Uid uid;
    uint64_t step = 0;
    uint64_t base_version = 0;
    std::vector<Batch> batches;
    uint64_t rows = 0;
    double loss_sum = 0;
    double residual_norm = 0;
    std::shared_ptr<Outgoing> bytes;
    std::vector<std::optional<Receipt>> receipts;
    bool finish_now = false;  // takes no more batches
    bool closed = false;      // all its bytes are encoded
    bool submitted = false;
    bool initial = false;
    std::string refused;           // by a shard, before it was closed
    std::set<BatchId> unanswered;  // claimed again after a lost stream
    bool done_in_part = false;     // some of those are decided
  };
  struct Step {
    std::deque<Batch> granted;
    uint64_t base_version = 0;
  };
  struct Values {
    std::shared_ptr<ParameterStore> store;
    std::vector<uint64_t> versions;  // by shard; kNoBlocks where it owns nothing
    uint64_t Oldest() const;
  };
  static const Batch& InitBatch();  // the reserved one that brings the initial weights

  void On(const Grant& grant);
  void On(const Done& done);
  void On(const Flush& flush);
  void On(const Refuse& refuse);
  void On(const Decided& decided);
  void On(const SkipLogged& logged);
  void On(const CloseSession& close);

  // ---- what next
  void Advance();
  void ClaimQueued();
  void Schedule();
  bool Settle();  // ends of sessions: false while a job runs or nothing is open
  // Each: true when it changed something without starting a job, so that Schedule looks again.
  bool OpenContribution();
  bool ContinueContribution();
  bool StartInitial();
  bool FinishContribution(Work& work);
  bool Full(const Work& work, uint64_t rows) const;
  bool MayOpen(uint64_t step) const;
  void Start(ComputeJob job, std::optional<Batch> batch);
  Work& NewWork(uint64_t step, uint64_t base_version);
  void Close(Work& work, double residual_norm);
  void TrySubmit(Work& work);
  void SkipBatch(const Batch& batch, const std::string& reason);
  void GiveUpRefused(Work& work);
  void Recompute(Work& work);
  void ClaimAgain(Work& work);
  void Reset(const std::string& why);
  void DropAll();
  std::set<BatchId> Held() const;
  Work* Find(const Uid& uid);
  void UpdateStatus();
  void UpdatePhase();
  Phase CurrentPhase() const;

  // ---- values
  bool HaveValues(uint64_t version);
  void RequestPull(uint64_t version);

  const Config config_;
  SessionPorts* const ports_;
  FeedQueue* const queue_;
  ParamClient* const params_;
  Residuals* const residuals_;
  WorkerMetrics* const metrics_;
  std::vector<bool> owns_blocks_;  // by shard

  uint64_t session_ = 0;
  uint64_t last_counter_ = 0;
  bool open_ = false;
  bool lost_ = false;   // the stream broke: settle, then open another one that resumes
  bool reset_ = false;  // the session ends: settle, drop everything, then open another one
  bool leave_ = false;  // ... saying so
  std::string ended_;   // not empty: the run stopped
  bool draining_ = false;
  std::string unusable_;

  std::map<Uid, Work> works_;
  std::optional<Uid> current_;      // not closed yet
  std::map<uint64_t, Step> steps_;  // with granted batches that are not computed
  std::set<uint64_t> flushed_;      // steps whose contribution takes no more batches
  std::optional<Grant> initial_grant_;
  size_t claims_ = 0;                     // unanswered
  std::map<BatchId, std::string> skips_;  // sent, not logged yet

  bool computing_ = false;
  std::optional<Batch> job_batch_;
  bool job_finishes_ = false;

  Values front_;                 // what the Model computes from
  Values back_;                  // what pulls fill
  std::vector<uint64_t> asked_;  // by shard: the version of the outstanding pull, else 0

  uint64_t rows_done_ = 0;
  std::optional<std::pair<bool, uint64_t>> said_;  // the last Status

  absl::Time phase_since_;
  Phase phase_ = Phase::kWaitRows;
  std::array<double, kPhases> seconds_{};  // since the last submit
  bool wants_values_ = false;              // a grant waits for a pull
};

}  // namespace ballast

#endif  // BALLAST_WORKER_SESSION_SESSION_CORE_H_
