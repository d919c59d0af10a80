// The live sessions of a run and the claims that they wait for. A session id is incarnation << 32 | n, so that an id is never given twice,
// whatever crashes; a contribution belongs to the session in its uid.
//
// Used by the coordinator's owner thread. Times: milliseconds of the coordinator's clock.
#ifndef BALLAST_CORE_COORDINATOR_SESSIONS_H_
#define BALLAST_CORE_COORDINATOR_SESSIONS_H_

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "core/coordinator/rules.h"
#include "core/types.h"

namespace ballast {

using SessionId = uint64_t;

inline constexpr size_t kSessionsMax = 4096;           // of a run
inline constexpr size_t kFencedMax = 1024;             // remembered contributions of a session; a worker resumes with kInFlightMax
inline constexpr size_t kParkedMax = size_t{1} << 16;  // claims of a session

struct Claim {
  Batch batch;
  std::optional<Uid> uid;  // the batch is computed into these bytes already
};

struct Session {
  SessionId id = 0;
  std::string worker;
  // Every feed is ended or at its window, and every queued batch is claimed. A session without feeds is blocked: it never holds a step.
  bool blocked = true;
  bool said_status = false;     // until then a claim means that there is a feed, which may have more
  uint64_t rows_before = 0;     // computed before its first status, as it reports
  uint64_t rows_done = 0;       // computed since
  uint64_t rows_submitted = 0;  // of these; each contribution once
  uint64_t last_counter = 0;    // newest contribution that it submitted, or computed before its first status
  int64_t progress_ms = 0;      // last sign that it computes
  std::deque<Claim> parked;     // neither granted nor done, in the order of the claims. Change it through Sessions
  Uid lacks_receipts;           // its newest submission that was refused for receipts
  std::set<Uid> fenced;         // given up: claims with them may still be on the way. The session claims those batches again
  double residual_norm = 0;
};

class Sessions {
 public:
  // `closed_below`: of the last decision, 0 if there is none.
  Sessions(uint64_t incarnation, uint64_t closed_below, Rules rules = {})
      : rules_(rules), incarnation_(incarnation), closed_below_(closed_below) {}

  // A new session, or `resume` again: a session of an older incarnation keeps its id, and so the uids of its bytes, when no decision of
  // this incarnation has cut it off and it was not resumed before. REQUIRES size() < kSessionsMax.
  struct Opened {
    Session* session;
    bool resumed;
  };
  Opened Open(const std::string& worker, SessionId resume, int64_t now_ms);
  void Close(SessionId id);  // drops its claims
  Session* Find(SessionId id);
  std::map<SessionId, Session>& live() { return live_; }
  const std::map<SessionId, Session>& live() const { return live_; }

  // For the next decision: undecided contributions of older sessions are garbage. Grows or stays.
  uint64_t ClosedBelow();
  // The same, after a rollback: whatever any session of before still holds or sends is garbage. REQUIRES no live session.
  uint64_t CloseAllBelow() { return closed_below_ = std::max(closed_below_, incarnation_ << 32 | next_); }

  void Park(Session& session, Claim claim);
  bool Waits(SessionId session, const BatchId& batch) const;
  // Takes claim `at` out of session.parked.
  Claim Unpark(Session& session, size_t at);
  // Takes out all claims of a batch, with their sessions.
  std::vector<std::pair<SessionId, Claim>> UnparkAll(const BatchId& batch);
  // Sessions with a parked claim of this batch.
  std::vector<SessionId> Waiting(const BatchId& batch) const;
  // Batches that somebody waits for, of one epoch.
  std::vector<BatchId> ParkedOf(uint32_t epoch) const;

 private:
  bool MayResume(SessionId id) const;

  const Rules rules_;
  const uint64_t incarnation_;
  uint64_t closed_below_;
  uint64_t next_ = 1;
  std::map<SessionId, Session> live_;  // nodes: a Session* stays until Close
  std::set<SessionId> resumed_;
  absl::flat_hash_map<BatchId, std::vector<SessionId>> waiting_;  // one entry a parked claim
};

}  // namespace ballast

#endif  // BALLAST_CORE_COORDINATOR_SESSIONS_H_
