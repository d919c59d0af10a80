#include "core/optimizer/optimizer.h"

#include <cmath>

#include "core/kernels/cpu/dispatch.h"

namespace ballast {
namespace {

// The switches are template arguments, so that each loop below is straight-line code that vectorises.
template <bool kDecayOn, bool kSlot, bool kFirstStep, bool kNesterovOn>
BALLAST_INLINE void SgdLoop(const float* __restrict hyper, const float* __restrict grad, float* __restrict w, float* __restrict b,
                            size_t n) {
  const float lr = hyper[hyper_at::kLr], decay = hyper[hyper_at::kDecay], momentum = hyper[hyper_at::kMomentum],
              dampen = hyper[hyper_at::kDampen];
  for (size_t i = 0; i < n; ++i) {
    float g = grad[i];
    if (kDecayOn) g = g + decay * w[i];
    if (kSlot) {
      const float next = kFirstStep ? g : momentum * b[i] + dampen * g;
      b[i] = next;
      g = kNesterovOn ? g + momentum * next : next;
    }
    w[i] = w[i] - lr * g;
  }
}

BALLAST_INLINE void SgdBody(const float* hyper, const float* grad, float* w, float* b, size_t n) {
  const bool decay = hyper[hyper_at::kDecay] != 0, nesterov = hyper[hyper_at::kNesterov] != 0, first = hyper[hyper_at::kFirst] != 0;
  if (b == nullptr)
    return decay ? SgdLoop<true, false, false, false>(hyper, grad, w, b, n) : SgdLoop<false, false, false, false>(hyper, grad, w, b, n);
  if (decay) {
    if (first)
      return nesterov ? SgdLoop<true, true, true, true>(hyper, grad, w, b, n) : SgdLoop<true, true, true, false>(hyper, grad, w, b, n);
    return nesterov ? SgdLoop<true, true, false, true>(hyper, grad, w, b, n) : SgdLoop<true, true, false, false>(hyper, grad, w, b, n);
  }
  if (first)
    return nesterov ? SgdLoop<false, true, true, true>(hyper, grad, w, b, n) : SgdLoop<false, true, true, false>(hyper, grad, w, b, n);
  return nesterov ? SgdLoop<false, true, false, true>(hyper, grad, w, b, n) : SgdLoop<false, true, false, false>(hyper, grad, w, b, n);
}
BALLAST_DISPATCH(void, Sgd, (const float* hyper, const float* grad, float* w, float* b, size_t n), (hyper, grad, w, b, n))

enum class Decay { kNone, kIntoGradient, kDecoupled };

template <Decay kMode>
BALLAST_INLINE void AdamLoop(const float* __restrict hyper, const float* __restrict grad, float* __restrict w, float* __restrict m,
                             float* __restrict v, size_t n) {
  const float decay = hyper[hyper_at::kDecay], step_size = hyper[hyper_at::kStepSize], eps = hyper[hyper_at::kEps],
              correction = hyper[hyper_at::kCorrection2];
  const float take1 = hyper[hyper_at::kOneMinusBeta1], keep2 = hyper[hyper_at::kBeta2], take2 = hyper[hyper_at::kOneMinusBeta2];
  for (size_t i = 0; i < n; ++i) {
    float g = grad[i];
    float x = w[i];
    if (kMode == Decay::kIntoGradient) g = g + decay * x;
    if (kMode == Decay::kDecoupled) x = x * decay;
    const float first = m[i] + take1 * (g - m[i]);
    const float second = keep2 * v[i] + take2 * (g * g);
    m[i] = first;
    v[i] = second;
    w[i] = x - step_size * (first / (std::sqrt(second) * correction + eps));
  }
}

BALLAST_INLINE void AdamBody(const float* hyper, const float* grad, float* w, float* m, float* v, size_t n) {
  if (hyper[hyper_at::kDecay] == 0) return AdamLoop<Decay::kNone>(hyper, grad, w, m, v, n);
  AdamLoop<Decay::kIntoGradient>(hyper, grad, w, m, v, n);
}
BALLAST_INLINE void AdamWBody(const float* hyper, const float* grad, float* w, float* m, float* v, size_t n) {
  AdamLoop<Decay::kDecoupled>(hyper, grad, w, m, v, n);
}
BALLAST_DISPATCH(void, Adam, (const float* hyper, const float* grad, float* w, float* m, float* v, size_t n), (hyper, grad, w, m, v, n))
BALLAST_DISPATCH(void, AdamW, (const float* hyper, const float* grad, float* w, float* m, float* v, size_t n), (hyper, grad, w, m, v, n))

}  // namespace

void ApplyOptimizer(uint32_t kernel_id, absl::Span<const float> hyper, absl::Span<const float> grad, absl::Span<float> w,
                    const Slots& slots) {
  switch (kernel_id) {
    case kKernelSgd:
      return Sgd(hyper.data(), grad.data(), w.data(), slots[0], w.size());
    case kKernelAdam:
      return Adam(hyper.data(), grad.data(), w.data(), slots[0], slots[1], w.size());
    case kKernelAdamW:
      return AdamW(hyper.data(), grad.data(), w.data(), slots[0], slots[1], w.size());
  }
}

}  // namespace ballast
