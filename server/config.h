// The settings of ballast-server: flags > BALLAST_* environment > TOML file > defaults. One table (config.cc) holds every name, help text
// and default. Called by main, once.
#ifndef BALLAST_SERVER_CONFIG_H_
#define BALLAST_SERVER_CONFIG_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "server/log.h"

namespace ballast {

struct ServerConfig {
  std::string dir;
  std::string listen = "127.0.0.1:7070";
  std::string advertise;  // host:port that workers and other servers are told; empty: from listen
  uint32_t index = 0;
  uint32_t servers = 1;
  std::string coordinator;                     // address of server 0; index > 0 only
  std::string metrics_listen = "127.0.0.1:0";  // empty: no /metrics
  bool log_retain_all = false;
  bool trust_models = false;
  LogFormat log_format = LogFormat::kAuto;
  bool reflection = true;
  uint64_t queue_bytes = 256u << 20;
  uint64_t disk_reserve = 512u << 20;
  uint32_t reader_timeout_s = 60;
  double recovery_target_s = 30;            // 0: no bound
  uint64_t log_target = uint64_t{4} << 30;  // 0: no bound
  std::string ready_file;
  std::string mutate;  // BALLAST_MUTATE, in builds with BALLAST_MUTATIONS only
};

// What main is asked to do.
struct CommandLine {
  enum class Action { kServe, kReplay, kPrinted };  // kPrinted: `text` answers the whole request (help, version, configuration)
  Action action = Action::kServe;
  std::string text;
  ServerConfig config;
  std::string replay_dir;  // kReplay
  bool json = false;
};

// `environment` looks a variable up (getenv in main; null when unset).
// Errors: InvalidArgument naming flag, variable or key, for main to print before it exits with kExitUsage.
absl::Status ParseCommandLine(int argc, const char* const* argv, const std::function<const char*(const char*)>& environment,
                              CommandLine* out);

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitRefused = 5;  // data directory or cluster of somebody else

}  // namespace ballast

#endif  // BALLAST_SERVER_CONFIG_H_
