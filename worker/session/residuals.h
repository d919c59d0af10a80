// What error feedback carries from one contribution of a session to the next: e = gradient + residual is encoded, what the code could not
// say becomes the residual. Only OPT tensors under a lossy codec have one.
//
// A residual belongs to a session and ends with it (Reset). A contribution that will not count takes its share back (Undo), so that the
// rows that are computed again are not counted twice: one copy of the residual before the last contribution is kept for that.
// Threads: any; every method locks. One contribution is encoded at a time.
#ifndef BALLAST_WORKER_SESSION_RESIDUALS_H_
#define BALLAST_WORKER_SESSION_RESIDUALS_H_

#include <cstdint>
#include <string>
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
  void BeginContribution();  // what was encoded before stands
  // Encodes block `block` of the layout; `grad` are its elements. REQUIRES an OPT tensor.
  void Encode(size_t block, absl::Span<const float> grad, absl::Span<char> out);
  void Undo();          // everything since BeginContribution; the second call does nothing
  void Reset();         // zero
  double Norm() const;  // L2, all tensors

  // Copies elements [first, first + out.size()) of a tensor. Returns how many it has; 0: the tensor carries none.
  uint64_t Read(uint32_t tensor, uint64_t first, absl::Span<float> out) const;
  uint64_t Elements(uint32_t tensor) const;

 private:
  struct Saved {
    size_t block;
    std::vector<float> values;
    double norm2;
  };

  const Codec codec_;
  const bool lossy_;
  const Layout layout_;

  mutable absl::Mutex mu_;
  std::vector<std::vector<float>> tensors_ ABSL_GUARDED_BY(mu_);  // empty where there is none
  std::vector<double> norm2_ ABSL_GUARDED_BY(mu_);                // by block
  std::vector<Saved> undo_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ballast

#endif  // BALLAST_WORKER_SESSION_RESIDUALS_H_
