// What readers get: one version at a time, encoded once for each codec that somebody asks for, shared by all of them. A pull for a version
// that is not there yet parks. While a step is applied, the version before it is still handed out.
//
// Threads: Pull and Cancel from any; Serve from the owner; Close when that has ended. `ready` is called without a lock held, from the
// caller's or the owner thread.
// Limit: three codecs of one version, plus what readers still hold.
#ifndef BALLAST_SERVER_SHARD_PUBLISHER_H_
#define BALLAST_SERVER_SHARD_PUBLISHER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"
#include "core/types.h"
#include "server/shard/run_shard.h"

namespace ballast {

class Publisher {
 public:
  using Ready = std::function<void(std::shared_ptr<const Encoding>)>;

  // `wake`: asks the owner to call Serve, because somebody waits for a codec of the current version.
  explicit Publisher(std::function<void()> wake) : wake_(std::move(wake)) {}

  // Version 0 is never handed out: nothing has set it. Returns 0 when `ready` was called, else an id for Cancel.
  uint64_t Pull(uint64_t min_version, Codec codec, Ready ready);
  void Cancel(uint64_t id);
  // Answers everybody who waits, and whoever still comes, with null.
  void Close();

  // The values are those of `version`: answers everybody who waited for no more. `encode` is called at most once a codec.
  void Serve(uint64_t version, absl::FunctionRef<std::shared_ptr<const Encoding>(Codec)> encode);

 private:
  struct Parked {
    uint64_t min_version = 0;
    Codec codec = Codec::kFp32;
    Ready ready;
  };

  const std::function<void()> wake_;
  absl::Mutex mu_;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t version_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<Codec, std::shared_ptr<const Encoding>> encodings_ ABSL_GUARDED_BY(mu_);  // of version_
  std::map<uint64_t, Parked> parked_ ABSL_GUARDED_BY(mu_);                           // by id: in order of arrival
  uint64_t next_id_ ABSL_GUARDED_BY(mu_) = 1;
};

}  // namespace ballast

#endif  // BALLAST_SERVER_SHARD_PUBLISHER_H_
