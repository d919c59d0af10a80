#include "core/kernels/kernels.h"

#include "core/kernels/cpu/cpu_kernels.h"

namespace ballast {

absl::StatusOr<std::unique_ptr<Kernels>> MakeKernels(Device device) {
  switch (device) {
    case Device::kCpu:
      return MakeCpuKernels();
  }
  return absl::UnimplementedError("this build has no kernels for the device asked for");
}

}  // namespace ballast
