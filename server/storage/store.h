// Durable small records and checkpoint blocks of one server. RocksDB is one implementation (rocks_store.h); tests also have one in memory.
// Bulk log bytes never go through it (server/storage/segment_log.h).
//
// Threads: all methods from any thread. Errors: Internal or DataLoss with the store's own text; after a failed synced write the process
// must stop (never retry an fsync).
#ifndef BALLAST_SERVER_STORAGE_STORE_H_
#define BALLAST_SERVER_STORAGE_STORE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ballast {

class Store {
 public:
  virtual ~Store() = default;

  // ---- records: run specs, artifacts in pieces, manifests, epochs, incarnation, positions
  virtual absl::Status Put(absl::string_view key, absl::string_view value) = 0;  // synced when it returns
  virtual absl::StatusOr<std::string> Get(absl::string_view key) = 0;            // NotFound
  virtual absl::Status Delete(absl::string_view key) = 0;                        // synced
  virtual absl::Status DeletePrefix(absl::string_view prefix) = 0;               // synced
  // Keys with `prefix`, ascending; stops when `visit` returns false.
  virtual absl::Status Scan(absl::string_view prefix, const std::function<bool(absl::string_view key, absl::string_view value)>& visit) = 0;

  // ---- bulk: sorted blocks of a checkpoint, written to a file of their own and taken over at once, synced, by Finish
  class Bulk {
   public:
    virtual ~Bulk() = default;                                                     // without Finish: nothing is left behind
    virtual absl::Status Add(absl::string_view key, absl::string_view value) = 0;  // keys ascending
    virtual absl::Status Finish() = 0;
  };
  virtual absl::StatusOr<std::unique_ptr<Bulk>> NewBulk() = 0;
};

}  // namespace ballast

#endif  // BALLAST_SERVER_STORAGE_STORE_H_
