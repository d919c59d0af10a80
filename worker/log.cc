#include "worker/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace ballast {
namespace {

struct State {
  State() {
    spdlog::drop("ballast");
    logger = spdlog::stderr_logger_mt("ballast");
    logger->set_pattern("%v");
    logger->flush_on(spdlog::level::trace);
  }
  std::shared_ptr<spdlog::logger> logger;
  std::atomic<bool> json{false};
  absl::Mutex mu;
  std::function<void(bool)> counter ABSL_GUARDED_BY(mu);
};

State& Global() {
  static State* const kState = new State;
  return *kState;
}

std::string JsonLine(const char* severity, absl::string_view body, std::initializer_list<LogField> fields) {
  nlohmann::ordered_json line;
  line["timestamp"] = absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", absl::Now(), absl::UTCTimeZone());
  line["severity_text"] = severity;
  line["body"] = std::string(body);
  for (const LogField& field : fields) line[std::string(field.key)] = field.value;
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string TextLine(const char* severity, absl::string_view body, std::initializer_list<LogField> fields) {
  std::string line = absl::StrCat(absl::FormatTime("%H:%M:%E3S", absl::Now(), absl::LocalTimeZone()), " ", severity, " ", body);
  for (const LogField& field : fields) absl::StrAppend(&line, "  ", field.key, "=", field.value);
  return line;
}

void Write(const char* severity, absl::string_view body, std::initializer_list<LogField> fields) {
  State& state = Global();
  const std::string line = state.json ? JsonLine(severity, body, fields) : TextLine(severity, body, fields);
  state.logger->info(line);
}

void Count(bool error) {
  State& state = Global();
  absl::MutexLock lock(&state.mu);
  if (state.counter) state.counter(error);
}

}  // namespace

void InitLog(LogFormat format) { Global().json = format == LogFormat::kJson || (format == LogFormat::kAuto && isatty(STDERR_FILENO) == 0); }

void SetLogCounter(std::function<void(bool error)> counter) {
  State& state = Global();
  absl::MutexLock lock(&state.mu);
  state.counter = std::move(counter);
}

void LogInfo(absl::string_view body, std::initializer_list<LogField> fields) { Write("INFO", body, fields); }
void LogWarning(absl::string_view body, std::initializer_list<LogField> fields) {
  Count(false);
  Write("WARN", body, fields);
}
void LogError(absl::string_view body, std::initializer_list<LogField> fields) {
  Count(true);
  Write("ERROR", body, fields);
}

}  // namespace ballast
