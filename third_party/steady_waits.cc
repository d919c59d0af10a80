// Abseil ends its timed waits at a time of day, and gRPC's timers wait by Abseil: when somebody sets the clock back by an hour, the thread
// that runs them sleeps for that hour, and with it every alarm, reconnection and deadline of the process. The executable's own definition
// of syscall() is found before libc's: it makes of a futex wait until a time of day one by the monotonic clock, of the same length.
#include <dlfcn.h>
#include <linux/futex.h>
#include <sys/syscall.h>

#include <atomic>
#include <cstdarg>
#include <cstdint>
#include <ctime>

namespace {

using Syscall = long (*)(long, ...);
constexpr int64_t kNsPerS = 1'000'000'000;
constexpr int64_t kSecondsMax = int64_t{100} * 365 * 24 * 3600;  // as good as for ever

// Not a guarded static: a guard that is contended would wait by syscall().
Syscall Next() {
  static std::atomic<Syscall> next{nullptr};
  Syscall found = next.load(std::memory_order_relaxed);
  if (found == nullptr) next.store(found = reinterpret_cast<Syscall>(dlsym(RTLD_NEXT, "syscall")), std::memory_order_relaxed);
  return found;
}

timespec Now(clockid_t clock) {
  timespec now{};
  (void)::clock_gettime(clock, &now);
  return now;
}

// The moment of the monotonic clock at which the wall clock, if nobody sets it, is at `deadline`.
timespec Steady(const timespec& deadline) {
  const timespec wall = Now(CLOCK_REALTIME), steady = Now(CLOCK_MONOTONIC);
  int64_t seconds = int64_t{deadline.tv_sec} - wall.tv_sec;
  if (seconds > kSecondsMax) seconds = kSecondsMax;
  if (seconds < -1) return {};
  int64_t ns = (steady.tv_sec + seconds) * kNsPerS + steady.tv_nsec + deadline.tv_nsec - wall.tv_nsec;
  if (ns < 0) ns = 0;
  return {static_cast<time_t>(ns / kNsPerS), static_cast<long>(ns % kNsPerS)};
}

}  // namespace

extern "C" long syscall(long number, ...) noexcept {
  va_list list;
  va_start(list, number);
  long a[6];  // no call has more; what this one does not have is not looked at
  for (long& argument : a) argument = va_arg(list, long);
  va_end(list);
  const long operation = a[1];
  if (number == SYS_futex && (operation & FUTEX_CLOCK_REALTIME) != 0 && (operation & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET && a[3] != 0) {
    const timespec deadline = Steady(*reinterpret_cast<const timespec*>(a[3]));
    return Next()(number, a[0], operation & ~FUTEX_CLOCK_REALTIME, a[2], &deadline, a[4], a[5]);
  }
  return Next()(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
