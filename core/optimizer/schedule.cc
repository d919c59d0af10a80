#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/optimizer/optimizer.h"

namespace ballast {

uint32_t KernelIdOf(const OptimizerSpec& optimizer) {
  switch (optimizer.kind) {
    case OptimizerKind::kAdam:
      return kKernelAdam;
    case OptimizerKind::kAdamW:
      return kKernelAdamW;
    case OptimizerKind::kSgd:
      break;
  }
  return kKernelSgd;
}

bool IsKnownKernel(uint32_t kernel_id) { return kernel_id >= kKernelSgd && kernel_id <= kKernelAdamW; }

int SlotsOf(const OptimizerSpec& optimizer) {
  if (optimizer.kind != OptimizerKind::kSgd) return 2;
  return optimizer.momentum != 0 ? 1 : 0;
}

double LearningRate(const OptimizerSpec& optimizer, const ScheduleSpec& schedule, uint64_t t) {
  if (schedule.kind == ScheduleKind::kConstant) return optimizer.lr;
  if (t < schedule.warmup_steps) return optimizer.lr * static_cast<double>(t) / static_cast<double>(schedule.warmup_steps);
  if (t >= schedule.total_steps) return schedule.min_lr;
  const double done = static_cast<double>(t - schedule.warmup_steps) / static_cast<double>(schedule.total_steps - schedule.warmup_steps);
  return schedule.min_lr + (optimizer.lr - schedule.min_lr) * 0.5 * (1 + std::cos(std::numbers::pi * done));
}

std::vector<float> HyperOf(const OptimizerSpec& optimizer, const ScheduleSpec& schedule, uint64_t t) {
  std::vector<float> out(optimizer.groups.size() * kHyperPerGroup, 0.0f);
  const double base = LearningRate(optimizer, schedule, t);
  const double correction1 = 1 - std::pow(optimizer.beta1, static_cast<double>(t));
  const double correction2 = 1 - std::pow(optimizer.beta2, static_cast<double>(t));
  for (size_t g = 0; g < optimizer.groups.size(); ++g) {
    const ParamGroup& group = optimizer.groups[g];
    const double lr = base * group.lr_scale;
    float* h = &out[g * kHyperPerGroup];
    h[hyper_at::kLr] = static_cast<float>(lr);
    h[hyper_at::kDecay] = group.weight_decay;
    if (optimizer.kind == OptimizerKind::kSgd) {
      h[hyper_at::kMomentum] = static_cast<float>(optimizer.momentum);
      h[hyper_at::kDampen] = static_cast<float>(1 - optimizer.dampening);
      h[hyper_at::kNesterov] = optimizer.nesterov ? 1.0f : 0.0f;
      h[hyper_at::kFirst] = t <= 1 ? 1.0f : 0.0f;
      continue;
    }
    if (optimizer.kind == OptimizerKind::kAdamW) h[hyper_at::kDecay] = static_cast<float>(1 - lr * group.weight_decay);
    h[hyper_at::kOneMinusBeta1] = static_cast<float>(1 - optimizer.beta1);
    h[hyper_at::kBeta2] = static_cast<float>(optimizer.beta2);
    h[hyper_at::kOneMinusBeta2] = static_cast<float>(1 - optimizer.beta2);
    h[hyper_at::kCorrection2] = static_cast<float>(1 / std::sqrt(correction2));
    h[hyper_at::kEps] = static_cast<float>(optimizer.eps);
    h[hyper_at::kStepSize] = static_cast<float>(lr / correction1);
  }
  return out;
}

float ClipScale(double norm2, double divisor, double clip_norm) {
  if (clip_norm <= 0) return 1;
  const double norm = std::sqrt(norm2) / divisor;
  return static_cast<float>(std::min(1.0, clip_norm / (norm + 1e-6)));
}

}  // namespace ballast
