// One source, three builds of each inner loop: baseline x86-64 (or whatever the compiler's default is), AVX2, AVX-512; chosen at run time.
// The bodies are ordinary C++ that the compiler vectorises; they hold no reassociated float sums and are compiled with -ffp-contract=off,
// so all builds give the same bits.
#ifndef BALLAST_CORE_KERNELS_CPU_DISPATCH_H_
#define BALLAST_CORE_KERNELS_CPU_DISPATCH_H_

namespace ballast {

enum class Isa : int { kBase = 0, kAvx2 = 1, kAvx512 = 2 };

// Best of this CPU.
Isa BestIsa();
// What the kernels use: BestIsa, or what a test forced.
Isa ActiveIsa();
// Tests compare the builds bit by bit. REQUIRES isa <= BestIsa().
void ForceIsaForTest(Isa isa);

}  // namespace ballast

#define BALLAST_INLINE inline __attribute__((always_inline))

#if defined(__x86_64__)
#define BALLAST_TARGET_AVX2 __attribute__((target("avx2")))
#define BALLAST_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")))

// Defines `Return Name PARAMS`, which runs the best build of NameBody ARGS. NameBody is a BALLAST_INLINE function defined before.
#define BALLAST_DISPATCH(Return, Name, PARAMS, ARGS)                           \
  Return Name##Base PARAMS { return Name##Body ARGS; }                         \
  BALLAST_TARGET_AVX2 Return Name##Avx2 PARAMS { return Name##Body ARGS; }     \
  BALLAST_TARGET_AVX512 Return Name##Avx512 PARAMS { return Name##Body ARGS; } \
  Return Name PARAMS {                                                         \
    switch (ActiveIsa()) {                                                     \
      case Isa::kAvx512:                                                       \
        return Name##Avx512 ARGS;                                              \
      case Isa::kAvx2:                                                         \
        return Name##Avx2 ARGS;                                                \
      default:                                                                 \
        return Name##Base ARGS;                                                \
    }                                                                          \
  }
#else
#define BALLAST_DISPATCH(Return, Name, PARAMS, ARGS) \
  Return Name PARAMS { return Name##Body ARGS; }
#endif

#endif  // BALLAST_CORE_KERNELS_CPU_DISPATCH_H_
