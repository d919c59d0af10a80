// What a sync and a byte of log cost. Run it on the disk that matters: BALLAST_BENCH_DIR (default: the current directory).
//   bazel run -c opt //server/storage:segment_log_bench
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "server/storage/segment_log.h"

namespace ballast {
namespace {

class BenchLog {
 public:
  BenchLog() {
    const char* base = std::getenv("BALLAST_BENCH_DIR");
    dir_ = std::string(base == nullptr ? "." : base) + "/log_bench_XXXXXX";
    if (::mkdtemp(dir_.data()) == nullptr) std::abort();
    SegmentLogOptions options;
    options.dir = dir_;
    options.run_record = "bench";
    options.on_group = [this](uint64_t bytes, double seconds) {
      ++groups;
      group_bytes += bytes;
      sync_seconds += seconds;
    };
    log = *SegmentLog::Open(options, {});
  }
  ~BenchLog() {
    log.reset();
    std::filesystem::remove_all(dir_);
  }
  absl::StatusOr<LogPosition> Append(const std::string& body) {
    const absl::string_view piece = body;
    absl::StatusOr<LogPosition> at = log->Append(RecordKind::kContribution, absl::MakeConstSpan(&piece, 1), nullptr);
    if (at.ok() && at->segment > kept_ + 8) log->Cut(kept_ = at->segment - 4);  // recycles, as a long run does
    return at;
  }
  void Report(benchmark::State& state) {
    state.SetBytesProcessed(static_cast<int64_t>(group_bytes));
    state.counters["KiB_a_group"] = static_cast<double>(group_bytes) / 1024 / static_cast<double>(groups);
    state.counters["sync_us"] = 1e6 * sync_seconds / static_cast<double>(groups);
  }
  std::unique_ptr<SegmentLog> log;
  uint64_t groups = 0, group_bytes = 0;
  double sync_seconds = 0;

 private:
  std::string dir_;
  uint64_t kept_ = 0;
};

// One record, waited for: the latency of a decision.
void BM_AppendAndSync(benchmark::State& state) {
  BenchLog bench;
  const std::string body(static_cast<size_t>(state.range(0)), 'x');
  for (auto _ : state) {
    const auto at = bench.Append(body);
    if (!at.ok() || !bench.log->WaitSynced(at->sequence).ok()) state.SkipWithError("log failed");
  }
  bench.Report(state);
}
BENCHMARK(BM_AppendAndSync)->Arg(200)->Arg(60 << 10)->Arg(1 << 20)->UseRealTime()->Unit(benchmark::kMicrosecond);

// Contributions as fast as the disk takes them: appended without waiting, synced in groups.
void BM_AppendStream(benchmark::State& state) {
  BenchLog bench;
  const std::string body(static_cast<size_t>(state.range(0)), 'x');
  LogPosition last;
  for (auto _ : state) {
    const auto at = bench.Append(body);
    if (!at.ok()) state.SkipWithError("log failed");
    last = *at;
  }
  if (!bench.log->WaitSynced(last.sequence).ok()) state.SkipWithError("log failed");
  bench.Report(state);
}
BENCHMARK(BM_AppendStream)->Arg(4 << 10)->Arg(1 << 20)->UseRealTime()->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace ballast

BENCHMARK_MAIN();
