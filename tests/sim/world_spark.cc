// Spark: the driver, and task attempts that send a partition through a feed and end when all of it is acknowledged.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/sim/world.h"

namespace ballast::sim {

Batch World::BatchOf(uint32_t epoch, uint32_t partition, uint64_t seq) const {
  const uint32_t rows =
      scenario_.even_batches ? scenario_.batch_rows : static_cast<uint32_t>(1 + (partition * 7 + seq * 5 + epoch) % scenario_.batch_rows);
  return {{epoch, partition, seq}, rows, 1000 * partition + seq + 1};
}

void World::AddAttempts(uint32_t epoch) {
  for (const auto& [partition, worker] : scenario_.tasks) {
    SimAttempt a;
    a.epoch = epoch;
    a.partition = partition;
    a.worker = worker;
    attempts_.push_back(a);
  }
}

bool World::PartitionDone(uint32_t epoch, uint32_t partition) const {
  return std::any_of(attempts_.begin(), attempts_.end(), [&](const SimAttempt& a) {
    return a.epoch == epoch && a.partition == partition && a.state == SimAttempt::State::kDone;
  });
}

void World::CollectSpark() {
  if (CoordinatorUp() && (driver_ == DriverPhase::kBegin || driver_ == DriverPhase::kCommit || driver_ == DriverPhase::kTrain)) {
    bool all = true;
    for (uint32_t p = 0; p < scenario_.partitions.size(); ++p) all &= PartitionDone(epoch_, p);
    if (driver_ != DriverPhase::kTrain || all) Add([this] { Drive(); });
  }
  const auto running =
      std::count_if(attempts_.begin(), attempts_.end(), [](const SimAttempt& a) { return a.state == SimAttempt::State::kRunning; });
  for (SimAttempt& a : attempts_) {
    if (a.state == SimAttempt::State::kWaiting && running < static_cast<int64_t>(scenario_.cores) && CoordinatorUp())
      Add([this, &a] { StartAttempt(a); });
    if (a.state != SimAttempt::State::kRunning) continue;
    if (!a.feed) {
      if (CoordinatorUp()) Add([this, &a] { OpenFeed(a); });
      continue;
    }
    if (feeds_[*a.feed].broken) {
      Add([this, &a] { LeaveWorker(a, rng_.Chance(50)); });
      continue;
    }
    const size_t count = scenario_.partitions[a.partition];
    if (a.acked.size() == count) {
      Add([this, &a] {
        a.state = SimAttempt::State::kDone;
        feeds_[*a.feed].broken = true;
        SayStatus(a.worker);
      });
    } else if (!a.paused) {
      Add([this, &a] { SendRows(a); });
    }
  }
  for (uint32_t f = 0; f < feeds_.size(); ++f) {
    const SimFeed& feed = feeds_[f];
    if (feed.broken) continue;
    if (!feed.up.empty() && workers_[feed.worker].up && !workers_[feed.worker].hung) Add([this, f] { ReceiveFeed(f); });
    if (!feed.acks.empty()) Add([this, f] { ReceiveAck(f); });
  }
}

void World::StartAttempt(SimAttempt& a) {
  if (PartitionDone(a.epoch, a.partition) && rng_.Chance(50)) {
    a.state = SimAttempt::State::kKilled;  // the scheduler noticed that the twin is not needed
    return;
  }
  a.state = SimAttempt::State::kRunning;
  OpenFeed(a);
}

void World::OpenFeed(SimAttempt& a) {
  const absl::StatusOr<FeedState> state = coordinator_->OpenFeed(a.epoch, a.partition);
  if (absl::IsResourceExhausted(state.status()) || absl::IsUnavailable(state.status())) return;
  if (absl::IsFailedPrecondition(state.status()) && MayBeUndone()) {  // the epoch is undone
    a.state = SimAttempt::State::kKilled;
    return DriveFromLedger();
  }
  if (!state.ok()) return Violation(absl::StrCat("no feed: ", state.status().ToString()));
  const uint64_t count = scenario_.partitions[a.partition];
  const auto trained = [&](uint64_t seq) {
    CheckAcknowledged(BatchId{a.epoch, a.partition, seq}, "OpenFeed");
    a.acked.insert(seq);
  };
  for (uint64_t seq = 0; seq < (state->committed ? count : state->trained_below); ++seq) trained(seq);
  for (const SeqRange& range : state->trained) {
    for (uint64_t i = 0; i < range.count; ++i) trained(range.first + i);
  }
  a.feed = static_cast<uint32_t>(feeds_.size());
  a.sent = a.acked;
  a.paused = false;
  a.idle = 0;
  SimFeed feed;
  for (uint32_t i = 0; i < attempts_.size(); ++i) {
    if (&attempts_[i] == &a) feed.attempt = i;
  }
  feed.worker = a.worker;
  feed.broken = !workers_[a.worker].up;
  feeds_.push_back(std::move(feed));
  SayStatus(a.worker);
}

// Another worker, by the same attempt or by a retry of the task.
void World::LeaveWorker(SimAttempt& a, bool retry) {
  if (a.feed) {
    feeds_[*a.feed].broken = true;
    SayStatus(a.worker);
    a.feed.reset();
  }
  a.worker = static_cast<uint32_t>((a.worker + 1 + rng_.Below(workers_.size())) % workers_.size());
  if (!retry) return;
  SimAttempt again;
  again.epoch = a.epoch;
  again.partition = a.partition;
  again.worker = a.worker;
  a.state = SimAttempt::State::kKilled;
  attempts_.push_back(again);
}

void World::SendRows(SimAttempt& a) {
  SimFeed& feed = feeds_[*a.feed];
  const uint64_t count = scenario_.partitions[a.partition];
  uint64_t next = 0;
  while (next < count && a.sent.contains(next)) ++next;
  if (next == count || a.sent.size() - a.acked.size() >= scenario_.window) {
    a.paused = true;
    feed.up.push_back(PauseUp{next == count});
    return;
  }
  a.sent.insert(next);
  feed.up.push_back(RowsUp{next});
}

void World::ReceiveFeed(uint32_t f) {
  SimFeed& feed = feeds_[f];
  SimWorker& worker = workers_[feed.worker];
  const SimAttempt& a = attempts_[feed.attempt];
  const FeedUp message = feed.up.front();
  feed.up.pop_front();
  if (const auto* rows = std::get_if<RowsUp>(&message)) {
    const Batch batch = BatchOf(a.epoch, a.partition, rows->seq);
    SimWorker::Entry& entry = worker.entries.try_emplace(batch.id, SimWorker::Entry{batch, {}, false}).first->second;
    entry.feeds.insert(f);
    feed.paused = false;
    SayStatus(feed.worker);
    Claim(feed.worker, entry);
  } else {
    feed.paused = true;
    feed.ended = std::get<PauseUp>(message).end;
    SayStatus(feed.worker);
  }
}

void World::ReceiveAck(uint32_t f) {
  SimAttempt& a = attempts_[feeds_[f].attempt];
  CheckOnceDecided(BatchId{a.epoch, a.partition, feeds_[f].acks.front()}, "acknowledged to Spark");
  a.acked.insert(feeds_[f].acks.front());
  a.idle = 0;
  const bool ended = a.sent.size() == scenario_.partitions[a.partition];
  if (!ended) a.paused = false;
  feeds_[f].acks.pop_front();
}

// What the commit misses is fed again; feeds skip what is trained.
void World::FeedAgain(const EpochReport& report) {
  ++seen_["fed again"];
  for (const MissingBatches& missing : report.missing) {
    for (SimAttempt& a : attempts_) {
      if (a.epoch == epoch_ && a.partition == missing.partition && a.state == SimAttempt::State::kDone)
        a.state = SimAttempt::State::kKilled;
    }
    SimAttempt again;
    again.epoch = epoch_;
    again.partition = missing.partition;
    again.worker = static_cast<uint32_t>(rng_.Below(workers_.size()));
    attempts_.push_back(again);
  }
  driver_ = DriverPhase::kTrain;
}

// The driver was told that the run is not where it thought: it goes on with the first epoch that is not committed.
void World::DriveFromLedger() {
  if (driver_ == DriverPhase::kEnd) return;
  for (SimAttempt& a : attempts_) {
    if (a.state == SimAttempt::State::kRunning && a.feed) {
      feeds_[*a.feed].broken = true;
      SayStatus(a.worker);
    }
    a.state = SimAttempt::State::kKilled;
  }
  epoch_ = 1;
  for (const EpochReport& e : coordinator_->Describe().epochs) epoch_ += e.committed;
  driver_ = epoch_ > scenario_.epochs ? DriverPhase::kEnd : DriverPhase::kBegin;
}

void World::Drive() {
  if (driver_ == DriverPhase::kTrain) {
    driver_ = DriverPhase::kCommit;
  } else if (driver_ == DriverPhase::kBegin) {
    EpochRecord record;
    record.epoch = epoch_;
    record.partitions = static_cast<uint32_t>(scenario_.partitions.size());
    record.batch_rows = scenario_.batch_rows;
    driver_ = DriverPhase::kBeginning;
    coordinator_->BeginEpoch(++tag_, record, now_ms_);
  } else {
    std::vector<Coordinator::PartitionCount> counts;
    for (uint32_t p = 0; p < scenario_.partitions.size(); ++p) {
      Coordinator::PartitionCount c{p, scenario_.partitions[p], 0};
      for (uint64_t seq = 0; seq < c.batches; ++seq) c.rows += BatchOf(epoch_, p, seq).rows;
      counts.push_back(c);
    }
    driver_ = DriverPhase::kCommitting;
    coordinator_->CommitEpoch(++tag_, epoch_, counts, now_ms_);
  }
  Drain();
}

}  // namespace ballast::sim
