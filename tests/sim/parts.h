// The simulated processes around the real coordinator: their state, and what each can do by itself. World (world.h) connects them, picks
// the next move and checks the promises.
#ifndef BALLAST_TESTS_SIM_PARTS_H_
#define BALLAST_TESTS_SIM_PARTS_H_

#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "core/coordinator/coordinator.h"
#include "core/types.h"

namespace ballast::sim {

using DecisionPtr = std::shared_ptr<const Decision>;

// ---- messages: each channel delivers in order, channels do not wait for one another --------------------------------------------------
struct ClaimUp {
  Batch batch;
  std::optional<Uid> uid;
};
struct SkipUp {
  Batch batch;
};
struct StatusUp {
  bool blocked = false;
  uint64_t rows_done = 0;
};
struct LostUp {};   // the stream ended; what was sent before still arrives before
struct LeaveUp {};  // said before the stream ends
using WorkUp = std::variant<ClaimUp, Submission, SkipUp, StatusUp, LostUp, LeaveUp>;

struct AcceptedUp {
  uint64_t index = 0;
  uint64_t coordinator = 0;
};
struct AppliedUp {
  uint64_t index = 0;
};
struct NormUp {
  uint64_t query = 0;
  double norm2 = 0;
};
struct CheckpointedUp {
  uint64_t version = 0;
};
using FollowUp = std::variant<ShardPosition, AcceptedUp, AppliedUp, NormUp, CheckpointedUp>;

struct RowsUp {
  uint64_t seq = 0;
};
struct PauseUp {  // Flush or End: the task sends nothing more before an acknowledgement
  bool end = false;
};
using FeedUp = std::variant<RowsUp, PauseUp>;

// ---- a shard: a log with an unsynced tail --------------------------------------------------------------------------------------------
struct SimShard {
  bool up = true;
  uint64_t incarnation = 1;
  std::map<Uid, bool> contributions;   // appended -> synced. Never dropped, so that every check stays possible
  std::set<Uid> in_memory;             // of these: not in the log (durability: checkpoint)
  bool lost = false;                   // steps are missing in its values: it waits for a rollback
  std::vector<DecisionPtr> decisions;  // in its log; shard 0: durable or appended by the coordinator
  size_t synced_decisions = 0;
  size_t applied = 0;
  uint64_t ever_accepted = 0;            // newest decision it ever took
  uint64_t rows_applied = 0;             // what its values stand for
  std::map<uint64_t, uint64_t> rows_at;  // by version of a checkpoint
  std::set<uint64_t> checkpoints;        // finished versions
  std::deque<uint64_t> checkpoints_due;
  std::vector<std::pair<Uid, uint32_t>> receipts_due;  // uid, worker: after the next sync
  std::deque<ShardMessage> down;                       // Follow stream
  std::deque<FollowUp> up_stream;
  bool connected = false;    // to this life of the coordinator
  uint64_t coordinator = 0;  // newest incarnation it has heard of

  bool Has(const Uid& uid, bool synced) const {
    const auto it = contributions.find(uid);
    return it != contributions.end() && (it->second || !synced);
  }
  std::vector<Uid> Undecided() const;  // complete and durable, not in a decision it holds, not closed
  void Sync();
  void LoseTail();  // a crash
};

// ---- a worker --------------------------------------------------------------------------------------------------------------------------
struct SimContribution {
  uint64_t step = 0;
  uint64_t base = 0;
  std::vector<Batch> batches;
  size_t computed = 0;
  bool flush = false;
  std::optional<Uid> uid;  // set once it is encoded: then nothing above changes
  bool resumed = false;    // claimed again after the coordinator restarted
  size_t answered = 0;     // its claims: granted again, or done
  size_t done = 0;
  std::vector<std::optional<Receipt>> receipts;  // by shard
  std::vector<uint64_t> pushed_to;               // incarnation of the shard that the bytes were sent to; 0: not sent
  bool submitted = false;
};

struct SimWorker {
  struct Entry {
    Batch batch;
    std::set<uint32_t> feeds;
    bool claimed = false;
  };
  bool up = true;
  bool hung = false;
  bool final = false;  // told that the run stopped
  SessionId session = 0;
  bool open = false;  // its Work stream
  uint64_t life = 0;  // of the stream: messages of older ones are dropped
  uint64_t counter = 0;
  uint64_t rows_done = 0;
  std::optional<bool> said_blocked;  // in this session
  std::map<BatchId, Entry> entries;
  std::list<SimContribution> contributions;
  std::deque<SessionMessage> down;

  SimContribution* Find(const Uid& uid);
  void ForgetBatch(const BatchId& id) { entries.erase(id); }
};

struct DropManifests {  // a write of server 0's store
  ManifestCommitted committed;
};

struct WorkStream {  // what is still under way to the coordinator, also of sessions that are gone
  SessionId session = 0;
  uint32_t worker = 0;
  std::deque<WorkUp> up;
};

// ---- the network -----------------------------------------------------------------------------------------------------------------------
// A connection on which nothing arrives, in one direction or in both, until it heals. What was sent waits, or is lost with the connection.
struct Partition {
  enum class Link : uint8_t { kWork, kFollow, kPush };  // worker and server 0; shard and server 0; worker and shard (pulls, too)
  Link link = Link::kWork;
  uint32_t worker = 0;
  uint32_t shard = 0;
  bool up = false;       // towards the coordinator, or the shard
  bool down = false;     // from there
  bool noticed = false;  // server 0 has given the connection up; the other end knows nothing of it yet
};

// ---- Spark -----------------------------------------------------------------------------------------------------------------------------
struct SimFeed {
  uint32_t attempt = 0;
  uint32_t worker = 0;
  bool broken = false;
  bool paused = false;  // the worker has seen Flush or End after the last Rows
  bool ended = false;
  std::deque<FeedUp> up;
  std::deque<uint64_t> acks;
};

struct SimAttempt {
  enum class State : uint8_t { kWaiting, kRunning, kDone, kKilled };
  uint32_t epoch = 1;
  uint32_t partition = 0;
  uint32_t worker = 0;
  State state = State::kWaiting;
  std::optional<uint32_t> feed;
  std::set<uint64_t> sent;  // on the present feed
  std::set<uint64_t> acked;
  bool paused = false;  // Flush or End is sent
  uint32_t idle = 0;    // ticks without an acknowledgement
};

}  // namespace ballast::sim

#endif  // BALLAST_TESTS_SIM_PARTS_H_
