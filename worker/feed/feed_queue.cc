#include "worker/feed/feed_queue.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ballast {
namespace {

// What a feed should be able to hold: its window of 2 x step_rows, with room to be read ahead.
uint64_t WantedCredit(const RunSpec& spec, uint64_t row_bytes) { return row_bytes * std::max(2 * spec.step_rows, 4 * spec.batch_rows); }

// What the feeds of a run should hold together: what is beyond it only waits the longer.
uint64_t SharedCredit(const RunSpec& spec, uint64_t row_bytes) { return 4 * WantedCredit(spec, row_bytes); }

// One batch must always fit, or a feed could never send it.
uint64_t LeastCredit(const RunSpec& spec, uint64_t row_bytes) { return std::max<uint64_t>(1, row_bytes * spec.batch_rows); }

}  // namespace

FeedQueue::FeedQueue(std::string run, uint64_t bytes_max) : run_(std::move(run)), bytes_max_(bytes_max) {}

void FeedQueue::Listen(std::function<void()> changed) {
  absl::MutexLock lock(&mu_);
  changed_ = std::move(changed);
}

FeedQueue::FeedId FeedQueue::Open(FeedOutlet* outlet, uint32_t epoch, uint32_t partition, absl::Time now) {
  absl::MutexLock lock(&mu_);
  const FeedId id = ++last_feed_;
  Feed& feed = feeds_[id];
  feed.outlet = outlet;
  feed.epoch = epoch;
  feed.partition = partition;
  feed.since = now;
  WelcomeWaiting();
  Changed();
  return id;
}

// A feed that finds no credit left waits until another feed closes: its task holds nothing yet, so nobody waits for it.
void FeedQueue::WelcomeWaiting() {
  if (spec_ == nullptr) return;
  const auto schema = ParseSchema(spec_->schema);
  const uint64_t row_bytes = schema.ok() ? RowBytes(*schema) : 1;
  for (auto& [id, feed] : feeds_) {
    if (feed.welcomed || feed.closing) continue;
    const uint64_t left = bytes_max_ > quotas_ ? bytes_max_ - quotas_ : 0;
    const uint64_t least = batch_bytes_ = LeastCredit(*spec_, row_bytes);
    shared_bytes_ = SharedCredit(*spec_, row_bytes);
    if (left < least && quotas_ > 0) continue;
    feed.quota = std::max(least, std::min(left, WantedCredit(*spec_, row_bytes)));
    quotas_ += feed.quota;
    feed.welcomed = true;
    Share();
    feed.withheld = Excess(feed);
    feed.outlet->Welcome(spec_, feed.quota - feed.withheld);
  }
}

// Somebody came, ended or left: whoever has less than its share now gets it. Who has more gives it back batch by batch.
void FeedQueue::Share() {
  const auto sends = [](const Feed& feed) { return feed.welcomed && !feed.closing && !feed.ended; };
  const auto count = std::count_if(feeds_.begin(), feeds_.end(), [&](const auto& f) { return sends(f.second); });
  share_bytes_ = std::max(batch_bytes_, shared_bytes_ / static_cast<uint64_t>(std::max<int64_t>(count, 1)));
  for (auto& [id, feed] : feeds_) {
    const uint64_t excess = Excess(feed);
    if (!sends(feed) || feed.withheld <= excess) continue;
    if (OutOfCredit(feed)) feed.waits = false;
    feed.outlet->Credit(feed.withheld - excess);
    feed.withheld = excess;
  }
}

void FeedQueue::Add(FeedId id, RowBatch rows) {
  absl::MutexLock lock(&mu_);
  const auto it = feeds_.find(id);
  if (it == feeds_.end() || it->second.closing) return;
  Feed& feed = it->second;
  feed.waits = false;
  const uint64_t bytes = rows.Bytes();
  if (feed.used >= feed.quota || feed.ended) {
    Fault(feed, {"PROTOCOL",
                 feed.ended ? "rows after the end of the feed" : absl::StrCat("rows beyond the credit of ", feed.quota, " bytes"),
                 false,
                 {}});
    return;
  }
  const BatchId batch = rows.batch.id;
  auto [entry, added] = batches_.try_emplace(batch);
  if (!added && entry->second.rows->batch.fingerprint != rows.batch.fingerprint) {
    Fault(feed,
          {"FINGERPRINT_DIFFERS",
           absl::StrCat("two tasks sent different rows as batch ", batch.seq, " of partition ", batch.partition, " of epoch ", batch.epoch),
           false,
           {{"partition", absl::StrCat(batch.partition)}, {"seq", absl::StrCat(batch.seq)}}});
    return;
  }
  entry->second.feeds.insert(id);
  feed.batches.insert(batch);
  if (!added) {  // a twin: the data is here already
    feed.outlet->Credit(bytes);
    return;
  }
  entry->second.rows = std::make_shared<const RowBatch>(std::move(rows));
  entry->second.payer = id;
  feed.used += bytes;
  bytes_ += bytes;
  unclaimed_.push_back(batch);
  Changed();
}

void FeedQueue::Flush(FeedId id) {
  absl::MutexLock lock(&mu_);
  const auto it = feeds_.find(id);
  if (it == feeds_.end()) return;
  it->second.waits = true;
  Changed();
}

void FeedQueue::End(FeedId id) {
  absl::MutexLock lock(&mu_);
  const auto it = feeds_.find(id);
  if (it == feeds_.end()) return;
  it->second.ended = true;
  FinishIfDone(it->second);
  Share();
  Changed();
}

void FeedQueue::Close(FeedId id) {
  absl::MutexLock lock(&mu_);
  const auto it = feeds_.find(id);
  if (it == feeds_.end()) return;
  for (const BatchId& batch : it->second.batches) {
    Entry& entry = batches_.at(batch);
    entry.feeds.erase(id);
    if (entry.payer == id) entry.payer = 0;
    // A claim cannot be taken back: the batch is trained if it is granted, and whoever sends it again is told.
    if (entry.feeds.empty() && entry.state == State::kQueued) {
      bytes_ -= entry.rows->Bytes();
      batches_.erase(batch);
    }
  }
  if (it->second.welcomed) quotas_ -= it->second.quota;
  feeds_.erase(it);
  WelcomeWaiting();
  Share();
  Changed();
}

void FeedQueue::Serve(std::shared_ptr<const RunSpec> spec) {
  absl::MutexLock lock(&mu_);
  spec_ = std::move(spec);
  WelcomeWaiting();
}

void FeedQueue::Suspend() {
  absl::MutexLock lock(&mu_);
  spec_ = nullptr;
}

std::vector<Batch> FeedQueue::TakeUnclaimed(size_t max) {
  absl::MutexLock lock(&mu_);
  std::vector<Batch> taken;
  while (!unclaimed_.empty() && taken.size() < max) {
    const auto it = batches_.find(unclaimed_.front());
    unclaimed_.pop_front();
    if (it == batches_.end() || it->second.state != State::kQueued) continue;
    it->second.state = State::kClaimed;
    taken.push_back(it->second.rows->batch);
  }
  return taken;
}

void FeedQueue::Unclaim(const BatchId& id) {
  absl::MutexLock lock(&mu_);
  const auto it = batches_.find(id);
  if (it == batches_.end() || it->second.state == State::kQueued) return;
  if (it->second.feeds.empty()) {  // nobody waits for it any more
    bytes_ -= it->second.rows->Bytes();
    batches_.erase(it);
    return;
  }
  it->second.state = State::kQueued;
  unclaimed_.push_back(id);
}

void FeedQueue::UnclaimAll(const std::set<BatchId>& keep) {
  std::vector<BatchId> ids;
  {
    absl::MutexLock lock(&mu_);
    for (const auto& [id, entry] : batches_) {
      if (keep.count(id) == 0) ids.push_back(id);
    }
  }
  for (const BatchId& id : ids) Unclaim(id);
}

std::shared_ptr<const RowBatch> FeedQueue::Find(const BatchId& id) const {
  absl::MutexLock lock(&mu_);
  const auto it = batches_.find(id);
  return it == batches_.end() ? nullptr : it->second.rows;
}

void FeedQueue::ReturnCredit(Entry& entry) {
  const auto payer = feeds_.find(entry.payer);
  entry.payer = 0;
  if (payer == feeds_.end()) return;
  Feed& feed = payer->second;
  const uint64_t bytes = entry.rows->Bytes(), excess = Excess(feed);
  const uint64_t kept = std::min(bytes, excess - std::min(excess, feed.withheld));
  // A task that flushed because its window is full goes on waiting; one that ran out of credit may send again.
  if (OutOfCredit(feed) && kept < bytes) feed.waits = false;
  feed.used -= bytes;
  feed.withheld += kept;
  if (!feed.closing && kept < bytes) feed.outlet->Credit(bytes - kept);
}

void FeedQueue::LeaveQueue(const BatchId& id) {
  absl::MutexLock lock(&mu_);
  const auto it = batches_.find(id);
  if (it != batches_.end()) ReturnCredit(it->second);
}

void FeedQueue::Acknowledge(const BatchId& id, Outcome outcome, uint64_t version, const std::string& reason) {
  absl::MutexLock lock(&mu_);
  const auto it = batches_.find(id);
  if (it == batches_.end()) return;
  ReturnCredit(it->second);
  for (const FeedId feed_id : it->second.feeds) {
    Feed& feed = feeds_.at(feed_id);
    feed.batches.erase(id);
    feed.waits = false;
    if (feed.closing) continue;
    feed.outlet->Ack(id.seq, outcome, version, reason);
    FinishIfDone(feed);
  }
  bytes_ -= it->second.rows->Bytes();
  batches_.erase(it);
}

void FeedQueue::FinishIfDone(Feed& feed) {
  if (!feed.ended || feed.closing || !feed.batches.empty()) return;
  feed.closing = true;
  feed.outlet->Finish();
}

void FeedQueue::Fault(Feed& feed, const FeedFault& fault) {
  if (feed.closing) return;
  feed.closing = true;
  feed.outlet->Fault(fault);
}

void FeedQueue::FaultBatch(const BatchId& id, const FeedFault& fault) {
  absl::MutexLock lock(&mu_);
  const auto it = batches_.find(id);
  if (it == batches_.end()) return;
  for (const FeedId feed : it->second.feeds) {
    Fault(feeds_.at(feed), fault);
    feeds_.at(feed).batches.erase(id);
  }
  const auto payer = feeds_.find(it->second.payer);
  if (payer != feeds_.end()) payer->second.used -= it->second.rows->Bytes();
  bytes_ -= it->second.rows->Bytes();
  batches_.erase(it);
}

void FeedQueue::FaultAll(const FeedFault& fault) {
  absl::MutexLock lock(&mu_);
  for (auto& [id, feed] : feeds_) Fault(feed, fault);
}

bool FeedQueue::Blocked() const {
  absl::MutexLock lock(&mu_);
  for (const auto& [id, feed] : feeds_) {
    if (feed.welcomed && !feed.closing && !feed.ended && !feed.waits) return false;
  }
  return std::all_of(unclaimed_.begin(), unclaimed_.end(), [this](const BatchId& id) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    const auto it = batches_.find(id);
    return it == batches_.end() || it->second.state != State::kQueued;
  });
}

uint32_t FeedQueue::feeds() const {
  absl::MutexLock lock(&mu_);
  return static_cast<uint32_t>(std::count_if(feeds_.begin(), feeds_.end(), [](const auto& feed) { return !feed.second.closing; }));
}

uint64_t FeedQueue::bytes() const {
  absl::MutexLock lock(&mu_);
  return bytes_;
}

bool FeedQueue::empty() const {
  absl::MutexLock lock(&mu_);
  return feeds_.empty() && batches_.empty();
}

std::optional<absl::Time> FeedQueue::waiting_since() const {
  absl::MutexLock lock(&mu_);
  std::optional<absl::Time> oldest;
  for (const auto& [id, feed] : feeds_) {
    if (!feed.welcomed && !feed.closing && (!oldest.has_value() || feed.since < *oldest)) oldest = feed.since;
  }
  return oldest;
}

}  // namespace ballast
