#include "server/config.h"

#include <CLI/CLI.hpp>
#include <fstream>
#include <map>
#include <sstream>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "version.h"

namespace ballast {
namespace {

// Sets one member from text. Error: what is allowed instead.
using Parse = std::function<absl::Status(const std::string& text, ServerConfig& config)>;

struct Setting {
  const char* name;   // flag --name, variable BALLAST_NAME, key in the file
  const char* value;  // placeholder in --help
  const char* fallback;
  const char* help;
  Parse parse;
};

absl::Status Expected(absl::string_view what) { return absl::InvalidArgumentError(absl::StrCat("expected ", what)); }

Parse Text(std::string ServerConfig::*member) {
  return [member](const std::string& text, ServerConfig& config) {
    config.*member = text;
    return absl::OkStatus();
  };
}

Parse Number(uint32_t ServerConfig::*member) {
  return [member](const std::string& text, ServerConfig& config) {
    return absl::SimpleAtoi(text, &(config.*member)) ? absl::OkStatus() : Expected("a whole number");
  };
}

Parse Seconds(double ServerConfig::*member) {
  return [member](const std::string& text, ServerConfig& config) {
    double seconds = 0;
    if (!absl::SimpleAtod(text, &seconds) || !(seconds >= 0 && seconds <= 1e9)) return Expected("seconds, such as 30 or 2.5");
    config.*member = seconds;
    return absl::OkStatus();
  };
}

// 123, 64K, 256M, 4G (powers of 1024).
Parse Bytes(uint64_t ServerConfig::*member) {
  return [member](const std::string& text, ServerConfig& config) {
    static const std::map<char, int> kShift = {{'K', 10}, {'M', 20}, {'G', 30}, {'T', 40}};
    const auto suffix = text.empty() ? kShift.end() : kShift.find(absl::ascii_toupper(static_cast<unsigned char>(text.back())));
    const int shift = suffix == kShift.end() ? 0 : suffix->second;
    uint64_t number = 0;
    const bool good = absl::SimpleAtoi(text.substr(0, text.size() - (shift > 0)), &number) && number <= (UINT64_MAX >> shift);
    if (!good) return Expected("bytes, such as 268435456 or 256M");
    config.*member = number << shift;
    return absl::OkStatus();
  };
}

template <typename T>
Parse OneOf(T ServerConfig::*member, std::vector<std::pair<std::string, T>> values) {
  return [member, values = std::move(values)](const std::string& text, ServerConfig& config) {
    std::string allowed;
    for (const auto& [name, value] : values) {
      if (text == name) {
        config.*member = value;
        return absl::OkStatus();
      }
      absl::StrAppend(&allowed, allowed.empty() ? "" : " or ", name);
    }
    return Expected(allowed);
  };
}

const std::vector<Setting>& Settings() {
  static const auto* const kSettings = new std::vector<Setting>{
      {"dir", "PATH", "", "data directory of this server (required)", Text(&ServerConfig::dir)},
      {"listen", "HOST:PORT", "127.0.0.1:7070", "address of the gRPC services; port 0: a free one", Text(&ServerConfig::listen)},
      {"advertise", "HOST:PORT", "", "address that others are told to use (default: from --listen)", Text(&ServerConfig::advertise)},
      {"index", "N", "0", "number of this server; 0 hosts the coordinator", Number(&ServerConfig::index)},
      {"servers", "N", "1", "servers of the cluster; fixed for the data directory", Number(&ServerConfig::servers)},
      {"coordinator", "HOST:PORT", "", "address of server 0 (needed when --index is above 0)", Text(&ServerConfig::coordinator)},
      {"metrics-listen", "HOST:PORT", "127.0.0.1:0", "address of Prometheus /metrics; port 0: a free one, logged; empty: none",
       Text(&ServerConfig::metrics_listen)},
      {"log-retain", "needed|all", "needed", "which log segments to keep: what a restart needs, or everything since INIT",
       OneOf<bool>(&ServerConfig::log_retain_all, {{"needed", false}, {"all", true}})},
      {"trust-models", "off|on", "off", "accept models (executable code) from callers that are not on this machine",
       OneOf<bool>(&ServerConfig::trust_models, {{"off", false}, {"on", true}})},
      {"log-format", "auto|text|json", "auto", "log lines on stderr; auto: text on a terminal, else JSON",
       OneOf<LogFormat>(&ServerConfig::log_format, {{"auto", LogFormat::kAuto}, {"text", LogFormat::kText}, {"json", LogFormat::kJson}})},
      {"reflection", "on|off", "on", "gRPC server reflection", OneOf<bool>(&ServerConfig::reflection, {{"on", true}, {"off", false}})},
      {"queue-bytes", "BYTES", "256M", "pushed bytes that may wait for one run; then its streams are not read",
       Bytes(&ServerConfig::queue_bytes)},
      {"disk-reserve", "BYTES", "512M", "free disk space below which no more batches are granted", Bytes(&ServerConfig::disk_reserve)},
      {"reader-timeout", "SECONDS", "60", "a Pull stream of which nothing is taken for so long is closed",
       Number(&ServerConfig::reader_timeout_s)},
      {"recovery-target", "SECONDS", "30", "a checkpoint is taken when a restart would replay its log for longer; 0: never for that",
       Seconds(&ServerConfig::recovery_target_s)},
      {"log-target", "BYTES", "4G",
       "a checkpoint is taken when the log of a run is longer, and than four times its weights and optimizer state; 0: never for that",
       Bytes(&ServerConfig::log_target)},
      {"ready-file", "PATH", "", "written when serving: {\"address\", \"metrics_address\", \"pid\"}", Text(&ServerConfig::ready_file)},
  };
  return *kSettings;
}

std::string VariableOf(const char* name) {
  return absl::StrCat("BALLAST_", absl::AsciiStrToUpper(absl::StrReplaceAll(name, {{"-", "_"}})));
}

struct Value {
  std::string text;
  std::string origin;
};
using Values = std::map<std::string, Value>;

absl::Status ReadTomlFile(const std::string& path, Values* values) {
  std::ifstream file(path);
  if (!file) return absl::InvalidArgumentError(absl::StrCat("cannot read the configuration file ", path));
  std::vector<CLI::ConfigItem> items;
  try {
    items = CLI::ConfigTOML().from_config(file);
  } catch (const CLI::Error& error) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", error.what()));
  }
  for (const CLI::ConfigItem& item : items) {
    const auto known = values->find(item.name);
    if (known == values->end() || !item.parents.empty())
      return absl::InvalidArgumentError(absl::StrCat(path, ": unknown key \"", item.fullname(), "\""));
    if (item.inputs.size() != 1) return absl::InvalidArgumentError(absl::StrCat(path, ": key \"", item.name, "\" wants one value"));
    known->second = {item.inputs[0], absl::StrCat("file ", path)};
  }
  return absl::OkStatus();
}

absl::Status CheckTogether(const ServerConfig& config) {
  if (config.dir.empty()) return absl::InvalidArgumentError("--dir is required: the data directory of this server");
  if (config.reader_timeout_s < 1) return absl::InvalidArgumentError("--reader-timeout must be at least 1 second");
  if (config.servers < 1) return absl::InvalidArgumentError("--servers must be at least 1");
  if (config.index >= config.servers) {
    return absl::InvalidArgumentError(absl::StrCat("--index ", config.index, " needs --servers of at least ", config.index + 1));
  }
  if (config.index > 0 && config.coordinator.empty())
    return absl::InvalidArgumentError("--coordinator is required when --index is above 0");
  if (config.index == 0 && !config.coordinator.empty())
    return absl::InvalidArgumentError("--coordinator is for servers with --index above 0");
  return absl::OkStatus();
}

std::string PrintConfig(const Values& values) {
  std::string text;
  for (const Setting& setting : Settings()) {
    const Value& value = values.at(setting.name);
    absl::StrAppend(&text, setting.name, " = \"", value.text, "\"  # ", value.origin, "\n");
  }
  return text;
}

}  // namespace

absl::Status ParseCommandLine(int argc, const char* const* argv, const std::function<const char*(const char*)>& environment,
                              CommandLine* out) {
  CLI::App app(
      "ballast-server: one server of a Ballast cluster. Every setting is also read from BALLAST_<NAME> and from the configuration file.\n"
      "Exit codes: 0 stopped in order, 1 failed, 2 usage, 5 refused (data directory or cluster of somebody else).",
      "ballast-server");
  std::map<std::string, std::string> flags;
  std::map<std::string, CLI::Option*> options;
  for (const Setting& setting : Settings()) {
    options[setting.name] = app.add_option(absl::StrCat("--", setting.name), flags[setting.name], setting.help)
                                ->type_name(setting.value)
                                ->default_str(setting.fallback);
  }
  std::string file;
  app.add_option("--config", file, "TOML file with these settings")->type_name("PATH");
  bool print_config = false, print_version = false, print_hash = false;
  app.add_flag("--print-config", print_config, "print every setting and where it comes from, then exit");
  app.add_flag("--version", print_version, "print the release, then exit");
  app.add_option("--replay", out->replay_dir, "replay the logs in this data directory (kept with --log-retain=all), then exit")
      ->type_name("PATH");
  app.add_flag("--print-hash", print_hash, "with --replay: print run, shard, version and state hash");
  app.add_flag("--json", out->json, "with --replay: JSON, one object a line");
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    *out = {CommandLine::Action::kPrinted, app.help(), {}, "", false};
    return absl::OkStatus();
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(error.what());
  }
  if (print_version) {
    out->action = CommandLine::Action::kPrinted;
    out->text = absl::StrCat("ballast-server ", kVersion, "\n");
    return absl::OkStatus();
  }
  if (!out->replay_dir.empty() || print_hash) {
    if (out->replay_dir.empty() || !print_hash) return absl::InvalidArgumentError("--replay DIR and --print-hash go together");
    out->action = CommandLine::Action::kReplay;
    return absl::OkStatus();
  }

  Values values;
  for (const Setting& setting : Settings()) values[setting.name] = {setting.fallback, "default"};
  if (const char* variable = file.empty() ? environment("BALLAST_CONFIG") : nullptr) file = variable;
  if (!file.empty()) {
    if (absl::Status read = ReadTomlFile(file, &values); !read.ok()) return read;
  }
  for (const Setting& setting : Settings()) {
    const std::string variable = VariableOf(setting.name);
    if (const char* text = environment(variable.c_str())) values[setting.name] = {text, variable};
    if (options[setting.name]->count() > 0) values[setting.name] = {flags[setting.name], absl::StrCat("--", setting.name)};
    const Value& value = values[setting.name];
    if (absl::Status parsed = setting.parse(value.text, out->config); !parsed.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(setting.name, " = \"", value.text, "\" (", value.origin, "): ", parsed.message()));
    }
  }
#ifdef BALLAST_MUTATIONS
  if (const char* mutate = environment("BALLAST_MUTATE")) out->config.mutate = mutate;
#endif
  if (print_config) {
    out->action = CommandLine::Action::kPrinted;
    out->text = PrintConfig(values);
    return absl::OkStatus();
  }
  return CheckTogether(out->config);
}

}  // namespace ballast
