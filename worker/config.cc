#include "worker/config.h"

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
using Parse = std::function<absl::Status(const std::string& text, WorkerConfig& config)>;

struct Setting {
  const char* name;   // flag --name, variable BALLAST_NAME, key in the file
  const char* value;  // placeholder in --help
  const char* fallback;
  const char* help;
  Parse parse;
};

absl::Status Expected(absl::string_view what) { return absl::InvalidArgumentError(absl::StrCat("expected ", what)); }

Parse Text(std::string WorkerConfig::*member) {
  return [member](const std::string& text, WorkerConfig& config) {
    config.*member = text;
    return absl::OkStatus();
  };
}

Parse Number(uint32_t WorkerConfig::*member) {
  return [member](const std::string& text, WorkerConfig& config) {
    return absl::SimpleAtoi(text, &(config.*member)) ? absl::OkStatus() : Expected("a whole number");
  };
}

// 123, 64K, 256M, 4G (powers of 1024).
Parse Bytes(uint64_t WorkerConfig::*member) {
  return [member](const std::string& text, WorkerConfig& config) {
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
Parse OneOf(T WorkerConfig::*member, std::vector<std::pair<std::string, T>> values) {
  return [member, values = std::move(values)](const std::string& text, WorkerConfig& config) {
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
      {"server", "HOST:PORT", "127.0.0.1:7070", "address of server 0; the worker waits for it", Text(&WorkerConfig::server)},
      {"listen", "HOST:PORT", "127.0.0.1:0", "address of the gRPC services (feeds, inference); port 0: a free one",
       Text(&WorkerConfig::listen)},
      {"advertise", "HOST:PORT", "", "address that tasks are told to use (default: from --listen)", Text(&WorkerConfig::advertise)},
      {"name", "NAME", "", "unique among the workers (default: host:pid)", Text(&WorkerConfig::name)},
      {"dir", "PATH", "", "folder where model files are kept (default: one for each user below the system's temporary folder)",
       Text(&WorkerConfig::dir)},
      {"metrics-listen", "HOST:PORT", "127.0.0.1:0", "address of Prometheus /metrics; port 0: a free one, logged; empty: none",
       Text(&WorkerConfig::metrics_listen)},
      {"threads", "N", "0", "threads of one forward or backward pass; 0: one for each core", Number(&WorkerConfig::threads)},
      {"feed-bytes", "BYTES", "256M", "rows of one run that may wait here", Bytes(&WorkerConfig::feed_bytes)},
      {"model-cache-bytes", "BYTES", "4G", "models that are kept loaded for inference", Bytes(&WorkerConfig::model_cache_bytes)},
      {"trust-models", "off|on", "off", "run models (executable code) that a server on another machine names",
       OneOf<bool>(&WorkerConfig::trust_models, {{"off", false}, {"on", true}})},
      {"log-format", "auto|text|json", "auto", "log lines on stderr; auto: text on a terminal, else JSON",
       OneOf<LogFormat>(&WorkerConfig::log_format, {{"auto", LogFormat::kAuto}, {"text", LogFormat::kText}, {"json", LogFormat::kJson}})},
      {"reflection", "on|off", "on", "gRPC server reflection", OneOf<bool>(&WorkerConfig::reflection, {{"on", true}, {"off", false}})},
      {"ready-file", "PATH", "", "written when attached and serving: {\"address\", \"metrics_address\", \"pid\", \"name\"}",
       Text(&WorkerConfig::ready_file)},
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

bool OnThisMachine(const std::string& address) {
  const std::string host = address.substr(0, address.rfind(':'));
  return host == "localhost" || host == "[::1]" || host.rfind("127.", 0) == 0 || address.rfind("unix:", 0) == 0;
}

absl::Status CheckTogether(const WorkerConfig& config) {
  if (config.server.empty()) return absl::InvalidArgumentError("--server is required: the address of server 0");
  if (!OnThisMachine(config.server) && !config.trust_models) {
    return absl::InvalidArgumentError(absl::StrCat("server ", config.server,
                                                   " is on another machine: the model files that it names are code that this ",
                                                   "worker would run. Say --trust-models=on to allow that"));
  }
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
      "ballast-worker: trains and scores for a Ballast cluster. Every setting is also read from BALLAST_<NAME> and from the configuration "
      "file.\n"
      "Exit codes: 0 stopped in order, 1 failed, 2 usage.",
      "ballast-worker");
  std::map<std::string, std::string> flags;
  std::map<std::string, CLI::Option*> options;
  for (const Setting& setting : Settings()) {
    options[setting.name] = app.add_option(absl::StrCat("--", setting.name), flags[setting.name], setting.help)
                                ->type_name(setting.value)
                                ->default_str(setting.fallback);
  }
  std::string file;
  app.add_option("--config", file, "TOML file with these settings")->type_name("PATH");
  bool print_config = false, print_version = false;
  app.add_flag("--print-config", print_config, "print every setting and where it comes from, then exit");
  app.add_flag("--version", print_version, "print the release, then exit");
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    *out = {CommandLine::Action::kPrinted, app.help(), {}};
    return absl::OkStatus();
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(error.what());
  }
  if (print_version) {
    out->action = CommandLine::Action::kPrinted;
    out->text = absl::StrCat("ballast-worker ", kVersion, "\n");
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
  if (print_config) {
    out->action = CommandLine::Action::kPrinted;
    out->text = PrintConfig(values);
    return absl::OkStatus();
  }
  return CheckTogether(out->config);
}

}  // namespace ballast
