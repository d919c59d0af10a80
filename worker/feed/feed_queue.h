// The batches of one run that wait in this worker, and the feeds that brought them: bounded in bytes, credit by credit.
//
// A feed gets its credit once, when the session has told what the run is; the credit comes back as batches leave the queue (their training
// begins, or they turn out to be done). Credit and acknowledgement are separate, else a part-full contribution could wait for a window that
// waits for it. A batch whose claim is parked keeps the bytes of its own feed only, so it never starves another feed.
// Many feeds share what a few would hold: then part of each one's credit is withheld as it comes back, and given when others end. So what
// was sent does not wait the longer the more tasks there are, and the worker still has several steps of rows. Several feeds may carry one
// batch (speculative twins): its data is kept once and each of them is acknowledged.
//
// A batch's life: queued -> claimed (TakeUnclaimed) -> left the queue (LeaveQueue) -> acknowledged. Unclaim takes it back to queued: its
// session ended. The data stays until the acknowledgement, so nothing has to be sent again for a recomputation.
//
// Threads: any; every method locks. FeedOutlet and `changed` are called with the lock held and must only enqueue.
#ifndef BALLAST_WORKER_FEED_FEED_QUEUE_H_
#define BALLAST_WORKER_FEED_FEED_QUEUE_H_

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "core/types.h"
#include "worker/feed/row_batch.h"
#include "worker/feed/schema.h"

namespace ballast {

class FeedQueue {
 public:
  using FeedId = uint64_t;

  FeedQueue(std::string run, uint64_t bytes_max);

  const std::string& run() const { return run_; }

  // `changed`: there is something for the session to look at. Empty: nobody listens; it is not called after that.
  void Listen(std::function<void()> changed);

  // ---- the feeds' side. `outlet` is called until Close.
  FeedId Open(FeedOutlet* outlet, uint32_t epoch, uint32_t partition, absl::Time now);
  void Add(FeedId feed, RowBatch rows);  // REQUIRES CheckRows
  void Flush(FeedId feed);               // the task waits for an acknowledgement or credit
  void End(FeedId feed);
  void Close(FeedId feed);  // its stream is gone: forgets its batches that nobody claimed

  // ---- the session's side
  void Serve(std::shared_ptr<const RunSpec> spec);  // welcomes the feeds that wait, and those that come
  void Suspend();                                   // the session is gone: feeds that come wait for the next one
  std::vector<Batch> TakeUnclaimed(size_t max);
  void Unclaim(const BatchId& id);                                // no effect on a batch that is not here
  void UnclaimAll(const std::set<BatchId>& keep);                 // all but these
  std::shared_ptr<const RowBatch> Find(const BatchId& id) const;  // null: not here
  void LeaveQueue(const BatchId& id);
  void Acknowledge(const BatchId& id, Outcome outcome, uint64_t version, const std::string& reason);
  void FaultBatch(const BatchId& id, const FeedFault& fault);  // the feeds that carry it
  void FaultAll(const FeedFault& fault);                       // every feed
  // Every feed is ended or waits, and every batch is claimed.
  bool Blocked() const;

  // ---- for metrics and placement
  uint32_t feeds() const;
  uint64_t bytes() const;
  bool empty() const;  // neither feeds nor batches
  // When the oldest feed that waits for a session came.
  std::optional<absl::Time> waiting_since() const;

 private:
  enum class State : uint8_t { kQueued, kClaimed };
  struct Feed {
    FeedOutlet* outlet = nullptr;
    uint32_t epoch = 0;
    uint32_t partition = 0;
    absl::Time since;
    bool welcomed = false;
    bool waits = false;  // flushed, and nothing came since
    bool ended = false;
    bool closing = false;       // the last word was said
    uint64_t quota = 0;         // credit that it may have at most
    uint64_t withheld = 0;      // of it, while others need their share
    uint64_t used = 0;          // bytes in the queue
    std::set<BatchId> batches;  // that it waits for
  };
  struct Entry {
    std::shared_ptr<const RowBatch> rows;
    State state = State::kQueued;
    FeedId payer = 0;  // whose credit it uses; 0: it left the queue
    std::set<FeedId> feeds;
  };

  void Changed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (changed_) changed_();
  }
  void WelcomeWaiting() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Share() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // How much of its quota a feed may not have now.
  uint64_t Excess(const Feed& feed) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return feed.quota - std::min(feed.quota, share_bytes_); }
  bool OutOfCredit(const Feed& feed) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return feed.used + batch_bytes_ > feed.quota - feed.withheld;
  }
  void ReturnCredit(Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Fault(Feed& feed, const FeedFault& fault) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FinishIfDone(Feed& feed) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::string run_;
  const uint64_t bytes_max_;

  mutable absl::Mutex mu_;
  std::function<void()> changed_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<const RunSpec> spec_ ABSL_GUARDED_BY(mu_);
  FeedId last_feed_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<FeedId, Feed> feeds_ ABSL_GUARDED_BY(mu_);
  std::map<BatchId, Entry> batches_ ABSL_GUARDED_BY(mu_);
  std::deque<BatchId> unclaimed_ ABSL_GUARDED_BY(mu_);  // may name batches that are gone or claimed
  uint64_t batch_bytes_ ABSL_GUARDED_BY(mu_) = 0;       // of a full batch
  uint64_t shared_bytes_ ABSL_GUARDED_BY(mu_) = 0;      // what all feeds together should hold
  uint64_t share_bytes_ ABSL_GUARDED_BY(mu_) = 0;       // of it for each feed that sends
  uint64_t quotas_ ABSL_GUARDED_BY(mu_) = 0;            // of the welcomed feeds
  uint64_t bytes_ ABSL_GUARDED_BY(mu_) = 0;             // data that is kept, in the queue or not
};

}  // namespace ballast

#endif  // BALLAST_WORKER_FEED_FEED_QUEUE_H_
