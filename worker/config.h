// The settings of ballast-worker: flags > BALLAST_* environment > TOML file > defaults. One table (config.cc) holds every name, help text
// and default. Called by main, once.
#ifndef BALLAST_WORKER_CONFIG_H_
#define BALLAST_WORKER_CONFIG_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "worker/log.h"

namespace ballast {

struct WorkerConfig {
  std::string server = "127.0.0.1:7070";
  std::string listen = "127.0.0.1:0";
  std::string advertise;
  std::string name;
  std::string dir;
  std::string metrics_listen = "127.0.0.1:0";  // empty: no /metrics
  uint32_t threads = 0;
  uint64_t feed_bytes = 256u << 20;
  uint64_t model_cache_bytes = uint64_t{4} << 30;
  bool trust_models = false;
  LogFormat log_format = LogFormat::kAuto;
  bool reflection = true;
  std::string ready_file;
};

// What main is asked to do.
struct CommandLine {
  enum class Action { kServe, kPrinted };  // kPrinted: `text` answers the whole request (help, version, configuration)
  Action action = Action::kServe;
  std::string text;
  WorkerConfig config;
};

// `environment` looks a variable up (getenv in main; null when unset).
// Errors: InvalidArgument naming flag, variable or key, for main to print before it exits with kExitUsage.
absl::Status ParseCommandLine(int argc, const char* const* argv, const std::function<const char*(const char*)>& environment,
                              CommandLine* out);

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;

}  // namespace ballast

#endif  // BALLAST_WORKER_CONFIG_H_
