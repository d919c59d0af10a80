// ballast-server.
#include <malloc.h>
#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <utility>

#include "server/config.h"
#include "server/log.h"
#include "server/replay_command.h"
#include "server/server.h"

namespace {

using ballast::CommandLine;

// glibc gives every large block back to the kernel and pays for its pages again: two thirds of the cost of receiving a chunk.
void SetUpMalloc() {
  constexpr int kMmapThresholdMax = 32 << 20;  // the most that glibc takes on some releases
  if (mallopt(M_MMAP_THRESHOLD, 1 << 30) == 0) mallopt(M_MMAP_THRESHOLD, kMmapThresholdMax);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  mallopt(M_TOP_PAD, 64 << 20);
}

int ExitCodeOf(const absl::Status& status) {
  if (absl::IsFailedPrecondition(status)) return ballast::kExitRefused;
  if (absl::IsInvalidArgument(status)) return ballast::kExitUsage;
  return ballast::kExitFailed;
}

// The first SIGTERM or SIGINT asks the server to stop in order; before it serves, and for the second one, the process ends at once.
void HandleSignals(const sigset_t& signals, std::atomic<ballast::Server*>* server) {
  std::thread([signals, server] {
    int signal = 0;
    while (sigwait(&signals, &signal) == 0) {
      ballast::Server* const running = server->exchange(nullptr);
      if (running == nullptr) std::_Exit(ballast::kExitFailed);
      running->RequestStop();
    }
  }).detach();
}

int Serve(const ballast::ServerConfig& config) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // inherited by every thread
  signal(SIGPIPE, SIG_IGN);
  static std::atomic<ballast::Server*> serving{nullptr};  // the signal thread outlives this function
  HandleSignals(signals, &serving);

  ballast::InitLog(config.log_format);
  auto server = ballast::Server::Start(config);
  if (!server.ok()) {
    ballast::LogError("cannot start", {{"reason", std::string(server.status().message())}});
    return ExitCodeOf(server.status());
  }
  serving = server->get();
  absl::Status ended = (*server)->Wait();
  if (ended.ok()) ended = (*server)->Drain();
  if (!ended.ok()) std::_Exit(ExitCodeOf(ended));  // after a failed write nothing more may be written
  server->reset();
  ballast::LogInfo("stopped");
  return ballast::kExitOk;
}

}  // namespace

int main(int argc, char** argv) {
  SetUpMalloc();
  CommandLine command;
  if (absl::Status parsed = ballast::ParseCommandLine(
          argc, argv, [](const char* name) { return std::getenv(name); }, &command);
      !parsed.ok()) {
    std::fprintf(stderr, "ballast-server: %s\nTry ballast-server --help\n", std::string(parsed.message()).c_str());
    return ballast::kExitUsage;
  }
  switch (command.action) {
    case CommandLine::Action::kPrinted:
      std::fputs(command.text.c_str(), stdout);
      return ballast::kExitOk;
    case CommandLine::Action::kReplay:
      return ballast::ReplayAndPrint(command.replay_dir, command.json);
    case CommandLine::Action::kServe:
      return Serve(command.config);
  }
  return ballast::kExitUsage;
}
