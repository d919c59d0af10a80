#include "tests/sim/world.h"

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"

namespace ballast::sim {
namespace {

constexpr uint64_t kMovesMax = 60000;  // far above what a world needs; worlds that move in circles are found here
constexpr int kIdleTicksMax = 300;     // ticks in a row without a possible move: several leases

}  // namespace

World::World(Scenario scenario)
    : scenario_(std::move(scenario)),
      rng_(scenario_.seed ^ 0xba11a57),
      faults_left_(scenario_.faults),
      rollbacks_left_(scenario_.rollbacks) {
  RunSpec& spec = config_.spec;
  spec.name = "sim";
  spec.step_rows = scenario_.step_rows;
  spec.batch_rows = scenario_.batch_rows;
  spec.contribution_rows = scenario_.contribution_rows;
  spec.staleness_max = scenario_.staleness_max;
  spec.durability = scenario_.durability;
  spec.clip_norm = scenario_.clip_norm;
  spec.checkpoint_versions = scenario_.checkpoint_versions;
  spec.lease_ms = scenario_.lease_ms;
  spec.linger_ms = scenario_.linger_ms;
  spec.skips_max = 1000;
  config_.shards = scenario_.shards;
#ifdef BALLAST_MUTATIONS
  if (!scenario_.mutation.empty()) Mutate(scenario_.mutation, config_.rules);
#endif
  shards_.resize(scenario_.shards);
  shards_[0].up = false;
  disk_low_.resize(scenario_.shards, false);
  workers_.resize(scenario_.workers);
  push_.assign(scenario_.workers, std::vector<std::deque<Uid>>(scenario_.shards));
  receipts_.assign(scenario_.workers, std::vector<std::deque<std::pair<Uid, Receipt>>>(scenario_.shards));
}

void World::Violation(const std::string& what) {
  if (violation_.empty()) violation_ = absl::StrCat(what, " (move ", moves_, ", ", now_ms_, " ms)");
}

void World::Note(const std::string& what) {
  if (scenario_.trace)
    std::fprintf(stderr, "%6llu %7lld ms  %s\n", static_cast<unsigned long long>(moves_), static_cast<long long>(now_ms_), what.c_str());
}

void World::Collect() {
  moves_now_.clear();
  CollectCoordinator();
  CollectShards();
  CollectWorkers();
  CollectSpark();
}

void World::Tick() {
  next_tick_ms_ = now_ms_ + 100;
  for (uint32_t w = 0; w < workers_.size(); ++w) {
    if (workers_[w].hung && rng_.Chance(faults_left_ > 0 ? 2 : 5)) {
      Note(absl::StrCat("w", w, " goes on"));
      workers_[w].hung = false;
    }
  }
  for (SimAttempt& a : attempts_) {
    if (a.state == SimAttempt::State::kRunning && a.feed && workers_[a.worker].hung && ++a.idle > 25) LeaveWorker(a, rng_.Chance(30));
  }
  TickNetwork();
  if (!CoordinatorUp()) return;
  if (scenario_.disk_fills && rng_.Chance(30)) {
    const uint32_t s = static_cast<uint32_t>(rng_.Below(shards_.size()));
    disk_low_[s] = faults_left_ > 0 && !disk_low_[s];
    coordinator_->OnDisk(s, disk_low_[s], "simulated", now_ms_);
  }
  coordinator_->OnTick(now_ms_);
  if (rng_.Chance(1) && coordinator_->Describe().version > 0) coordinator_->RequestCheckpoint(0, now_ms_);
  if (rollbacks_left_ > 0 && driver_ != DriverPhase::kEnd && !manifests_.empty() && rng_.Chance(10)) {
    const uint64_t to = manifests_[rng_.Below(manifests_.size())].version;
    Note(absl::StrCat("ROLLBACK to version ", to));
    coordinator_->Rollback(0, to, now_ms_);
    --rollbacks_left_;
  }
  Drain();
}

bool World::MaybeFault() {
  if (faults_left_ <= 0 || driver_ == DriverPhase::kEnd || !rng_.Chance(4)) return false;
  const uint32_t w = static_cast<uint32_t>(rng_.Below(workers_.size()));
  const uint32_t s = static_cast<uint32_t>(rng_.Below(shards_.size()));
  switch (rng_.Below(7)) {
    case 0:
      if (!scenario_.worker_faults || !workers_[w].up) return false;
      CrashWorker(w);
      break;
    case 1:
      if (!scenario_.worker_faults || !workers_[w].up || workers_[w].hung) return false;
      Note(absl::StrCat("w", w, " HANGS"));
      workers_[w].hung = true;
      break;
    case 2:
      if (!scenario_.worker_faults || !workers_[w].open) return false;
      if (rng_.Chance(50)) {
        Note(absl::StrCat("w", w, " LEAVES"));
        Send(w, LeaveUp{});
        ++leaves_made_;
      } else {
        Note(absl::StrCat("w", w, " LOSES ITS STREAM"));
        Send(w, LostUp{});
      }
      LoseSession(w, /*keep_bytes=*/false);
      break;
    case 3:
      if (!scenario_.shard_faults || s == 0 || !shards_[s].up) return false;
      CrashShard(s);
      break;
    case 4:
      if (!scenario_.coordinator_faults || !CoordinatorUp()) return false;
      CrashServer0();
      break;
    case 5:
      if (!scenario_.network_faults || !MakePartition(w, s)) return false;
      break;
    default: {
      if (attempts_.empty()) return false;
      SimAttempt& a = attempts_[rng_.Below(attempts_.size())];
      if (a.state != SimAttempt::State::kRunning || !a.feed) return false;
      Note("task attempt DIES");
      LeaveWorker(a, /*retry=*/true);
    }
  }
  --faults_left_;
  ++faults_made_;
  return true;
}

void World::MakeMove() {
  ++moves_;
  if (MaybeFault()) return;
  Collect();
  if (moves_now_.empty()) {
    now_ms_ = std::max(now_ms_, next_tick_ms_);
    ++idle_ticks_;
    if (idle_ticks_ > kIdleTicksMax) faults_left_ > 0 ? static_cast<void>(faults_left_ = 0) : Violation("nothing moves any more");
    return Tick();
  }
  idle_ticks_ = 0;
  moves_now_[rng_.Below(moves_now_.size())]();
  now_ms_ += static_cast<int64_t>(rng_.Below(3));
  if (now_ms_ >= next_tick_ms_) Tick();
}

bool World::Finished() const {
  if (driver_ != DriverPhase::kEnd || !CoordinatorUp()) return false;
  // Nor does anybody wait for an answer: a twin outlives the commit of its epoch.
  if (std::any_of(attempts_.begin(), attempts_.end(), [](const SimAttempt& a) { return a.state == SimAttempt::State::kRunning; }))
    return false;
  return std::all_of(shards_.begin(), shards_.end(), [&](const SimShard& s) { return s.up && s.applied == shards_[0].decisions.size(); }) &&
         shards_[0].synced_decisions == shards_[0].decisions.size();
}

void World::CheckEnd() {
  uint64_t rows = 0;
  for (uint32_t e = 1; e <= scenario_.epochs; ++e) {
    for (uint32_t p = 0; p < scenario_.partitions.size(); ++p) {
      for (uint64_t seq = 0; seq < scenario_.partitions[p]; ++seq) {
        const Batch b = BatchOf(e, p, seq);
        if (!decided_.contains(b.id)) Violation(absl::StrCat("batch ", p, ".", seq, " of epoch ", e, " was never decided"));
        if (!skipped_.contains(b.id)) rows += b.rows;
      }
    }
  }
  for (uint32_t s = 0; s < shards_.size(); ++s) {
    if (shards_[s].rows_applied != rows) Violation(absl::StrCat("shard ", s, " applied ", shards_[s].rows_applied, " rows of ", rows));
  }
  const RunStatus status = coordinator_->Describe();
  if (status.rows_trained != rows) Violation(absl::StrCat("the run reports ", status.rows_trained, " rows of ", rows));
}

std::string World::Run() {
  Note(Describe(scenario_));
  while (violation_.empty() && !Finished()) {
    MakeMove();
    if (moves_ > kMovesMax) Violation("moves in circles");
  }
  if (violation_.empty()) CheckEnd();
  return violation_;
}

}  // namespace ballast::sim
