// Partitions: a connection delivers nothing in one direction, or in both, for a while. Its ends may notice, at different times, and give it
// up.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/sim/world.h"

namespace ballast::sim {
namespace {

using Link = Partition::Link;

constexpr int kHealPercent = 5;  // of the ticks; more when no further fault is to come
constexpr int kLastHealPercent = 20;
constexpr int kNoticePercent = 4;  // so long a keepalive takes

std::string Name(const Partition& p) {
  const char* const way = p.up && p.down ? "both ways" : p.up ? "upwards" : "downwards";
  switch (p.link) {
    case Link::kWork:
      return absl::StrCat("w", p.worker, " and server 0, ", way);
    case Link::kFollow:
      return absl::StrCat("shard ", p.shard, " and server 0, ", way);
    case Link::kPush:
      return absl::StrCat("w", p.worker, " and shard ", p.shard, ", ", way);
  }
  return "";
}

}  // namespace

// False: the connection that was drawn is cut already, or there is none.
bool World::MakePartition(uint32_t w, uint32_t s) {
  Partition p;
  p.link = static_cast<Link>(rng_.Below(3));
  p.worker = p.link == Link::kFollow ? 0 : w;
  p.shard = p.link == Link::kWork ? 0 : s;
  const uint64_t way = rng_.Below(3);
  p.up = way != 1;
  p.down = way != 0;
  if ((p.link == Link::kFollow && p.shard == 0) || Parted(p.link, p.worker, p.shard)) return false;
  Note(absl::StrCat("PARTITION between ", Name(p)));
  ++seen_["partitions"];
  partitions_.push_back(p);
  return true;
}

bool World::Blocked(Link link, uint32_t w, uint32_t s, bool up) const {
  return std::any_of(partitions_.begin(), partitions_.end(),
                     [&](const Partition& p) { return p.link == link && p.worker == w && p.shard == s && (up ? p.up : p.down); });
}

void World::TickNetwork() {
  for (size_t i = 0; i < partitions_.size();) {
    if (rng_.Chance(faults_left_ > 0 ? kHealPercent : kLastHealPercent)) {
      const Partition healed = partitions_[i];
      partitions_.erase(partitions_.begin() + static_cast<std::ptrdiff_t>(i));
      Heal(healed);
      continue;
    }
    if (!partitions_[i].noticed && CoordinatorUp() && rng_.Chance(kNoticePercent)) Notice(partitions_[i]);
    ++i;
  }
}

// Server 0 gives the connection up: what is still under way to it never arrives.
void World::Notice(Partition& p) {
  p.noticed = true;
  if (p.link == Link::kWork) {
    Note(absl::StrCat("server 0 gives w", p.worker, " up"));
    for (auto it = streams_.begin(); it != streams_.end();) {
      if (it->worker != p.worker) {
        ++it;
        continue;
      }
      const SessionId gone = it->session;
      it = streams_.erase(it);
      coordinator_->OnSessionLost(gone, now_ms_);
    }
  } else if (p.link == Link::kFollow && shards_[p.shard].connected) {
    Note(absl::StrCat("server 0 gives shard ", p.shard, " up"));
    SimShard& shard = shards_[p.shard];
    shard.connected = false;
    shard.down.clear();
    shard.up_stream.clear();
    coordinator_->OnShardLost(p.shard, now_ms_);
  }
  Drain();
}

// The connection goes on where it was, or is another one now.
void World::Heal(const Partition& p) {
  const bool lost = p.noticed || rng_.Chance(50);
  Note(absl::StrCat("heals: ", Name(p), lost ? "; the connection is lost" : ""));
  if (!lost) return;
  if (p.link == Link::kWork && workers_[p.worker].up && workers_[p.worker].open) {
    if (!p.noticed) Send(p.worker, LostUp{});
    LoseSession(p.worker, /*keep_bytes=*/false);
  } else if (p.link == Link::kPush) {
    push_[p.worker][p.shard].clear();
    receipts_[p.worker][p.shard].clear();
    for (SimContribution& c : workers_[p.worker].contributions) {
      if (c.uid && !c.receipts[p.shard]) c.pushed_to[p.shard] = 0;  // pushed again
    }
  } else if (p.link == Link::kFollow && CoordinatorUp() && shards_[p.shard].connected) {
    Partition again = p;
    Notice(again);
  }
}

}  // namespace ballast::sim
