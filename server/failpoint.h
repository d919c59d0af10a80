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
//   BALLAST_STALL_AT=name:n   the n-th and every later one stays there until the process is killed
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
    if (points.crash_.Hit(name)) {
      fprintf(stderr, "failpoint %s\n", name);
      raise(SIGKILL);
    }
    if (points.stall_.Hit(name)) {
      fprintf(stderr, "failpoint %s: stalled\n", name);
      for (;;) pause();
    }
  }

 private:
  struct Plan {
    std::string name;
    long from = 0;
    bool later = false;  // also every pass after that one
    std::atomic<long> passes{0};

    Plan(const char* variable, bool later_too) : later(later_too) {
      const char* text = std::getenv(variable);
      const std::string plan = text == nullptr ? "" : text;
      name = plan.substr(0, plan.find(':'));
      if (name.size() < plan.size()) from = std::atol(plan.c_str() + name.size() + 1);
    }
    bool Hit(const char* passed) {
      if (from == 0 || name != passed) return false;
      const long pass = passes.fetch_add(1) + 1;
      return later ? pass >= from : pass == from;
    }
  };
  Plan crash_{"BALLAST_CRASH_AT", false};
  Plan stall_{"BALLAST_STALL_AT", true};
};

}  // namespace ballast

#define BALLAST_FAILPOINT(name) ::ballast::Failpoints::Pass(name)
#else
#define BALLAST_FAILPOINT(name) static_cast<void>(0)
#endif

#endif  // BALLAST_SERVER_FAILPOINT_H_
