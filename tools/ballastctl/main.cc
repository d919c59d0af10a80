// ballastctl: inspects and operates a Ballast cluster from the command line.

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "core/status.h"

#include "tools/ballastctl/commands.h"
#include "tools/ballastctl/exit_code.h"
#include "tools/ballastctl/output.h"
#include "version.h"

namespace ballast::ctl {

void Bind(CLI::App* command, Globals& globals, std::function<absl::Status()> body) {
  command->callback([&globals, body = std::move(body)] {
    SetQuiet(globals.quiet);
    const absl::Status status = body();
    if (status.ok()) return;
    const std::string reason = ReasonOf(status);
    std::fprintf(stderr, "ballastctl: %s%s\n", std::string(status.message()).c_str(),
                 reason.empty() ? "" : ("   (reason " + reason + ")").c_str());
    globals.exit_code = ExitCodeOf(status);
  });
}

int Main(int argc, char** argv) {
  CLI::App app{"Inspects and operates a Ballast cluster.", "ballastctl"};
  Globals globals;
  app.set_version_flag("--version", std::string("ballastctl ") + kVersion);
  app.add_option("-s,--server", globals.server, "Address of server 0 (HOST:PORT)")->envname("BALLAST_SERVER");
  app.add_option("--timeout", globals.timeout_ms, "Longest wait for a connection, ms")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_flag("--json", globals.json, "Print JSON");
  app.add_flag("-q,--quiet", globals.quiet, "No messages on stderr");
  app.footer(kExitCodesHelp);
  app.require_subcommand(1);
  app.fallthrough();
  AddDevCommands(app, globals);
  AddRunCommands(app, globals);
  AddCheckpointCommands(app, globals);
  AddLogCommands(app, globals);
  try {
    app.parse(argc, argv);
  } catch (const CLI::RequiredError& e) {
    const std::vector<std::string> unknown = app.remaining(/*recurse=*/true);
    if (unknown.empty()) return app.exit(e), kExitUsage;
    std::fprintf(stderr, "ballastctl: there is no command \"%s\" here\nRun with --help for more information.\n", unknown.front().c_str());
    return kExitUsage;
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? kExitOk : kExitUsage;
  } catch (const std::exception& e) {  // from the JSON or file system libraries: nothing of ours throws
    std::fprintf(stderr, "ballastctl: %s\n", e.what());
    return kExitCheckFailed;
  }
  return globals.exit_code;
}

}  // namespace ballast::ctl

int main(int argc, char** argv) { return ballast::ctl::Main(argc, argv); }
