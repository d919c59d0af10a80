// Speed of the codec and optimizer kernels, in bytes of fp32 a second, beside memcpy in the same run. 512 KiB stays in cache; 128 MiB does
// not. Targets: encode with error feedback at least 0.8 x memcpy, decode + SGD 1.4 x, decode + Adam 0.55 x, out of cache and on one thread.
//   bazel run -c opt //core/codec:codec_bench

#include <benchmark/benchmark.h>

#include <cstdlib>
#include <cstring>
#include <vector>

#include "core/codec/codec.h"
#include "core/optimizer/optimizer.h"

namespace ballast {
namespace {

// Arrays a power of two apart would fight for the same cache sets: each begins at an offset of its own, as core/kernels allocates them.
class Values {
 public:
  Values(size_t n, size_t number) : memory_(n + 16 * 1024), data_(memory_.data() + 272 * (number + 1)) {
    for (size_t i = 0; i < n; ++i) data_[i] = static_cast<float>((i * 2654435761u >> 8) & 0xffff) / 65536.0f - 0.5f;
  }
  float& operator[](size_t i) { return data_[i]; }
  const float& operator[](size_t i) const { return data_[i]; }

 private:
  std::vector<float> memory_;
  float* data_;
};

void SetBytes(benchmark::State& state, size_t n) {
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * static_cast<int64_t>(4 * n));
}

void BM_Memcpy(benchmark::State& state) {
  const size_t n = state.range(0) / 4;
  const Values from(n, 0);
  Values to(n, 1);
  for (auto _ : state) {
    std::memcpy(&to[0], &from[0], 4 * n);
    benchmark::ClobberMemory();
  }
  SetBytes(state, n);
}

constexpr size_t kBlock = kBlockElemsMax;

template <typename Work>
void ForBlocks(size_t n, Work work) {
  for (size_t first = 0; first < n; first += kBlock) work(first, std::min(kBlock, n - first));
}

void BM_EncodeWithResidual(benchmark::State& state) {
  const Codec codec = static_cast<Codec>(state.range(1));
  const size_t n = state.range(0) / 4;
  const Values grad(n, 0);
  Values residual(n, 1);
  std::vector<char> out(4 * n);
  for (auto _ : state) {
    ForBlocks(n, [&](size_t first, size_t count) {
      EncodeWithResidual(codec, absl::MakeConstSpan(&grad[first], count), absl::MakeSpan(&residual[first], count),
                         absl::MakeSpan(&out[first * EncodedBytes(codec, 256) / 256], EncodedBytes(codec, count)));
    });
    benchmark::ClobberMemory();
  }
  SetBytes(state, n);
}

void BM_DecodeAndStep(benchmark::State& state) {
  const Codec codec = static_cast<Codec>(state.range(1));
  const uint32_t kernel = static_cast<uint32_t>(state.range(2));
  const size_t n = state.range(0) / 4;
  Values w(n, 0), m(n, 1), v(n, 2);
  for (size_t i = 0; i < n; ++i) v[i] = 0.5f;
  std::vector<char> bytes(EncodedBytes(codec, n) + 4096);
  Encode(codec, absl::MakeConstSpan(&w[0], n), absl::MakeSpan(bytes.data(), EncodedBytes(codec, n)));
  const absl::string_view view(bytes.data(), EncodedBytes(codec, n));
  const std::vector<float> hyper = {0.01f, 0,    0.1f, 0.999f, kernel == kKernelSgd ? 0.0f : 0.001f, kernel == kKernelSgd ? 0.0f : 0.9f,
                                    1e-8f, 0.01f};
  constexpr size_t kPiece = 2048;
  alignas(64) float acc[kPiece];
  for (auto _ : state) {
    for (size_t first = 0; first < n; first += kPiece) {
      const size_t count = std::min(kPiece, n - first);
      DecodeRange(codec, view, n, first, absl::MakeSpan(acc, count));
      ApplyOptimizer(kernel, hyper, absl::MakeConstSpan(acc, count), absl::MakeSpan(&w[first], count),
                     kernel == kKernelSgd ? Slots{} : Slots{&m[first], &v[first]});
    }
    benchmark::ClobberMemory();
  }
  SetBytes(state, n);
}

void BM_CheckEncoded(benchmark::State& state) {
  const Codec codec = static_cast<Codec>(state.range(1));
  const size_t n = kBlock;
  std::vector<char> bytes(EncodedBytes(codec, n));
  const Values values(n, 0);
  Encode(codec, absl::MakeConstSpan(&values[0], n), absl::MakeSpan(bytes));
  for (auto _ : state) {
    double norm2 = 0;
    benchmark::DoNotOptimize(CheckEncoded(codec, n, absl::string_view(bytes.data(), bytes.size()), &norm2).ok());
  }
  SetBytes(state, n);
}

constexpr int64_t kCached = 512 << 10, kDram = 128 << 20;
BENCHMARK(BM_Memcpy)->Arg(kCached)->Arg(kDram);
BENCHMARK(BM_EncodeWithResidual)->ArgNames({"bytes", "codec"})->ArgsProduct({{kCached, kDram}, {1, 2, 3}});
BENCHMARK(BM_DecodeAndStep)->ArgNames({"bytes", "codec", "kernel"})->ArgsProduct({{kCached, kDram}, {1, 2, 3}, {1, 2}});
BENCHMARK(BM_CheckEncoded)->ArgNames({"bytes", "codec"})->ArgsProduct({{1 << 20}, {1, 2, 3}});

}  // namespace
}  // namespace ballast

BENCHMARK_MAIN();
