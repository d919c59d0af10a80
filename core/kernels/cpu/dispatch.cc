#include "core/kernels/cpu/dispatch.h"

#include <atomic>

namespace ballast {
namespace {

std::atomic<Isa>& Active() {
  static std::atomic<Isa> active{BestIsa()};
  return active;
}

}  // namespace

Isa BestIsa() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    return Isa::kAvx512;
  }
  if (__builtin_cpu_supports("avx2")) return Isa::kAvx2;
#endif
  return Isa::kBase;
}

Isa ActiveIsa() { return Active().load(std::memory_order_relaxed); }

void ForceIsaForTest(Isa isa) { Active().store(isa, std::memory_order_relaxed); }

}  // namespace ballast
