// A batch of rows as it waits in a worker, what can go wrong with a feed, and the seam through which a feed hears of it. Plain values.
#ifndef BALLAST_WORKER_FEED_ROW_BATCH_H_
#define BALLAST_WORKER_FEED_ROW_BATCH_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/types.h"

namespace ballast {

struct RowBatch {
  Batch batch;
  std::vector<std::pair<std::string, std::string>> columns;  // name, little-endian bytes [rows, shape...]
  std::string first_row_id;                                  // for messages

  uint64_t Bytes() const {  // what a feed's credit counts
    uint64_t bytes = 0;
    for (const auto& [name, data] : columns) bytes += data.size();
    return bytes;
  }
};

enum class Outcome : uint8_t { kTrained = 1, kDuplicate = 2, kSkipped = 3 };

// Ends a feed. `retry`: the task may open it again, perhaps elsewhere; else it must fail with this text.
struct FeedFault {
  std::string reason;  // UPPER_SNAKE
  std::string message;
  bool retry = false;
  std::map<std::string, std::string> metadata;
};

// The way back to one task. Called with the queue's lock held: implementations only enqueue, and never call the queue.
class FeedOutlet {
 public:
  virtual ~FeedOutlet() = default;
  virtual void Welcome(std::shared_ptr<const RunSpec> spec, uint64_t credit_bytes) = 0;  // once; only then does a feed send rows
  virtual void Credit(uint64_t bytes) = 0;
  virtual void Ack(uint64_t seq, Outcome outcome, uint64_t version, const std::string& reason) = 0;
  virtual void Fault(const FeedFault& fault) = 0;  // the last call
  virtual void Finish() = 0;                       // everything was sent and acknowledged; the last call
};

}  // namespace ballast

#endif  // BALLAST_WORKER_FEED_ROW_BATCH_H_
