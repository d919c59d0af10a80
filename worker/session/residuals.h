// What error feedback carries from one contribution of a session to the next: e = gradient + residual is encoded, what the code could not
// say becomes the residual. Only OPT tensors under a lossy codec have one.
//
// A residual belongs to a session and ends with it (Reset). A contribution that will not count takes its share back (Undo), also when
// others were encoded on top of it, and even when those count already, so that rows that are computed again are not counted twice. For that
// a copy of what was there before is kept for each contribution until it is settled: memory is at most (1 + 2 x contributions in flight) x
// the OPT tensors in fp32. Threads: any; every method locks. One contribution is encoded at a time.
#ifndef BALLAST_WORKER_SESSION_RESIDUALS_H_
#define BALLAST_WORKER_SESSION_RESIDUALS_H_

#include <cstdint>
#include <list>
#include <map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "core/types.h"

namespace ballast {

class Residuals {
 public:
  Residuals(const RunSpec& spec, const Layout& layout);

  bool lossy() const { return lossy_; }
  void Begin(const Uid& uid);
  // Encodes block `block` of the layout for the contribution that was begun last; `grad` are its elements. REQUIRES an OPT tensor.
  void Encode(size_t block, absl::Span<const float> grad, absl::Span<char> out);
  void Settle(const Uid& uid);  // it counts: nothing can be taken back any more
  void Undo(const Uid& uid);    // it will not count. No effect on one that is not known (any more)
  void Reset();                 // zero
  double Norm() const;          // L2, all tensors

  // Copies elements [first, first + out.size()) of a tensor. Returns how many it has; 0: the tensor carries none.
  uint64_t Read(uint32_t tensor, uint64_t first, absl::Span<float> out) const;
  uint64_t Elements(uint32_t tensor) const;

 private:
  struct Contribution {
    Uid uid;
    std::map<size_t, std::vector<float>> before;  // by block
    bool settled = false;
  };

  absl::Span<float> Of(size_t block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void DropSettled() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Codec codec_;
  const bool lossy_;
  const Layout layout_;

  mutable absl::Mutex mu_;
  std::vector<std::vector<float>> tensors_ ABSL_GUARDED_BY(mu_);  // empty where there is none
  std::vector<double> norm2_ ABSL_GUARDED_BY(mu_);                // by block
  std::list<Contribution> in_flight_ ABSL_GUARDED_BY(mu_);        // in the order of their encoding
};

}  // namespace ballast

#endif  // BALLAST_WORKER_SESSION_RESIDUALS_H_
