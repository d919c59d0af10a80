// Model files and weight files: bytes under their SHA-256, in pieces of 1 MiB. The server never opens them (a model file is executable
// code).
//   artifact/<sha256>/<piece>   artifact-bytes/<sha256>: written last, so an artifact is there as a whole or not at all
// Threads: any, but for one Writer by one thread at a time. Everything here reads or writes the disk: not for gRPC's threads.
#ifndef BALLAST_SERVER_CONTROL_ARTIFACTS_H_
#define BALLAST_SERVER_CONTROL_ARTIFACTS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/storage/store.h"

namespace ballast {

inline constexpr size_t kPieceBytes = 1u << 20;
inline constexpr uint64_t kArtifactBytesMax = uint64_t{16} << 30;

// 64 digits of lower-case hex.
bool IsSha256(absl::string_view text);

class Artifacts {
 public:
  // `room`: an error when so many more bytes do not fit the disk.
  Artifacts(Store* store, std::function<absl::Status(uint64_t bytes)> room) : store_(store), room_(std::move(room)) {}

  absl::StatusOr<bool> Has(const std::string& sha256) const;
  // Errors: NotFound (NO_ARTIFACT).
  absl::StatusOr<uint64_t> Bytes(const std::string& sha256) const;
  absl::StatusOr<std::string> ReadPiece(const std::string& sha256, uint64_t piece) const;

  class Writer {
   public:
    virtual ~Writer() = default;  // without Finish nothing is left behind
    // Errors: InvalidArgument when more bytes come than were announced.
    virtual absl::Status Add(absl::string_view data) = 0;
    // Errors: DataLoss when length or digest differ from what was announced.
    virtual absl::Status Finish() = 0;
  };
  // Errors: InvalidArgument for a malformed digest or too many bytes; those of `room`.
  absl::StatusOr<std::unique_ptr<Writer>> Write(const std::string& sha256, uint64_t total_bytes);

 private:
  Store* const store_;
  const std::function<absl::Status(uint64_t bytes)> room_;
};

}  // namespace ballast

#endif  // BALLAST_SERVER_CONTROL_ARTIFACTS_H_
