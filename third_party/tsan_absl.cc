// Shows ThreadSanitizer what absl::Mutex and absl::Notification order. Debian's Abseil is not instrumented: TSan sees neither its locks nor
// what they protect, and reports races where there are none. The linker sends the calls of our code through these functions (BUILD,
// "tsan_absl"); what Abseil calls inside itself stays unseen. So a test that links this must not depend on Abseil for any other order
// between threads, as that of an absl::Status that two threads hold.
//
// Without TSan, and with an Abseil that is instrumented itself (tools/sanitize sets BALLAST_TSAN_LIBRARIES), they only pass on.
#include <sanitizer/tsan_interface.h>
#include <time.h>

#include <cstdlib>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"

using absl::Condition;
using absl::Mutex;
using absl::Notification;

#ifdef __SANITIZE_THREAD__
static const bool tells = std::getenv("BALLAST_TSAN_LIBRARIES") == nullptr;
#define BALLAST_TSAN(call) (tells ? static_cast<void>(call) : void())
#else
static constexpr bool tells = false;
#define BALLAST_TSAN(call) void()
#endif

// What ld calls the two ends of --wrap=SYMBOL.
void RealLock(Mutex* mu) asm("__real__ZN4absl7debian35Mutex4LockEv");
void RealUnlock(Mutex* mu) asm("__real__ZN4absl7debian35Mutex6UnlockEv");
void RealAwait(Mutex* mu, const Condition& condition) asm("__real__ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE");
void RealDestroy(Mutex* mu) asm("__real__ZN4absl7debian35MutexD1Ev");
void RealNotify(Notification* n) asm("__real__ZN4absl7debian312Notification6NotifyEv");
void RealWait(const Notification* n) asm("__real__ZNK4absl7debian312Notification19WaitForNotificationEv");

void Lock(Mutex* mu) asm("__wrap__ZN4absl7debian35Mutex4LockEv");
void Unlock(Mutex* mu) asm("__wrap__ZN4absl7debian35Mutex6UnlockEv");
void Await(Mutex* mu, const Condition& condition) asm("__wrap__ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE");
void Destroy(Mutex* mu) asm("__wrap__ZN4absl7debian35MutexD1Ev");
void Notify(Notification* n) asm("__wrap__ZN4absl7debian312Notification6NotifyEv");
void Wait(const Notification* n) asm("__wrap__ZNK4absl7debian312Notification19WaitForNotificationEv");

void Lock(Mutex* mu) {
  BALLAST_TSAN(__tsan_mutex_pre_lock(mu, 0));
  RealLock(mu);
  BALLAST_TSAN(__tsan_mutex_post_lock(mu, 0, 0));
}

void Unlock(Mutex* mu) {
  BALLAST_TSAN(__tsan_mutex_pre_unlock(mu, 0));
  RealUnlock(mu);
  BALLAST_TSAN(__tsan_mutex_post_unlock(mu, 0));
}

// Abseil lets whoever unlocks evaluate the conditions of those who wait, after TSan has seen the unlock. Here each evaluates its own.
void Await(Mutex* mu, const Condition& condition) {
  if (!tells) return RealAwait(mu, condition);
  constexpr timespec kPeriod{0, 200'000};
  while (!condition.Eval()) {
    Unlock(mu);
    nanosleep(&kPeriod, nullptr);
    Lock(mu);
  }
}

void Destroy(Mutex* mu) {
  RealDestroy(mu);
  BALLAST_TSAN(__tsan_mutex_destroy(mu, 0));
}

void Notify(Notification* n) {
  BALLAST_TSAN(__tsan_release(n));
  RealNotify(n);
}

void Wait(const Notification* n) {
  RealWait(n);
  BALLAST_TSAN(__tsan_acquire(const_cast<Notification*>(n)));
}
