// The sub-commands of ballastctl. Each Add...() declares its flags on `app`; the chosen one stores its exit code in `exit_code`.
#ifndef BALLAST_TOOLS_BALLASTCTL_COMMANDS_H_
#define BALLAST_TOOLS_BALLASTCTL_COMMANDS_H_

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "tools/ballastctl/client.h"

namespace ballast::ctl {

// Flags that every command shares.
struct Globals {
  std::string server;
  int timeout_ms = 5000;
  bool json = false;
  bool quiet = false;
  int exit_code = 0;

  absl::StatusOr<Client> Connect() const { return Client::Connect(server, std::chrono::milliseconds(timeout_ms)); }
};

void AddDevCommands(CLI::App& app, Globals& globals);
void AddRunCommands(CLI::App& app, Globals& globals);
void AddCheckpointCommands(CLI::App& app, Globals& globals);
void AddLogCommands(CLI::App& app, Globals& globals);

// Makes `command` run `body` and turn its status into message and exit code.
void Bind(CLI::App* command, Globals& globals, std::function<absl::Status()> body);

}  // namespace ballast::ctl

#endif  // BALLAST_TOOLS_BALLASTCTL_COMMANDS_H_
