// Log lines of ballast-worker, to stderr: one JSON object a line (timestamp, severity_text, body, then the fields), or text on a terminal.
// Threads: InitLog once at start, the others from any thread. Never per chunk or row.
#ifndef BALLAST_WORKER_LOG_H_
#define BALLAST_WORKER_LOG_H_

#include <functional>
#include <initializer_list>
#include <string>

#include "absl/strings/string_view.h"

namespace ballast {

enum class LogFormat { kAuto, kText, kJson };  // auto: text when stderr is a terminal

struct LogField {
  absl::string_view key;
  std::string value;
};

void InitLog(LogFormat format);
// Called for every warning (false) and error (true); one hook for the process, empty to take it away.
void SetLogCounter(std::function<void(bool error)> counter);

void LogInfo(absl::string_view body, std::initializer_list<LogField> fields = {});
void LogWarning(absl::string_view body, std::initializer_list<LogField> fields = {});
void LogError(absl::string_view body, std::initializer_list<LogField> fields = {});

}  // namespace ballast

#endif  // BALLAST_WORKER_LOG_H_
