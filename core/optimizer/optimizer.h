// Optimizers and schedules: torch.optim's SGD, Adam and AdamW over blocks of F32 (amsgrad off). The coordinator evaluates HyperOf once a
// step and logs the result in the decision; the shards run ApplyOptimizer with those logged bits and nothing else, so a replay cannot
// differ. Pure functions over caller-owned memory: safe from any thread.
//
// Arithmetic: fp32, one IEEE operation after another in the order written below (docs/wire_format.md has it for other languages).
// Momentum's first step and Adam's t count STEP decisions of the run, not the steps in which a tensor had a gradient: a tensor that was
// left alone in some step differs there from torch, which counts for each tensor.
#ifndef BALLAST_CORE_OPTIMIZER_OPTIMIZER_H_
#define BALLAST_CORE_OPTIMIZER_OPTIMIZER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "core/types.h"

namespace ballast {

inline constexpr int kSlotsMax = 2;

// Decision.kernel_id: names optimizer and arithmetic. A change of any operation below is a new id; old ids stay readable.
inline constexpr uint32_t kKernelSgd = 1;
inline constexpr uint32_t kKernelAdam = 2;
inline constexpr uint32_t kKernelAdamW = 3;
uint32_t KernelIdOf(const OptimizerSpec& optimizer);
bool IsKnownKernel(uint32_t kernel_id);

// Decision.hyper holds kHyperPerGroup floats for each parameter group, one group after another.
inline constexpr size_t kHyperPerGroup = 8;
namespace hyper_at {
enum : size_t {   //    SGD              Adam                  AdamW
  kLr = 0,        //    lr               lr                    lr                      (schedule * lr_scale)
  kDecay = 1,     //    weight decay     weight decay          1 - lr * weight decay
  kMomentum = 2,  //    momentum         1 - beta1             1 - beta1
  kDampen = 3,    //    1 - dampening    beta2                 beta2
  kNesterov = 4,  //    0 or 1           1 - beta2             1 - beta2
  kFirst = 5,     //    1 at step 1      1/sqrt(1 - beta2^t)   1/sqrt(1 - beta2^t)
  kEps = 6,       //    0                eps                   eps
  kStepSize = 7,  //    0                lr / (1 - beta1^t)    lr / (1 - beta1^t)
  kOneMinusBeta1 = kMomentum,
  kBeta2 = kDampen,
  kOneMinusBeta2 = kNesterov,
  kCorrection2 = kFirst,
};
}  // namespace hyper_at

// F32 arrays that the optimizer keeps beside each OPT tensor: SGD 0, with momentum 1; Adam and AdamW 2 (m, v). All start as zeros.
int SlotsOf(const OptimizerSpec& optimizer);

// Learning rate of step t = 1, 2, ... before lr_scale.
double LearningRate(const OptimizerSpec& optimizer, const ScheduleSpec& schedule, uint64_t t);

// Everything that ApplyOptimizer needs for step `t`, computed in double and rounded once to float. Size: groups * kHyperPerGroup.
std::vector<float> HyperOf(const OptimizerSpec& optimizer, const ScheduleSpec& schedule, uint64_t t);

// torch.nn.utils.clip_grad_norm_'s factor for a gradient sum with squared norm `norm2`, after division by `divisor`. 1 when clip_norm is 0.
float ClipScale(double norm2, double divisor, double clip_norm);

// Slots of a block; unused ones are null.
using Slots = std::array<float*, kSlotsMax>;

// One step of `kernel_id` on n = grad.size() = w.size() elements. `hyper`: the kHyperPerGroup floats of the tensor's group.
// REQUIRES IsKnownKernel(kernel_id); slots as SlotsOf says, n elements each (SGD: slots[0] null without momentum); nothing overlaps.
//   SGD    g += decay * w (if decay != 0); with a slot b: b = first ? g : momentum * b + dampen * g;
//          g = nesterov ? g + momentum * b : b;  w = w - lr * g
//   Adam   g += decay * w (if decay != 0); m = m + (1-beta1) * (g - m); v = beta2 * v + (1-beta2) * (g * g);
//          w = w - step_size * (m / (sqrt(v) * correction2 + eps))
//   AdamW  w = w * decay; then as Adam without decay
void ApplyOptimizer(uint32_t kernel_id, absl::Span<const float> hyper, absl::Span<const float> grad, absl::Span<float> w,
                    const Slots& slots);

}  // namespace ballast

#endif  // BALLAST_CORE_OPTIMIZER_OPTIMIZER_H_
