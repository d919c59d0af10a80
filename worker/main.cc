// ballast-worker: reads its configuration, starts a Worker, waits for SIGTERM or SIGINT. A second signal ends the process at once.
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "version.h"
#include "worker/config.h"
#include "worker/log.h"
#include "worker/worker.h"

namespace {

using namespace ballast;  // NOLINT

// Chunks and gradients come and go by the megabyte: giving them back to the kernel each time costs more than the work on them.
void TuneMalloc() {
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, -1);
  mallopt(M_TOP_PAD, 64 << 20);
}

int Serve(const WorkerConfig& config) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // before the first thread: they inherit it
  absl::StatusOr<std::unique_ptr<Worker>> worker = Worker::Start(config);
  if (!worker.ok()) {
    LogError(std::string(worker.status().message()));
    return kExitFailed;
  }
  LogInfo("ballast-worker serves",
          {{"address", (*worker)->address()}, {"metrics", (*worker)->metrics_address()}, {"server", config.server}, {"release", kVersion}});
  int signal = 0;
  sigwait(&signals, &signal);
  LogInfo("stopping", {{"signal", absl::StrCat(signal)}});
  std::thread([&signals] {
    int second = 0;
    sigwait(&signals, &second);
    _exit(kExitFailed);
  }).detach();
  (*worker)->Stop();
  LogInfo("stopped");
  return kExitOk;
}

}  // namespace

int main(int argc, char** argv) {
  TuneMalloc();
  CommandLine line;
  const absl::Status parsed = ParseCommandLine(
      argc, argv, [](const char* name) { return std::getenv(name); }, &line);
  if (!parsed.ok()) {
    std::fprintf(stderr, "ballast-worker: %s\nSee ballast-worker --help\n", std::string(parsed.message()).c_str());
    return kExitUsage;
  }
  if (line.action == CommandLine::Action::kPrinted) {
    std::fputs(line.text.c_str(), stdout);
    return kExitOk;
  }
  InitLog(line.config.log_format);
  return Serve(line.config);
}
