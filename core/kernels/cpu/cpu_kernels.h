// The CPU implementation of core/kernels/kernels.h: the truth that every other device must match bit for bit.
#ifndef BALLAST_CORE_KERNELS_CPU_CPU_KERNELS_H_
#define BALLAST_CORE_KERNELS_CPU_CPU_KERNELS_H_

#include <memory>

#include "core/kernels/kernels.h"

namespace ballast {

std::unique_ptr<Kernels> MakeCpuKernels();

}  // namespace ballast

#endif  // BALLAST_CORE_KERNELS_CPU_CPU_KERNELS_H_
