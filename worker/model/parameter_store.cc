#include "worker/model/parameter_store.h"

#include <cstring>
#include <new>

namespace ballast {
namespace {
constexpr uint64_t kAlign = 64;  // a cache line, and the widest vector register
}  // namespace

ParameterStore::ParameterStore(absl::Span<const TensorSpec> tensors) {
  buffers_.reserve(tensors.size());
  for (const TensorSpec& spec : tensors) {
    const uint64_t elements = spec.Elements();
    const uint64_t size = elements * (spec.dtype == DType::kI64 ? sizeof(int64_t) : sizeof(float));
    const uint64_t padded = (size / kAlign + 1) * kAlign;  // at least one line: an empty tensor has an address too
    std::unique_ptr<void, Free> data(std::aligned_alloc(kAlign, padded));
    if (data == nullptr) throw std::bad_alloc();
    std::memset(data.get(), 0, padded);
    buffers_.push_back({spec.dtype, elements, std::move(data)});
    bytes_ += size;
  }
}

}  // namespace ballast
