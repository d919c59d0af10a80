// The workers: one session each, as worker/session behaves: claim what feeds bring, compute what is granted, encode once, push, submit.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/sim/world.h"

namespace ballast::sim {
namespace {

using Link = Partition::Link;

}  // namespace

void World::CollectWorkers() {
  for (uint32_t w = 0; w < workers_.size(); ++w) {
    SimWorker& worker = workers_[w];
    if (!worker.up) {
      Add([this, w] { workers_[w].up = true; });
      continue;
    }
    if (worker.hung) continue;
    if (!worker.open && CoordinatorUp() && !worker.final && !Parted(Link::kWork, w, 0)) Add([this, w] { OpenSession(w); });
    if (!worker.down.empty() && !Blocked(Link::kWork, w, 0, false)) Add([this, w] { ReceiveWork(w); });
    for (uint32_t s = 0; s < shards_.size(); ++s) {
      if (!receipts_[w][s].empty() && !Blocked(Link::kPush, w, s, false)) Add([this, w, s] { ReceiveReceipt(s, w); });
    }
    bool reachable = true;  // every shard, for its values
    for (uint32_t s = 0; s < shards_.size(); ++s) reachable &= !Parted(Link::kPush, w, s);
    bool first = true;  // that is not encoded
    for (auto it = worker.contributions.begin(); it != worker.contributions.end(); ++it) {
      SimContribution& c = *it;
      const bool turn = std::exchange(first, first && c.uid.has_value()) || scenario_.poison.empty();
      const bool init = c.batches.front().id == kInitBatch;
      if (!c.uid && turn && c.computed < c.batches.size() && (init || (reachable && SlowestVersion() >= std::max<uint64_t>(c.base, 1))))
        Add([this, w, &c] { Compute(w, c); });
      if (!c.uid && c.flush && c.computed == c.batches.size()) Add([this, w, &c] { Encode(w, c); });
      if (!c.uid) continue;
      for (uint32_t s = 0; s < shards_.size(); ++s) {
        const bool again = shards_[s].up && !c.receipts[s] && c.pushed_to[s] != shards_[s].incarnation;
        if (again) {
          Add([this, w, s, &c] {
            c.pushed_to[s] = shards_[s].incarnation;
            push_[w][s].push_back(*c.uid);
          });
        }
      }
      const bool complete = std::all_of(c.receipts.begin(), c.receipts.end(), [](const auto& r) { return r.has_value(); });
      const bool mine = worker.open && (!c.resumed || c.answered == c.batches.size());
      if (complete && mine && !c.submitted) Add([this, w, &c] { Submit(w, c); });
    }
  }
}

void World::Send(uint32_t w, WorkUp message) {
  SimWorker& worker = workers_[w];
  for (WorkStream& stream : streams_) {
    if (stream.session == worker.session) stream.up.push_back(std::move(message));
  }
}

void World::OpenSession(uint32_t w) {
  SimWorker& worker = workers_[w];
  const SessionId old = worker.contributions.empty() ? 0 : worker.session;
  const absl::StatusOr<Coordinator::Opened> opened = coordinator_->OpenSession(absl::StrCat("w", w), old, now_ms_);
  if (absl::IsUnavailable(opened.status())) return;  // a rollback is about to be decided
  if (!opened.ok()) return Violation(absl::StrCat("no session: ", opened.status().ToString()));
  Note(absl::StrCat("w", w, " opens session ", opened->session, opened->resumed ? " again" : ""));
  if (opened->resumed) {
    ++seen_["resumed"];
  } else {
    worker.contributions.clear();
    worker.counter = 0;
    worker.rows_done = 0;
  }
  worker.session = opened->session;
  worker.open = true;
  worker.said_blocked.reset();
  worker.down.clear();
  streams_.push_back({worker.session, w, {}});
  Drain();
  for (SimContribution& c : worker.contributions) {
    c.resumed = true;
    c.submitted = false;
    c.answered = c.done = 0;
    for (const Batch& b : c.batches) {
      if (const auto entry = worker.entries.find(b.id); entry != worker.entries.end()) entry->second.claimed = true;
      Send(w, ClaimUp{b, c.uid});
    }
  }
  if (coordinator_->Describe().version == 0) worker.entries.try_emplace(kInitBatch, SimWorker::Entry{Batch{kInitBatch, 1, 0}, {}, false});
  for (auto& [id, entry] : worker.entries) Claim(w, entry);
  SayStatus(w);
}

void World::Claim(uint32_t w, SimWorker::Entry& entry) {
  if (entry.claimed || !workers_[w].open) return;
  entry.claimed = true;
  Send(w, ClaimUp{entry.batch, std::nullopt});
}

void World::SayStatus(uint32_t w) {
  SimWorker& worker = workers_[w];
  if (!worker.open) return;
  bool blocked = true;
  for (const SimFeed& feed : feeds_) {
    if (feed.worker == w && !feed.broken && !feed.paused && !feed.ended) blocked = false;
  }
  if (blocked == worker.said_blocked) return;
  worker.said_blocked = blocked;
  Send(w, StatusUp{blocked, worker.rows_done});
}

void World::ReceiveWork(uint32_t w) {
  const SessionMessage message = std::move(workers_[w].down.front());
  workers_[w].down.pop_front();
  std::visit([&](const auto& m) { Receive(w, m); }, message);
  if (workers_[w].up) SayStatus(w);
}

void World::Receive(uint32_t w, const Grant& m) {
  SimWorker& worker = workers_[w];
  Note(absl::StrCat("w", w, " is granted ", m.batch.id.partition, ".", m.batch.id.seq, " step ", m.step, m.uid ? " with its bytes" : ""));
  if (m.uid) {
    SimContribution* c = worker.Find(*m.uid);
    if (c == nullptr) return Violation("a grant for bytes that were given up");
    ++c->answered;
    return;
  }
  for (SimContribution& c : worker.contributions) {
    if (c.uid || c.step != m.step) continue;
    c.batches.push_back(m.batch);
    c.base = std::max(c.base, m.base_version);
    return;
  }
  SimContribution c;
  c.step = m.step;
  c.base = m.base_version;
  c.batches = {m.batch};
  c.receipts.resize(shards_.size());
  c.pushed_to.resize(shards_.size(), 0);
  worker.contributions.push_back(std::move(c));
}

void World::Receive(uint32_t w, const Flush& m) {
  for (SimContribution& c : workers_[w].contributions) {
    if (!c.uid && c.step == m.step) c.flush = true;
  }
}

void World::Receive(uint32_t w, const Refuse& m) {
  SimWorker& worker = workers_[w];
  SimContribution* c = worker.Find(m.uid);
  if (c == nullptr) return;
  Note(absl::StrCat("w", w, " is refused ", m.uid.counter, " reason ", static_cast<int>(m.reason)));
  c->submitted = false;
  if (m.reason == Refuse::Reason::kReceipts) {
    for (uint32_t s : m.shards) {
      c->receipts[s].reset();
      c->pushed_to[s] = 0;
    }
  } else if (m.reason == Refuse::Reason::kStale) {  // the same batches, computed again
    c->uid.reset();
    c->computed = 0;
    c->base = SlowestVersion();
    c->flush = true;
    c->resumed = false;
    std::fill(c->receipts.begin(), c->receipts.end(), std::nullopt);
    std::fill(c->pushed_to.begin(), c->pushed_to.end(), 0);
  } else {
    const std::vector<Batch> batches = c->batches;
    std::erase_if(worker.contributions, [&](const SimContribution& x) { return x.uid == m.uid; });
    for (const Batch& b : batches) {
      const auto entry = worker.entries.find(b.id);
      if (entry == worker.entries.end()) continue;
      entry->second.claimed = false;
      Claim(w, entry->second);
    }
  }
}

void World::Acknowledge(uint32_t w, const BatchId& batch) {
  const auto entry = workers_[w].entries.find(batch);
  if (entry == workers_[w].entries.end()) return;
  for (uint32_t f : entry->second.feeds) {
    if (feeds_[f].broken) continue;
    feeds_[f].acks.push_back(batch.seq);
    if (!feeds_[f].ended) feeds_[f].paused = false;
  }
  workers_[w].ForgetBatch(batch);
}

void World::Receive(uint32_t w, const Decided& m) {
  for (const Batch& b : m.batches) Acknowledge(w, b.id);
  std::erase_if(workers_[w].contributions, [&](const SimContribution& c) { return c.uid == m.uid; });
}

void World::Receive(uint32_t w, const Done& m) {
  if (m.no_epoch) {
    if (const auto entry = workers_[w].entries.find(m.batch.id); entry != workers_[w].entries.end()) {
      for (uint32_t f : entry->second.feeds) feeds_[f].broken = true;
    }
    return workers_[w].ForgetBatch(m.batch.id);
  }
  Acknowledge(w, m.batch.id);
  for (SimContribution& c : workers_[w].contributions) {
    if (!c.resumed || !c.uid || std::none_of(c.batches.begin(), c.batches.end(), [&](const Batch& b) { return b.id == m.batch.id; }))
      continue;
    ++c.answered;
    ++c.done;
  }
  std::erase_if(workers_[w].contributions, [](const SimContribution& c) { return c.resumed && c.done == c.batches.size(); });
}

void World::Receive(uint32_t w, const SkipLogged& m) { Acknowledge(w, m.batch.id); }

void World::Receive(uint32_t w, const CloseSession& m) {
  Note(absl::StrCat("w", w, " session closed: ", m.reason));
  workers_[w].final = m.final;
  LoseSession(w, /*keep_bytes=*/false);
}

void World::Compute(uint32_t w, SimContribution& c) {
  SimWorker& worker = workers_[w];
  const Batch batch = c.batches[c.computed];
  const auto listed = [&](const std::vector<BatchId>& list) { return std::find(list.begin(), list.end(), batch.id) != list.end(); };
  if (listed(scenario_.poison)) return CrashWorker(w);
  if (listed(scenario_.bad)) {
    c.batches.erase(c.batches.begin() + static_cast<std::ptrdiff_t>(c.computed));
    if (c.batches.empty()) std::erase_if(worker.contributions, [&](const SimContribution& x) { return &x == &c; });
    return Send(w, SkipUp{batch});
  }
  // The oldest version that it used: what was granted, or something newer.
  if (batch.id != kInitBatch && c.computed == 0 && rng_.Chance(50)) c.base = std::max(c.base, SlowestVersion());
  ++c.computed;
  worker.rows_done += batch.rows;
  if (worker.open) Send(w, StatusUp{worker.said_blocked.value_or(false), worker.rows_done});
}

void World::Encode(uint32_t w, SimContribution& c) {
  SimWorker& worker = workers_[w];
  c.uid = Uid{worker.session, ++worker.counter};
  for (uint32_t s = 0; s < shards_.size(); ++s) {
    if (!shards_[s].up) continue;
    c.pushed_to[s] = shards_[s].incarnation;
    push_[w][s].push_back(*c.uid);
  }
}

void World::Submit(uint32_t w, SimContribution& c) {
  Submission submission;
  submission.uid = *c.uid;
  submission.batches = c.batches;
  submission.base_version = c.base;
  for (const Batch& b : c.batches) submission.rows += b.rows;
  for (const auto& receipt : c.receipts) submission.receipts.push_back(*receipt);
  submission.loss_sum = static_cast<double>(submission.rows);
  c.submitted = true;
  Note(absl::StrCat("w", w, " submits ", c.uid->counter, " of session ", c.uid->session));
  if (scenario_.repeat_submits && rng_.Chance(30)) Send(w, submission);
  Send(w, std::move(submission));
}

void World::ReceiveReceipt(uint32_t s, uint32_t w) {
  const auto [uid, receipt] = receipts_[w][s].front();
  receipts_[w][s].pop_front();
  if (SimContribution* c = workers_[w].Find(uid); c != nullptr) c->receipts[s] = receipt;
}

// keep_bytes: the coordinator has crashed; encoded contributions may still count when the session is resumed.
void World::LoseSession(uint32_t w, bool keep_bytes) {
  SimWorker& worker = workers_[w];
  worker.open = false;
  worker.down.clear();
  std::erase_if(worker.contributions, [&](const SimContribution& c) { return !keep_bytes || !c.uid; });
  if (worker.contributions.empty()) worker.session = 0;
  for (auto& [id, entry] : worker.entries) entry.claimed = false;
}

void World::CrashWorker(uint32_t w) {
  Note(absl::StrCat("CRASH w", w));
  SimWorker& worker = workers_[w];
  if (worker.open) Send(w, LostUp{});
  worker = SimWorker{};
  worker.up = false;
  for (uint32_t s = 0; s < shards_.size(); ++s) receipts_[w][s].clear();
  for (SimFeed& feed : feeds_) {
    if (feed.worker == w) feed.broken = true;
  }
}

}  // namespace ballast::sim
