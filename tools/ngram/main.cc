// ballast-ngram: n-gram language models with interpolated modified Kneser-Ney smoothing. docs/NGRAM.md.
#include <sys/resource.h>

#include <cstdio>
#include <string>
#include <vector>

#include "tools/ngram/commands.h"

namespace ballast::ngram {
namespace {

std::vector<Command> AllCommands() {
  std::vector<Command> all = {TrainCommand()};
  for (std::vector<Command> part : {ShardCommands(), ModelCommands()}) all.insert(all.end(), part.begin(), part.end());
  return all;
}

void PrintUsage(const std::vector<Command>& commands, FILE* to) {
  std::fprintf(to, "usage: ballast-ngram COMMAND [FLAGS] [ARGUMENTS]; ballast-ngram COMMAND --help\n");
  for (const Command& command : commands) std::fprintf(to, "  %-10s %s\n", command.name, command.help);
}

void PrintHelp(const Command& command) {
  std::printf("usage: ballast-ngram %s [FLAGS] %s\n%s\n", command.name, command.arguments, command.help);
  for (const FlagSpec& flag : command.flags)
    std::printf("  --%s %s\n      %s\n", flag.name, flag.value == nullptr ? "" : flag.value, flag.help);
}

// Some hundred shards are open at once.
void RaiseFileLimit() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int Run(const Command& command, const std::vector<std::string>& arguments) {
  for (const std::string& argument : arguments) {
    if (argument == "--help") {
      PrintHelp(command);
      return 0;
    }
  }
  absl::StatusOr<Flags> flags = Flags::Parse(arguments, command.flags);
  const absl::Status done = flags.ok() ? command.run(*flags) : flags.status();
  if (done.ok()) return 0;
  std::fprintf(stderr, "ballast-ngram %s: %s\n", command.name, std::string(done.message()).c_str());
  return done.code() == absl::StatusCode::kInvalidArgument ? 2 : 1;
}

int Main(const std::vector<std::string>& arguments) {
  const std::vector<Command> commands = AllCommands();
  if (arguments.empty() || arguments[0] == "--help") {
    PrintUsage(commands, arguments.empty() ? stderr : stdout);
    return arguments.empty() ? 2 : 0;
  }
  RaiseFileLimit();
  std::vector<std::string> names;
  for (const Command& command : commands) {
    if (arguments[0] == command.name) return Run(command, {arguments.begin() + 1, arguments.end()});
    names.push_back(command.name);
  }
  const std::string nearest = Nearest(arguments[0], names);
  std::fprintf(stderr, "ballast-ngram: unknown command %s%s\n", arguments[0].c_str(),
               nearest.empty() ? "" : ("; did you mean " + nearest + "?").c_str());
  return 2;
}

}  // namespace
}  // namespace ballast::ngram

int main(int argc, char** argv) { return ballast::ngram::Main({argv + 1, argv + argc}); }
