// ballastctl dev up|down|status
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "tools/ballastctl/commands.h"
#include "tools/ballastctl/dev_cluster.h"
#include "tools/ballastctl/output.h"

namespace ballast::ctl {
namespace {

using Json = nlohmann::ordered_json;

void Print(const DevCluster& cluster, bool json) {
  if (json) {
    Json processes = Json::array();
    for (const DevProcess& p : cluster.processes) {
      processes.push_back({{"name", p.name},
                           {"pid", p.pid},
                           {"alive", p.alive},
                           {"address", p.address},
                           {"metrics_address", p.metrics_address},
                           {"log", p.log}});
    }
    std::printf("%s\n", Json{{"dir", cluster.dir}, {"server", cluster.processes[0].address}, {"processes", processes}}.dump(2).c_str());
    return;
  }
  Table table({"PROCESS", "PID", "STATE", "ADDRESS", "METRICS", "LOG"});
  for (const DevProcess& p : cluster.processes) {
    table.Add({p.name, p.pid > 0 ? std::to_string(p.pid) : "-", p.alive ? "up" : "down", p.address,
               absl::StrCat("http://", p.metrics_address, "/metrics"), p.log});
  }
  table.Print();
}

}  // namespace

void AddDevCommands(CLI::App& app, Globals& globals) {
  CLI::App* dev = app.add_subcommand("dev", "A local cluster of real processes, for development");
  dev->require_subcommand(1);

  auto options = std::make_shared<DevOptions>();
  CLI::App* up = dev->add_subcommand("up", "Start it, or start again what died in it");
  up->add_option("--servers", options->servers, "Server processes")->capture_default_str()->check(CLI::Range(1, 64));
  up->add_option("--workers", options->workers, "Worker processes")->capture_default_str()->check(CLI::Range(0, 64));
  up->add_option("--dir", options->dir, "Folder of data and logs (default: " + DefaultDevDir() + ")");
  up->add_option("--server-flag", options->server_flags, "Handed on to every ballast-server, e.g. --server-flag=--log-retain=all")
      ->allow_extra_args(false);
  up->add_option("--worker-flag", options->worker_flags, "Handed on to every ballast-worker")->allow_extra_args(false);
  Bind(up, globals, [options, &globals]() -> absl::Status {
    auto cluster = DevUp(*options);
    if (!cluster.ok()) return cluster.status();
    Print(*cluster, globals.json);
    Message(absl::StrCat("ready: ballast.spark.connect(\"", cluster->processes[0].address, "\")"));
    return absl::OkStatus();
  });

  auto dir = std::make_shared<std::string>();
  auto remove = std::make_shared<bool>(false);
  CLI::App* down = dev->add_subcommand("down", "Stop it; data and logs stay");
  down->add_option("--dir", *dir, "Folder given to dev up");
  down->add_flag("--rm", *remove, "Also remove its data and logs");
  Bind(down, globals, [dir, remove, &globals] {
    const absl::Status stopped = DevDown(*dir, *remove);
    if (stopped.ok() && globals.json) {
      std::printf("%s\n", Json{{"dir", dir->empty() ? DefaultDevDir() : *dir}, {"removed", *remove}}.dump().c_str());
    }
    return stopped;
  });

  CLI::App* status = dev->add_subcommand("status", "Which of its processes run");
  status->add_option("--dir", *dir, "Folder given to dev up");
  Bind(status, globals, [dir, &globals]() -> absl::Status {
    auto cluster = DevStatus(*dir);
    if (!cluster.ok()) return cluster.status();
    Print(*cluster, globals.json);
    for (const DevProcess& p : cluster->processes) {
      if (!p.alive) return absl::UnavailableError(absl::StrCat(p.name, " does not run; `ballastctl dev up` starts it again"));
    }
    return absl::OkStatus();
  });
}

}  // namespace ballast::ctl
