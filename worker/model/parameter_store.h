// The values of a run on the host: one flat, 64-byte aligned buffer per tensor of RunSpec.tensors, in its order. The session fills it from
// Pull, a Model computes from it (it reads the parameters in place, without a copy).
// Threads: none of its own. One writer and no reader, or any number of readers: whoever shares it keeps that order.
#ifndef BALLAST_WORKER_MODEL_PARAMETER_STORE_H_
#define BALLAST_WORKER_MODEL_PARAMETER_STORE_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "core/types.h"

namespace ballast {

class ParameterStore {
 public:
  // All zero. REQUIRES shapes that core/layout has validated (their products fit).
  explicit ParameterStore(absl::Span<const TensorSpec> tensors);

  size_t tensors() const { return buffers_.size(); }
  DType dtype(size_t tensor) const { return buffers_[tensor].dtype; }
  uint64_t elements(size_t tensor) const { return buffers_[tensor].elements; }
  uint64_t bytes() const { return bytes_; }  // of all tensors

  // REQUIRES dtype(tensor) == kF32.
  absl::Span<float> F32(size_t tensor) { return {static_cast<float*>(buffers_[tensor].data.get()), buffers_[tensor].elements}; }
  absl::Span<const float> F32(size_t tensor) const {
    return {static_cast<const float*>(buffers_[tensor].data.get()), buffers_[tensor].elements};
  }

  // REQUIRES dtype(tensor) == kI64.
  absl::Span<int64_t> I64(size_t tensor) { return {static_cast<int64_t*>(buffers_[tensor].data.get()), buffers_[tensor].elements}; }
  absl::Span<const int64_t> I64(size_t tensor) const {
    return {static_cast<const int64_t*>(buffers_[tensor].data.get()), buffers_[tensor].elements};
  }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  struct Buffer {
    DType dtype = DType::kF32;
    uint64_t elements = 0;
    std::unique_ptr<void, Free> data;  // never null
  };
  std::vector<Buffer> buffers_;
  uint64_t bytes_ = 0;
};

}  // namespace ballast

#endif  // BALLAST_WORKER_MODEL_PARAMETER_STORE_H_
