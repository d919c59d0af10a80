// CivetWeb (under prometheus-cpp) asks for thread stacks of 100 KiB. A thread's static TLS comes out of its stack, and libtorch's alone is
// larger, so in a process that links both pthread_create refuses every such thread and the metrics server does not start. The executable's
// own definition is found before libc's and raises small requests; nothing else changes.
#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <cstddef>

namespace {

constexpr std::size_t kMinStackBytes = std::size_t{1} << 20;

}  // namespace

extern "C" int pthread_attr_setstacksize(pthread_attr_t* attributes, std::size_t bytes) noexcept {
  using SetStackSize = int (*)(pthread_attr_t*, std::size_t);
  static const auto next = reinterpret_cast<SetStackSize>(dlsym(RTLD_NEXT, "pthread_attr_setstacksize"));
  return next(attributes, std::max(bytes, kMinStackBytes));
}
