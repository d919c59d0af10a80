// Named points in the path of a step where a test build can end its own process, as kill -9 would, or hold the thread that comes by.
// They sit where a crash is hardest to recover from; tests/e2e and tests/crash count on them. In other builds the macro is empty.
//
//   BALLAST_FAILPOINT("append-receipt");
//
//   append-receipt    a contribution is in the log (durable on shards other than 0), its receipt is not sent
//   submit-decision   the coordinator took a Submit, its step is not decided
//   decision-apply    a decision is held (durable on shard 0), not applied
//   apply-ack         a decision is applied and published, nobody was told
//   log-write         records are appended in memory, nothing of them is written
//
// Environment of a test build (--config=mutate or the -mutable binaries):
//   BALLAST_CRASH_AT=name:n   the n-th thread to pass `name` kills the process (SIGKILL), after a line "failpoint name" on stderr
//   BALLAST_STALL_AT=name:f   while the file f exists, a thread that passes `name` stays there until the process is killed
// Threads: any.
#ifndef BALLAST_SERVER_FAILPOINT_H_
#define BALLAST_SERVER_FAILPOINT_H_

#ifdef BALLAST_MUTATIONS

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <string>

namespace ballast {

class Failpoints {
 public:
  static void Pass(const char* name) {
    static Failpoints points;
    if (points.Crashes(name)) {
      fprintf(stderr, "failpoint %s\n", name);
      raise(SIGKILL);
    }
    if (points.Stalls(name)) {
      fprintf(stderr, "failpoint %s: stalled\n", name);
      for (;;) pause();
    }
  }

 private:
  struct Plan {  // "name:argument" in an environment variable
    std::string name;
    std::string argument;

    explicit Plan(const char* variable) {
      const char* text = std::getenv(variable);
      const std::string plan = text == nullptr ? "" : text;
      name = plan.substr(0, plan.find(':'));
      if (name.size() < plan.size()) argument = plan.substr(name.size() + 1);
    }
  };

  bool Crashes(const char* passed) { return crash_.name == passed && ++passes_ == std::atol(crash_.argument.c_str()); }
  bool Stalls(const char* passed) { return stall_.name == passed && access(stall_.argument.c_str(), F_OK) == 0; }

  const Plan crash_{"BALLAST_CRASH_AT"};
  const Plan stall_{"BALLAST_STALL_AT"};
  std::atomic<long> passes_{0};
};

}  // namespace ballast

#define BALLAST_FAILPOINT(name) ::ballast::Failpoints::Pass(name)
#else
#define BALLAST_FAILPOINT(name) static_cast<void>(0)
#endif

#endif  // BALLAST_SERVER_FAILPOINT_H_
