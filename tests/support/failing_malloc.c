// Loaded with LD_PRELOAD: memory runs out once. The BALLAST_MALLOC_FAILS_AT-th allocation of this process, counted over all threads, returns
// NULL; "failing_malloc" is said on stderr first.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_long counted;
static atomic_long fails_at;  // 0: the environment was not read

extern void* __libc_malloc(size_t);
extern void* __libc_calloc(size_t, size_t);
extern void* __libc_realloc(void*, size_t);
extern void* __libc_memalign(size_t, size_t);

static int fails(void) {
  if (fails_at == 0) {
    const char* text = getenv("BALLAST_MALLOC_FAILS_AT");
    fails_at = text == NULL ? -1 : strtol(text, NULL, 10);
  }
  if (atomic_fetch_add(&counted, 1) + 1 != fails_at) return 0;
  static const char said[] = "failing_malloc\n";
  if (write(2, said, sizeof(said) - 1) < 0) return 1;
  errno = ENOMEM;
  return 1;
}

void* malloc(size_t bytes) { return fails() ? NULL : __libc_malloc(bytes); }
void* calloc(size_t count, size_t bytes) { return fails() ? NULL : __libc_calloc(count, bytes); }
void* realloc(void* old, size_t bytes) { return fails() ? NULL : __libc_realloc(old, bytes); }
void* memalign(size_t alignment, size_t bytes) { return fails() ? NULL : __libc_memalign(alignment, bytes); }
void* aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }
int posix_memalign(void** out, size_t alignment, size_t bytes) {
  void* const got = memalign(alignment, bytes);
  if (got == NULL) return ENOMEM;
  *out = got;
  return 0;
}
